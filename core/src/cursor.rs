//! Where a scan goes on: a position that travels through a client as text.
//!
//! The text is the lower-case hex of: version (1 byte), incarnation (8), partition (4), slot (4), check (4, the low half
//! of XXH3-64 of the bytes before), integers little-endian.

use std::fmt;
use std::str::FromStr;

use twox_hash::XxHash3_64;

const VERSION: u8 = 1;

const INCARNATION: usize = size_of::<u8>();
const PARTITION: usize = INCARNATION + size_of::<u64>();
const SLOT: usize = PARTITION + size_of::<u32>();
const CHECK: usize = SLOT + size_of::<u32>();
const LEN: usize = CHECK + size_of::<u32>();
const TEXT_LEN: usize = 2 * LEN;

/// The next position of a scan.
///
/// Slots mean something only within one life of the process, so a cursor carries its incarnation and the caller refuses
/// one of another. The checksum finds mistakes, not malice: a forged cursor reads from another position, nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The life of the process that gave the cursor out.
    pub incarnation: u64,
    /// The partition to go on in.
    pub partition: u32,
    /// The first slot not yet looked at.
    pub slot: u32,
}

/// Why a text is not a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CursorError {
    /// Too short or too long.
    #[error("a cursor has {expected} characters, and this has {found}")]
    Length {
        /// Bytes of the text.
        found: usize,
        /// Bytes of every cursor.
        expected: usize,
    },
    /// A character that no cursor has.
    #[error("a cursor has only 0 to 9 and a to f, and this has something else at {at}")]
    Alphabet {
        /// Offset of the first such byte.
        at: usize,
    },
    /// Sound hex, but mistyped or cut from something else.
    #[error("the cursor's checksum does not match, so it was not given out as it stands")]
    Checksum,
    /// Given out by a server that writes cursors differently.
    #[error("the cursor has version {found}, and this server reads version {expected}")]
    Version {
        /// Version in the text.
        found: u8,
        /// Version that is written here.
        expected: u8,
    },
}

fn check(head: &[u8]) -> [u8; 4] {
    let [a, b, c, d, ..] = XxHash3_64::oneshot(head).to_le_bytes();
    [a, b, c, d]
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; LEN];
        bytes[0] = VERSION;
        bytes[INCARNATION..PARTITION].copy_from_slice(&self.incarnation.to_le_bytes());
        bytes[PARTITION..SLOT].copy_from_slice(&self.partition.to_le_bytes());
        bytes[SLOT..CHECK].copy_from_slice(&self.slot.to_le_bytes());
        let check = check(&bytes[..CHECK]);
        bytes[CHECK..].copy_from_slice(&check);
        bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let text = text.as_bytes();
        if text.len() != TEXT_LEN {
            return Err(CursorError::Length {
                found: text.len(),
                expected: TEXT_LEN,
            });
        }
        let mut bytes = [0; LEN];
        for (at, &digit) in text.iter().enumerate() {
            let nibble = match digit {
                b'0'..=b'9' => digit - b'0',
                b'a'..=b'f' => digit - b'a' + 10,
                _ => return Err(CursorError::Alphabet { at }),
            };
            bytes[at / 2] = bytes[at / 2] << 4 | nibble;
        }
        if bytes[CHECK..] != check(&bytes[..CHECK]) {
            return Err(CursorError::Checksum);
        }
        if bytes[0] != VERSION {
            return Err(CursorError::Version {
                found: bytes[0],
                expected: VERSION,
            });
        }
        Ok(Self {
            incarnation: u64::from_le_bytes(field(&bytes, INCARNATION)),
            partition: u32::from_le_bytes(field(&bytes, PARTITION)),
            slot: u32::from_le_bytes(field(&bytes, SLOT)),
        })
    }
}

fn field<const N: usize>(bytes: &[u8; LEN], at: usize) -> [u8; N] {
    bytes[at..at + N]
        .try_into()
        .expect("offsets of fields lie within a cursor")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CURSOR: Cursor = Cursor {
        incarnation: 0x0123_4567_89ab_cdef,
        partition: 63,
        slot: 70_000,
    };

    #[test]
    fn a_cursor_comes_back_as_it_was() {
        for cursor in [
            CURSOR,
            Cursor {
                incarnation: 0,
                partition: 0,
                slot: 0,
            },
            Cursor {
                incarnation: u64::MAX,
                partition: u32::MAX,
                slot: u32::MAX,
            },
        ] {
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
    }

    /// Clients keep cursors over an upgrade of the server.
    #[test]
    fn the_text_never_changes() {
        assert_eq!(
            CURSOR.to_string(),
            "01efcdab89674523013f00000070110100c6ceaa54"
        );
    }

    #[test]
    fn one_wrong_or_swapped_character_is_refused() {
        let text = CURSOR.to_string();
        for at in 0..text.len() {
            for digit in "0123456789abcdef".chars() {
                let mut mistyped = text.clone();
                mistyped.replace_range(at..=at, &digit.to_string());
                if mistyped != text {
                    assert_eq!(
                        mistyped.parse::<Cursor>(),
                        Err(CursorError::Checksum),
                        "{mistyped}"
                    );
                }
            }
            let mut swapped = text.clone().into_bytes();
            swapped.swap(at, (at + 1) % text.len());
            let swapped = String::from_utf8(swapped).expect("hex is ASCII");
            assert_eq!(
                swapped.parse::<Cursor>().is_ok(),
                swapped == text,
                "{swapped}"
            );
        }
    }

    #[test]
    fn what_is_no_cursor_says_why() {
        let text = CURSOR.to_string();
        let check = |text: &str, error| assert_eq!(text.parse::<Cursor>(), Err(error), "{text}");
        check(
            "",
            CursorError::Length {
                found: 0,
                expected: TEXT_LEN,
            },
        );
        check(
            &text[1..],
            CursorError::Length {
                found: TEXT_LEN - 1,
                expected: TEXT_LEN,
            },
        );
        check(
            &format!("{text}0"),
            CursorError::Length {
                found: TEXT_LEN + 1,
                expected: TEXT_LEN,
            },
        );
        check(&text.to_uppercase(), CursorError::Alphabet { at: 2 });
        check(
            &text.replacen("ef", "\u{e9}", 1),
            CursorError::Alphabet { at: 2 },
        );
    }

    #[test]
    fn another_version_is_told_from_a_mistake() {
        let mut bytes = [0; LEN];
        bytes[0] = 2;
        let sum = super::check(&bytes[..CHECK]);
        bytes[CHECK..].copy_from_slice(&sum);
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            text.parse::<Cursor>(),
            Err(CursorError::Version {
                found: 2,
                expected: VERSION
            })
        );
    }
}
