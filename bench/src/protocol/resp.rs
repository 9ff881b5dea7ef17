//! The Redis protocol, version 2, as far as GET and SET need it (redis.io, "RESP protocol spec").

use std::io::Write as _;

use crate::protocol::{Answer, BODY_BYTES_MAX, Parsed};
use crate::workload::Key;

/// Simple lines and lengths are short; a longer one is not this protocol.
const LINE_BYTES_MAX: usize = 4096;

/// Any command, as an array of bulk strings.
pub(crate) fn append_command(words: &[&[u8]], out: &mut Vec<u8>) {
    append_number(b'*', words.len(), out);
    for word in words {
        append_number(b'$', word.len(), out);
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

/// `SET key` up to the value, which takes `value_bytes` and an end of line.
pub(crate) fn append_set_head(key: &Key, value_bytes: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(b"*3\r\n$3\r\nSET\r\n");
    append_number(b'$', key.len(), out);
    out.extend_from_slice(key);
    out.extend_from_slice(b"\r\n");
    append_number(b'$', value_bytes, out);
}

/// One whole reply at the front of `input`. Arrays are not expected.
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
    let [kind, line @ ..] = input[..end].strip_suffix(b"\r").unwrap_or_default() else {
        return Parsed::Malformed("line");
    };
    let line = str::from_utf8(line).unwrap_or_default();
    let after_line = end + 1;
    let whole = |used, answer| Parsed::Whole { used, answer };
    let success = |body_bytes| Answer::Success {
        body_bytes,
        closes: false,
    };
    let failure = |kind: &str| Answer::Failure {
        kind: kind.to_owned(),
        closes: false,
    };
    match kind {
        b'+' | b':' => whole(after_line, success(0)),
        b'-' => whole(
            after_line,
            failure(line.split(' ').next().unwrap_or_default()),
        ),
        b'$' if line == "-1" => whole(after_line, Answer::Missing { closes: false }),
        b'$' => match line.parse::<usize>() {
            Ok(body_bytes) if body_bytes <= BODY_BYTES_MAX => {
                let used = after_line + body_bytes + 2;
                match input.get(used - 2..used) {
                    Some(b"\r\n") => whole(used, success(body_bytes)),
                    Some(_) => Parsed::Malformed("end of string"),
                    None => Parsed::Incomplete,
                }
            }
            _ => Parsed::Malformed("length"),
        },
        _ => Parsed::Malformed("kind of reply"),
    }
}

fn append_number(kind: u8, number: usize, out: &mut Vec<u8>) {
    out.push(kind);
    write!(out, "{number}\r\n").expect("writing to memory does not fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str, answer: Answer) {
        for cut in 0..text.len() {
            assert_eq!(
                parse(&text.as_bytes()[..cut]),
                Parsed::Incomplete,
                "{text:?} cut at {cut}"
            );
        }
        assert_eq!(
            parse(text.as_bytes()),
            Parsed::Whole {
                used: text.len(),
                answer
            }
        );
    }

    #[test]
    fn replies_are_taken_only_when_whole() {
        whole(
            "+OK\r\n",
            Answer::Success {
                body_bytes: 0,
                closes: false,
            },
        );
        whole(
            "$5\r\nhello\r\n",
            Answer::Success {
                body_bytes: 5,
                closes: false,
            },
        );
        whole(
            "$0\r\n\r\n",
            Answer::Success {
                body_bytes: 0,
                closes: false,
            },
        );
        whole("$-1\r\n", Answer::Missing { closes: false });
        whole(
            "-OOM command not allowed\r\n",
            Answer::Failure {
                kind: "OOM".to_owned(),
                closes: false,
            },
        );
    }

    #[test]
    fn what_is_not_resp_is_refused() {
        for wrong in [
            "\n",
            "HTTP/1.1 200 OK\r\n",
            "$x\r\n",
            "$99999999999\r\n",
            "$1\r\nabc",
            "+OK\n",
        ] {
            assert!(
                matches!(parse(wrong.as_bytes()), Parsed::Malformed(_)),
                "{wrong:?} was taken"
            );
        }
        assert!(matches!(
            parse(&[b'+'; LINE_BYTES_MAX]),
            Parsed::Malformed(_)
        ));
    }

    #[test]
    fn commands_are_arrays_of_bulk_strings() {
        let mut out = Vec::new();
        append_command(&[b"GET", b"k"], &mut out);
        assert_eq!(out, b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n");
    }
}
