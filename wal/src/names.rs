//! File names, both ways; spelt nowhere else.

/// Room reserved for the next segment.
pub(crate) const NEXT: &str = "wal-next.tmp";
/// A sealed segment being rewritten.
pub(crate) const REWRITE: &str = "wal-rewrite.tmp";
/// Locked by the process that uses the directory.
pub(crate) const LOCK: &str = "wal.lock";

const PREFIX: &str = "wal-";
const SUFFIX: &str = ".log";
const DIGITS: usize = 20;

/// The file of segment `number`.
pub(crate) fn segment(number: u64) -> String {
    format!("{PREFIX}{number:0DIGITS$}{SUFFIX}")
}

/// The number of the segment that `name` is the file of, if it is one.
pub(crate) fn parse_segment(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
    if digits.len() != DIGITS || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// Where a segment goes that must not be read again; `taken` are the names in use.
pub(crate) fn damaged(number: u64, taken: &[String]) -> String {
    free(&format!("{}.damaged", segment(number)), taken)
}

/// Where the bytes go that are cut off segment `number` from `offset` on; `taken` are the names in use.
pub(crate) fn cut(number: u64, offset: u64, taken: &[String]) -> String {
    free(&format!("{}.cut-{offset}", segment(number)), taken)
}

/// Evidence is never overwritten: a second file of the same name gets a number.
fn free(name: &str, taken: &[String]) -> String {
    if !taken.iter().any(|other| other == name) {
        return name.to_owned();
    }
    (2u32..)
        .map(|n| format!("{name}-{n}"))
        .find(|candidate| !taken.contains(candidate))
        .expect("a directory has fewer than four thousand million files")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_comes_back_as_its_number() {
        for number in [0, 1, 42, u64::MAX] {
            assert_eq!(parse_segment(&segment(number)), Some(number));
        }
        assert_eq!(segment(7), "wal-00000000000000000007.log");
    }

    #[test]
    fn what_is_no_segment_is_left_alone() {
        for name in [
            "",
            NEXT,
            REWRITE,
            LOCK,
            "wal-7.log",
            "wal-0000000000000000007.log",
            "wal-+0000000000000000007.log",
            "wal-99999999999999999999.log",
            "wal-00000000000000000007.log.damaged",
            "wal-00000000000000000007.log.cut-4096",
        ] {
            assert_eq!(parse_segment(name), None, "{name}");
        }
    }

    #[test]
    fn a_second_file_set_aside_does_not_replace_the_first() {
        let first = damaged(7, &[]);
        let second = damaged(7, std::slice::from_ref(&first));
        assert_ne!(first, second);
        assert_eq!(cut(7, 4096, &[]), "wal-00000000000000000007.log.cut-4096");
        assert_eq!(parse_segment(&second), None);
    }
}
