//! Keys stored shorter than they are: one byte that no text begins with, for a prefix that many share, and the rest.
//!
//! What the byte stands for is the caller's to say ([`KeyCode`]); here it is known just enough to find a key by its text,
//! to hash it and to write it out, without laying the entry out anew. A key is never found twice: it has one slot, however
//! it is stored there.

use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;

/// The first byte of a coded key is this or one of the next [`KEY_CODES`]: the bytes that continue a character in UTF-8,
/// with which no text begins.
pub const KEY_CODE_FIRST: u8 = 0x80;
/// How many codes there are.
pub const KEY_CODES: usize = 64;
/// The longest key that may be stored coded, in bytes of its text.
pub const CODED_KEY_BYTES_MAX: usize = 255;

/// What codes stand for. A partition may be given another, as long as the codes in use keep their meaning.
pub trait KeyCode: fmt::Debug + Send + Sync {
    /// The prefix that `code`, from 0 on, stands for; nothing if it stands for none.
    fn prefix(&self, code: u8) -> &str;
}

/// How the keys of one partition are stored.
#[derive(Default)]
pub(crate) struct Keys(Option<Box<InUse>>);

struct InUse {
    code: Arc<dyn KeyCode>,
    /// Entries by the code of their key.
    entries: [u32; KEY_CODES],
}

/// The code of a key and the rest of it, if it is stored coded.
fn parts(stored: &[u8]) -> Option<(u8, &[u8])> {
    match stored {
        [code @ KEY_CODE_FIRST..0xc0, rest @ ..] => Some((code - KEY_CODE_FIRST, rest)),
        _ => None,
    }
}

/// The code of a key, if it is stored coded.
#[inline]
pub(crate) fn code_of(stored: &[u8]) -> Option<u8> {
    parts(stored).map(|(code, _)| code)
}

impl Keys {
    fn prefix(&self, code: u8) -> &str {
        let in_use = self.0.as_ref();
        in_use
            .expect("keys are coded by the code of their partition")
            .code
            .prefix(code)
    }

    /// Whether `stored` is how `key` is stored.
    #[inline]
    pub(crate) fn is(&self, stored: &[u8], key: &[u8]) -> bool {
        stored == key || self.is_coded_as(stored, key)
    }

    fn is_coded_as(&self, stored: &[u8], key: &[u8]) -> bool {
        parts(stored).is_some_and(|(code, rest)| {
            key.strip_prefix(self.prefix(code).as_bytes()) == Some(rest)
        })
    }

    /// Whether the key begins with `prefix`.
    pub(crate) fn starts_with(&self, stored: &[u8], prefix: &[u8]) -> bool {
        let Some((code, rest)) = parts(stored) else {
            return stored.starts_with(prefix);
        };
        let shared = self.prefix(code).as_bytes();
        match prefix.strip_prefix(shared) {
            Some(behind) => rest.starts_with(behind),
            None => shared.starts_with(prefix),
        }
    }

    /// The hash by which the key is found.
    pub(crate) fn hash<S: BuildHasher>(&self, stored: &[u8], hasher: &S) -> u64 {
        let Some((code, rest)) = parts(stored) else {
            return hasher.hash_one(stored);
        };
        let shared = self.prefix(code).as_bytes();
        let mut key = [0; CODED_KEY_BYTES_MAX];
        let len = shared.len() + rest.len();
        key[..shared.len()].copy_from_slice(shared);
        key[shared.len()..len].copy_from_slice(rest);
        hasher.hash_one(&key[..len])
    }

    /// The key's text, written into `buffer` if it is stored coded.
    pub(crate) fn text<'a>(&'a self, stored: &'a [u8], buffer: &'a mut String) -> &'a str {
        let text = |bytes| std::str::from_utf8(bytes).expect("keys are made of text");
        let Some((code, rest)) = parts(stored) else {
            return text(stored);
        };
        buffer.clear();
        buffer.push_str(self.prefix(code));
        buffer.push_str(text(rest));
        buffer
    }

    /// An entry with a key of this code is there now.
    #[inline]
    pub(crate) fn count(&mut self, code: Option<u8>) {
        if let Some(code) = code {
            *self.counter(code) += 1;
        }
    }

    /// An entry with a key of this code is no longer there.
    #[inline]
    pub(crate) fn uncount(&mut self, code: Option<u8>) {
        if let Some(code) = code {
            *self.counter(code) -= 1;
        }
    }

    fn counter(&mut self, code: u8) -> &mut u32 {
        let in_use = self.0.as_mut();
        let in_use = in_use.expect("a code is given before keys are coded by it");
        &mut in_use.entries[usize::from(code)]
    }

    /// How many entries have a key of each code.
    pub(crate) fn counts(&self) -> [u32; KEY_CODES] {
        self.0
            .as_ref()
            .map_or([0; KEY_CODES], |in_use| in_use.entries)
    }

    /// Codes keys so from now on; what they were coded by is handed out.
    pub(crate) fn set(&mut self, code: Option<Arc<dyn KeyCode>>) -> Option<Arc<dyn KeyCode>> {
        match (code, &mut self.0) {
            (Some(code), Some(in_use)) => Some(std::mem::replace(&mut in_use.code, code)),
            (Some(code), none) => {
                let entries = [0; KEY_CODES];
                *none = Some(Box::new(InUse { code, entries }));
                None
            }
            (None, in_use) => in_use.take().map(|in_use| in_use.code),
        }
    }

    /// Heap bytes, without the code itself.
    pub(crate) fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |_| size_of::<InUse>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::RandomState;

    #[derive(Debug)]
    struct Fixed([&'static str; 3]);

    impl KeyCode for Fixed {
        fn prefix(&self, code: u8) -> &str {
            self.0.get(usize::from(code)).copied().unwrap_or_default()
        }
    }

    #[test]
    fn a_coded_key_is_the_key() {
        let mut keys = Keys::default();
        assert_eq!(keys.bytes(), 0);
        assert!(
            keys.set(Some(Arc::new(Fixed(["user:", "user:admin:", "ключ/"]))))
                .is_none()
        );
        let hasher = RandomState::new();
        for (stored, key) in [
            (b"\x8042".as_slice(), "user:42"),
            (b"\x811", "user:admin:1"),
            (b"\x80admin:1", "user:admin:1"),
            (b"\x80", "user:"),
            (b"\x82\xd0\xb9", "ключ/й"),
            (b"plain", "plain"),
            (b"", ""),
        ] {
            let mut buffer = "left from before".to_owned();
            assert_eq!(keys.text(stored, &mut buffer), key);
            assert!(keys.is(stored, key.as_bytes()));
            assert_eq!(keys.hash(stored, &hasher), hasher.hash_one(key.as_bytes()));
            for other in ["", "user", "user:4", "user:421", "x", "plaid"] {
                assert_eq!(
                    keys.is(stored, other.as_bytes()),
                    other == key,
                    "{other:?} {key:?}"
                );
                let starts = key.starts_with(other);
                assert_eq!(
                    keys.starts_with(stored, other.as_bytes()),
                    starts,
                    "{other:?} {key:?}"
                );
            }
            for end in 0..=key.len() {
                assert!(keys.starts_with(stored, &key.as_bytes()[..end]));
            }
            keys.count(code_of(stored));
        }
        assert_eq!(keys.counts()[..4], [3, 1, 1, 0]);
        keys.uncount(code_of(b"\x80"));
        keys.uncount(code_of(b"plain"));
        assert_eq!(keys.counts()[0], 2);
        assert!(keys.bytes() > 64);
        assert!(keys.set(None).is_some() && keys.bytes() == 0);
    }
}
