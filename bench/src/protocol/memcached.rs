//! memcached's text protocol, as far as get, set and delete need it (memcached, `doc/protocol.txt`).

use std::io::Write as _;

use crate::protocol::{Answer, BODY_BYTES_MAX, Parsed};
use crate::workload::Key;

/// Lines are short; a longer one is not this protocol.
const LINE_BYTES_MAX: usize = 4096;
const END: &[u8] = b"\r\nEND\r\n";

pub(crate) fn append_get(key: &Key, out: &mut Vec<u8>) {
    out.extend_from_slice(b"get ");
    out.extend_from_slice(key);
    out.extend_from_slice(b"\r\n");
}

pub(crate) fn append_delete(key: &Key, out: &mut Vec<u8>) {
    out.extend_from_slice(b"delete ");
    out.extend_from_slice(key);
    out.extend_from_slice(b"\r\n");
}

/// `set` up to the value, which takes `value_bytes` and an end of line.
pub(crate) fn append_set_head(key: &Key, value_bytes: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(b"set ");
    out.extend_from_slice(key);
    write!(out, " 0 0 {value_bytes}\r\n").expect("writing to memory does not fail");
}

/// One whole answer at the front of `input`.
pub(crate) fn parse(input: &[u8]) -> Parsed {
    let Some(end) = input
        .iter()
        .take(LINE_BYTES_MAX)
        .position(|&byte| byte == b'\n')
    else {
        return if input.len() >= LINE_BYTES_MAX {
            Parsed::Malformed("endless line")
        } else {
            Parsed::Incomplete
        };
    };
    let Some(line) = input[..end].strip_suffix(b"\r") else {
        return Parsed::Malformed("line");
    };
    let after_line = end + 1;
    let whole = |used, answer| Parsed::Whole { used, answer };
    let success = |body_bytes| Answer::Success {
        body_bytes,
        closes: false,
    };
    match line {
        b"STORED" | b"DELETED" => whole(after_line, success(0)),
        b"END" | b"NOT_FOUND" => whole(after_line, Answer::Missing { closes: false }),
        _ if line.starts_with(b"VALUE ") => {
            let bytes = line.rsplit(|&byte| byte == b' ').next();
            let bytes = bytes.and_then(|text| str::from_utf8(text).ok()?.parse::<usize>().ok());
            match bytes {
                Some(bytes) if bytes <= BODY_BYTES_MAX => {
                    let used = after_line + bytes + END.len();
                    match input.get(used - END.len()..used) {
                        Some(END) => whole(used, success(bytes)),
                        Some(_) => Parsed::Malformed("end of value"),
                        None => Parsed::Incomplete,
                    }
                }
                _ => Parsed::Malformed("length"),
            }
        }
        _ => match line.split(|&byte| byte == b' ').next() {
            Some(kind @ (b"ERROR" | b"CLIENT_ERROR" | b"SERVER_ERROR" | b"NOT_STORED")) => {
                let kind = String::from_utf8_lossy(kind).into_owned();
                whole(
                    after_line,
                    Answer::Failure {
                        kind,
                        closes: false,
                    },
                )
            }
            _ => Parsed::Malformed("kind of answer"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str, answer: Answer) {
        for cut in 0..text.len() {
            let parsed = parse(&text.as_bytes()[..cut]);
            assert_eq!(parsed, Parsed::Incomplete, "{text:?} cut at {cut}");
        }
        let used = text.len();
        let next = format!("{text}END\r\n");
        assert_eq!(parse(next.as_bytes()), Parsed::Whole { used, answer });
    }

    #[test]
    fn answers_are_taken_only_when_whole() {
        let success = |body_bytes| Answer::Success {
            body_bytes,
            closes: false,
        };
        whole("STORED\r\n", success(0));
        whole("VALUE key 0 5\r\nhello\r\nEND\r\n", success(5));
        whole("END\r\n", Answer::Missing { closes: false });
        let failure = Answer::Failure {
            kind: "SERVER_ERROR".to_owned(),
            closes: false,
        };
        whole("SERVER_ERROR out of memory\r\n", failure);
    }

    #[test]
    fn what_is_not_memcached_is_refused() {
        for wrong in [
            "HTTP/1.1 200 OK\r\n",
            "VALUE k 0 x\r\n",
            "VALUE k 0 1\r\nabcdefghijk",
            "\n",
        ] {
            let parsed = parse(wrong.as_bytes());
            assert!(
                matches!(parsed, Parsed::Malformed(_)),
                "{wrong:?} was taken"
            );
        }
    }
}
