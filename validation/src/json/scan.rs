//! Strings, numbers, literals and white space: from a token's first byte to just past its last.

use super::error::{JsonError, JsonErrorKind};

const LOW: u64 = u64::from_le_bytes([0x01; 8]);
const HIGH: u64 = u64::from_le_bytes([0x80; 8]);
const SPACES: [u8; 8] = [b' '; 8];

/// The high bit of bytes that end a run inside a string: `"`, `\` and control characters.
///
/// The lowest bit that is set is exact; a borrow can make bits above it wrong. The test for a zero
/// byte is Mycroft's (1987), the one for a lesser byte follows from it.
#[inline(always)]
fn stops(word: u64) -> u64 {
    let quote = word ^ (LOW * b'"' as u64);
    let backslash = word ^ (LOW * b'\\' as u64);
    let control = word.wrapping_sub(LOW * 0x20) & !word;
    let zero = |x: u64| x.wrapping_sub(LOW) & !x;
    (zero(quote) | zero(backslash) | control) & HIGH
}

/// Past the closing quote of the string whose opening quote is at `open`.
#[inline(always)]
pub(crate) fn string_end(text: &[u8], open: usize) -> Result<usize, JsonError> {
    let mut at = open + 1;
    // High bits of the bytes passed; what has none needs no look at its UTF-8.
    let mut wide = 0;
    loop {
        while let Some(&bytes) = text[at..].first_chunk() {
            let word = u64::from_le_bytes(bytes);
            let stop = stops(word);
            if stop != 0 {
                wide |= word & (stop & stop.wrapping_neg()).wrapping_sub(1);
                at += stop.trailing_zeros() as usize / 8;
                break;
            }
            wide |= word;
            at += 8;
        }
        match text.get(at) {
            Some(b'"') => break,
            Some(b'\\') => {
                at = escape_end(text, at).map_err(|fault| first_fault(text, open, fault))?;
            }
            Some(&found) if found < b' ' => {
                let fault = JsonError::new(JsonErrorKind::ControlCharacter { found }, at);
                return Err(first_fault(text, open, fault));
            }
            // Only within the last seven bytes of the text.
            Some(&byte) => {
                wide |= u64::from(byte);
                at += 1;
            }
            None => {
                let fault = JsonError::unexpected(text, at, "`\"`");
                return Err(first_fault(text, open, fault));
            }
        }
    }
    if wide & HIGH != 0 {
        utf8(text, open, at)?;
    }
    Ok(at + 1)
}

/// UTF-8 is checked string by string and once a string has ended: the grammar allows no other
/// byte outside strings.
fn utf8(text: &[u8], open: usize, end: usize) -> Result<(), JsonError> {
    match std::str::from_utf8(&text[open..end]) {
        Ok(_) => Ok(()),
        Err(fault) => Err(JsonError::new(
            JsonErrorKind::NotUtf8,
            open + fault.valid_up_to(),
        )),
    }
}

/// `fault`, unless the string's UTF-8 is broken before it.
#[cold]
fn first_fault(text: &[u8], open: usize, fault: JsonError) -> JsonError {
    utf8(text, open, fault.offset()).err().unwrap_or(fault)
}

/// Past the escape whose backslash is at `at`; past both halves of a surrogate pair.
fn escape_end(text: &[u8], at: usize) -> Result<usize, JsonError> {
    match text.get(at + 1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 2),
        Some(b'u') => {
            let unit = code_unit(text, at + 2)?;
            if !(0xD800..=0xDFFF).contains(&unit) {
                return Ok(at + 6);
            }
            // RFC 8259, section 8.2: what a reader makes of half a pair is unpredictable.
            let lone = JsonError::new(JsonErrorKind::LoneSurrogate { found: unit }, at);
            if unit >= 0xDC00 || text.get(at + 6..at + 8) != Some(b"\\u") {
                return Err(lone);
            }
            match code_unit(text, at + 8)? {
                0xDC00..=0xDFFF => Ok(at + 12),
                _ => Err(lone),
            }
        }
        _ => Err(JsonError::unexpected(
            text,
            at + 1,
            "an escape (one of `\"\\/bfnrtu`)",
        )),
    }
}

/// The four hexadecimal digits at `at`.
fn code_unit(text: &[u8], at: usize) -> Result<u16, JsonError> {
    let mut unit = 0;
    for at in at..at + 4 {
        let digit = text.get(at).and_then(|&byte| char::from(byte).to_digit(16));
        let Some(digit) = digit else {
            return Err(JsonError::unexpected(text, at, "a hexadecimal digit"));
        };
        unit = unit << 4 | digit as u16;
    }
    Ok(unit)
}

/// Past the number whose minus sign or first digit is at `at`.
#[inline(always)]
pub(super) fn number_end(text: &[u8], at: usize) -> Result<usize, JsonError> {
    let mut at = at + usize::from(text[at] == b'-');
    at = match text.get(at) {
        // A digit after a leading zero is then not part of the number, and refused where it stands.
        Some(b'0') => at + 1,
        _ => digits_end(text, at)?,
    };
    if text.get(at) == Some(&b'.') {
        at = digits_end(text, at + 1)?;
    }
    if let Some(b'e' | b'E') = text.get(at) {
        let sign = matches!(text.get(at + 1), Some(b'+' | b'-'));
        at = digits_end(text, at + 1 + usize::from(sign))?;
    }
    Ok(at)
}

/// Past the digits at `at`, of which there must be one.
#[inline(always)]
fn digits_end(text: &[u8], at: usize) -> Result<usize, JsonError> {
    let mut end = at;
    while text.get(end).is_some_and(u8::is_ascii_digit) {
        end += 1;
    }
    if end == at {
        return Err(JsonError::unexpected(text, at, "a digit"));
    }
    Ok(end)
}

/// Past the `literal` whose first byte is at `at`.
#[inline(always)]
pub(super) fn literal_end(
    text: &[u8],
    at: usize,
    literal: &'static str,
    expected: &'static str,
) -> Result<usize, JsonError> {
    if text[at..].starts_with(literal.as_bytes()) {
        return Ok(at + literal.len());
    }
    let agreed = text[at..].iter().zip(literal.as_bytes());
    let agreed = agreed.take_while(|(found, wanted)| found == wanted).count();
    Err(JsonError::unexpected(text, at + agreed, expected))
}

/// The first byte at or after `at` that is not white space.
#[inline(always)]
pub(crate) fn white_space_end(text: &[u8], at: usize) -> usize {
    let mut at = at;
    while let Some(b' ' | b'\n' | b'\r' | b'\t') = text.get(at) {
        at += 1;
        // Indentation is mostly spaces.
        while text[at..].first_chunk() == Some(&SPACES) {
            at += SPACES.len();
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every byte at every place of a word, before and after every kind of neighbour: the lowest
    /// bit is that of the first byte that ends a run.
    #[test]
    fn the_first_stop_of_a_word_is_exact() {
        for neighbour in [
            0, 0x1F, b' ', b'!', b'"', b'#', b'\\', b']', 0x7F, 0x80, 0xFF,
        ] {
            for place in 0..8 {
                for byte in 0..=u8::MAX {
                    let mut word = [b'a'; 8];
                    word[place + 1..].fill(neighbour);
                    word[place] = byte;
                    let first = word
                        .iter()
                        .position(|&b| b < b' ' || b == b'"' || b == b'\\');
                    let stop = stops(u64::from_le_bytes(word)).trailing_zeros() as usize / 8;
                    assert_eq!(stop, first.unwrap_or(8), "{word:02x?}");
                }
            }
        }
    }
}
