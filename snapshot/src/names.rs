//! File names, spelt and parsed here and nowhere else.

const ID_DIGITS: usize = 20;
const PART_DIGITS: usize = 4;
const MANIFEST: &str = ".manifest";
const TEMPORARY: &str = ".manifest.tmp";
const PART: &str = ".part";

/// What a file name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    /// The manifest of a snapshot: its presence makes the snapshot visible.
    Manifest { id: u64 },
    /// A manifest that was being written.
    Temporary { id: u64 },
    /// One part of a snapshot.
    Part { id: u64, number: u32 },
}

impl Name {
    /// The snapshot that the file belongs to.
    pub(crate) fn id(self) -> u64 {
        match self {
            Self::Manifest { id } | Self::Temporary { id } | Self::Part { id, .. } => id,
        }
    }
}

pub(crate) fn manifest(id: u64) -> String {
    format!("{id:020}{MANIFEST}")
}

pub(crate) fn temporary(id: u64) -> String {
    format!("{id:020}{TEMPORARY}")
}

pub(crate) fn part(id: u64, number: u32) -> String {
    format!("{id:020}-{number:04}{PART}")
}

/// `None` for every name that this crate would not have spelt itself: such files are not ours.
pub(crate) fn parse(name: &str) -> Option<Name> {
    let (id, rest) = name.split_at_checked(ID_DIGITS)?;
    let id = digits(id)?;
    if rest == MANIFEST {
        return Some(Name::Manifest { id });
    }
    if rest == TEMPORARY {
        return Some(Name::Temporary { id });
    }
    let number = rest.strip_prefix('-')?.strip_suffix(PART)?;
    if number.len() != PART_DIGITS {
        return None;
    }
    let number = u32::try_from(digits(number)?).ok()?;
    Some(Name::Part { id, number })
}

/// `u64::from_str` alone would let a sign pass.
fn digits(text: &str) -> Option<u64> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_parses_back() {
        for id in [0, 1, 42, u64::MAX] {
            assert_eq!(parse(&manifest(id)), Some(Name::Manifest { id }));
            assert_eq!(parse(&temporary(id)), Some(Name::Temporary { id }));
            for number in [0, 7, 4095] {
                assert_eq!(parse(&part(id, number)), Some(Name::Part { id, number }));
            }
        }
    }

    #[test]
    fn names_sort_as_their_ids_do() {
        assert!(manifest(9) < manifest(10));
        assert!(part(1, 9) < part(1, 10));
    }

    #[test]
    fn other_names_are_not_ours() {
        for name in [
            "",
            "LOCK",
            "42.manifest",
            "00000000000000000042.manifest.bak",
            "00000000000000000042.manifest.tmp2",
            "00000000000000000042-007.part",
            "00000000000000000042-00007.part",
            "00000000000000000042-+007.part",
            "+0000000000000000042.manifest",
            "99999999999999999999.manifest",
            "0000000000000000004é.manifest",
            "é0000000000000000004.manifest",
            "00000000000000000042-0007.part.gz",
        ] {
            assert_eq!(parse(name), None, "{name}");
        }
    }
}
