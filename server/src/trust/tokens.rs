//! Tokens and client certificates that are accepted, as the file of `--auth` has them: hashes, roles, prefixes.
//!
//! A token is never kept, only its SHA-256: tokens are 256 random bits, so a slow hash would add nothing. All hashes
//! are compared, each in constant time, so that how long an answer takes tells nothing about which came close.

use super::file::FileError;
use super::time;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Most tokens and certificates of one file.
const ENTRIES_MAX: usize = 10_000;
const NAME_BYTES_MAX: usize = 128;
const PREFIXES_MAX: usize = 1000;
const TEXT_BYTES_MAX: usize = 1024;
/// What every token begins with, so that one that leaked into a log or a repository is found by a search.
const PREFIX: &str = "ikv_";
/// Longest token that is looked at; ours have 47 bytes.
const TOKEN_BYTES_MAX: usize = 512;

/// What somebody may do; each includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Read values, list keys.
    Read,
    /// Change values.
    Write,
    /// Administration.
    Admin,
}

impl Role {
    /// All of them, least first.
    pub const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Admin];

    /// Its name in the file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }

    /// The role of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

/// The keys that somebody may touch: those that begin with one of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope(Arc<[String]>);

impl Scope {
    /// Whether `key` is among them.
    #[must_use]
    pub fn covers(&self, key: &str) -> bool {
        self.0.iter().any(|prefix| key.starts_with(prefix.as_str()))
    }
}

/// Whose a request is.
#[derive(Debug, PartialEq, Eq)]
pub struct Identity {
    /// The name of the token or certificate.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// With which keys; `None`: all.
    pub scope: Option<Scope>,
}

/// Why nobody is known by what was presented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// Nothing was presented.
    Missing,
    /// It is none that is known.
    Unknown,
    /// It was good until it expired; its name, for the audit log alone.
    Expired(String),
}

/// A hash and whom it stands for.
#[derive(Debug, Clone)]
struct Known {
    hash: [u8; 32],
    /// Seconds since the Unix epoch.
    expires: Option<i64>,
    identity: Arc<Identity>,
}

/// The contents of an authentication file.
#[derive(Debug, Default)]
pub struct Tokens {
    tokens: Vec<Known>,
    certificates: Vec<Known>,
}

/// A new token: `ikv_` and 256 random bits.
///
/// # Errors
/// The system gives no random bytes.
pub fn generate() -> std::io::Result<String> {
    let mut bytes = [0; 32];
    let mut filled = 0;
    while filled < bytes.len() {
        let flags = rustix::rand::GetRandomFlags::empty();
        filled += rustix::rand::getrandom(&mut bytes[filled..], flags)?;
    }
    Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
}

/// SHA-256 in lower-case hex, as the file holds it.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Tokens {
    /// Reads the text of an authentication file.
    ///
    /// # Errors
    /// The first mistake, by line and key.
    pub fn parse(text: &str) -> Result<Self, FileError> {
        let reader = Reader { text };
        let table = DeTable::parse(text).map_err(|error| {
            // The parser's words may quote the line; a hash is no secret, but a token pasted by mistake would be.
            FileError::new(
                text,
                error.span().unwrap_or(0..0),
                "",
                "what is not TOML",
                "[[token]] tables in TOML",
            )
        })?;
        let mut tokens = Self::default();
        let mut names = HashSet::new();
        let mut hashes = HashSet::new();
        for (key, value) in table.get_ref() {
            let kind = key.get_ref().as_ref();
            let known = match kind {
                "token" => &mut tokens.tokens,
                "certificate" => &mut tokens.certificates,
                _ => {
                    let allowed = "[[token]] or [[certificate]] tables";
                    return Err(reader.error(key.span(), kind, "an unknown key", allowed));
                }
            };
            let Some(tables) = value.get_ref().as_array() else {
                let allowed = format!("[[{kind}]] tables, in two brackets");
                return Err(reader.error(value.span(), kind, "something else", allowed));
            };
            if tables.len() > ENTRIES_MAX {
                let found = format!("{} tables", tables.len());
                return Err(reader.error(
                    value.span(),
                    kind,
                    found,
                    format!("at most {ENTRIES_MAX}"),
                ));
            }
            for table in tables {
                let Some(entries) = table.get_ref().as_table() else {
                    return Err(reader.error(table.span(), kind, "something else", "a table"));
                };
                let entry = reader.entry(kind, table.span(), entries)?;
                if !names.insert(entry.identity.name.clone()) {
                    let found = "a name that is there already";
                    return Err(reader.error(table.span(), "name", found, "names that differ"));
                }
                if !hashes.insert(entry.hash) {
                    let found = "a hash that is there already";
                    return Err(reader.error(table.span(), "sha256", found, "hashes that differ"));
                }
                known.push(entry);
            }
        }
        Ok(tokens)
    }

    /// How many tokens and certificates are known.
    #[must_use]
    pub fn count(&self) -> usize {
        self.tokens.len() + self.certificates.len()
    }

    /// Whether `identity` is one that a token or certificate stands for now.
    #[must_use]
    pub fn has(&self, identity: &Identity, now_ms: u64) -> bool {
        let mut all = self.tokens.iter().chain(&self.certificates);
        all.any(|known| *known.identity == *identity && known.is_valid(now_ms))
    }

    /// Whose token this is.
    ///
    /// # Errors
    /// Why it is nobody's.
    pub fn of_token(&self, token: &[u8], now_ms: u64) -> Result<Arc<Identity>, Denied> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Denied::Unknown);
        }
        find(&self.tokens, &Sha256::digest(token).into(), now_ms)
    }

    /// Whose certificate this is, which has been verified; in DER.
    ///
    /// # Errors
    /// Why it is nobody's.
    pub fn of_certificate(&self, hash: &[u8; 32], now_ms: u64) -> Result<Arc<Identity>, Denied> {
        find(&self.certificates, hash, now_ms)
    }
}

fn find(known: &[Known], hash: &[u8; 32], now_ms: u64) -> Result<Arc<Identity>, Denied> {
    let mut found = u32::MAX;
    for (index, known) in (0..).zip(known) {
        let same: Choice = known.hash.ct_eq(hash);
        found.conditional_assign(&index, same);
    }
    let Some(known) = known.get(found as usize) else {
        return Err(Denied::Unknown);
    };
    if known.is_valid(now_ms) {
        Ok(Arc::clone(&known.identity))
    } else {
        Err(Denied::Expired(known.identity.name.clone()))
    }
}

impl Known {
    fn is_valid(&self, now_ms: u64) -> bool {
        let now = i64::try_from(now_ms / 1000).unwrap_or(i64::MAX);
        self.expires.is_none_or(|expires| expires > now)
    }
}

struct Reader<'a> {
    text: &'a str,
}

impl Reader<'_> {
    fn entry(
        &self,
        kind: &str,
        place: Range<usize>,
        entries: &DeTable<'_>,
    ) -> Result<Known, FileError> {
        let (mut name, mut hash, mut role) = (None, None, None);
        let (mut scope, mut expires) = (None, None);
        for (key, value) in entries {
            match key.get_ref().as_ref() {
                "name" => name = Some(self.name(value)?),
                "sha256" => hash = Some(self.hash(value)?),
                "role" => {
                    let found = value.get_ref().as_str().and_then(Role::named);
                    role = Some(found.ok_or_else(|| {
                        self.error(value.span(), "role", "another role", "read, write or admin")
                    })?);
                }
                "prefixes" => scope = Some(self.prefixes(value)?),
                "expires" => expires = Some(self.instant(value)?),
                other => {
                    let allowed = "name, sha256, role, prefixes or expires";
                    return Err(self.error(key.span(), other, "an unknown key", allowed));
                }
            }
        }
        let missing = |key: &str, allowed: &str| {
            self.error(place.clone(), key, format!("a {kind} without one"), allowed)
        };
        Ok(Known {
            hash: hash.ok_or_else(|| missing("sha256", "64 hexadecimal digits"))?,
            expires,
            identity: Arc::new(Identity {
                name: name.ok_or_else(|| missing("name", "a name of its own"))?,
                role: role.ok_or_else(|| missing("role", "read, write or admin"))?,
                scope,
            }),
        })
    }

    fn name(&self, value: &Spanned<DeValue<'_>>) -> Result<String, FileError> {
        let fits = |name: &&str| {
            (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.contains(char::is_control)
        };
        let name = value.get_ref().as_str().filter(fits);
        name.map(str::to_owned).ok_or_else(|| {
            let allowed =
                format!("a string of 1 to {NAME_BYTES_MAX} bytes without control characters");
            self.error(value.span(), "name", "something else", allowed)
        })
    }

    fn hash(&self, value: &Spanned<DeValue<'_>>) -> Result<[u8; 32], FileError> {
        let wrong = |found: &str| {
            let allowed = "64 hexadecimal digits, the SHA-256 that `inflightkv token new` prints with the token";
            self.error(value.span(), "sha256", found, allowed)
        };
        let Some(text) = value.get_ref().as_str() else {
            return Err(wrong("something else"));
        };
        if text.starts_with(PREFIX) {
            return Err(wrong("what looks like a token itself"));
        }
        let mut hash = [0; 32];
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(wrong("something else"));
        }
        for (index, byte) in hash.iter_mut().enumerate() {
            let digits = &text[index * 2..index * 2 + 2];
            *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong("something else"))?;
        }
        Ok(hash)
    }

    fn prefixes(&self, value: &Spanned<DeValue<'_>>) -> Result<Scope, FileError> {
        let allowed = "a list of 1 to 1000 prefixes of at most 1024 bytes; without the key all keys are meant";
        let wrong = |found: &str| self.error(value.span(), "prefixes", found, allowed);
        let items = value.get_ref().as_array();
        let items = items.ok_or_else(|| wrong("something else"))?;
        if items.is_empty() || items.len() > PREFIXES_MAX {
            return Err(wrong(&format!("a list of {}", items.len())));
        }
        let prefixes: Option<Vec<String>> = items
            .iter()
            .map(|item| item.get_ref().as_str().map(str::to_owned))
            .collect();
        match prefixes {
            Some(all) if all.iter().all(|one| one.len() <= TEXT_BYTES_MAX) => Ok(Scope(all.into())),
            _ => Err(wrong("something else")),
        }
    }

    fn instant(&self, value: &Spanned<DeValue<'_>>) -> Result<i64, FileError> {
        let wrong = || {
            let allowed = "an instant with its offset from UTC, such as 2027-01-01T00:00:00Z";
            self.error(value.span(), "expires", "something else", allowed)
        };
        let Some(found) = value.get_ref().as_datetime() else {
            return Err(wrong());
        };
        let (Some(date), Some(at), Some(offset)) = (found.date, found.time, found.offset) else {
            return Err(wrong());
        };
        let minutes = match offset {
            toml::value::Offset::Z => 0,
            toml::value::Offset::Custom { minutes } => i64::from(minutes),
        };
        let second = i64::from(at.hour) * 3600
            + i64::from(at.minute) * 60
            + i64::from(at.second.unwrap_or(0));
        let (year, month, day) = (date.year.into(), date.month.into(), date.day.into());
        Ok(time::seconds(year, month, day, second) - minutes * 60)
    }

    fn error(
        &self,
        span: Range<usize>,
        key: &str,
        found: impl Into<String>,
        allowed: impl Into<String>,
    ) -> FileError {
        FileError::new(self.text, span, key, found, allowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_795_564_800_000;

    fn file(more: &str) -> String {
        format!(
            "[[token]]\nname = \"ci\"\nsha256 = \"{}\"\nrole = \"write\"\n{more}",
            digest(b"ikv_secret")
        )
    }

    #[test]
    fn a_token_is_known_by_its_hash() {
        let tokens = Tokens::parse(&file("prefixes = [\"user:\", \"job:\"]")).expect("a file");
        let identity = tokens.of_token(b"ikv_secret", NOW).expect("known");
        assert_eq!((identity.name.as_str(), identity.role), ("ci", Role::Write));
        let scope = identity.scope.as_ref().expect("prefixes");
        assert!(scope.covers("user:1") && !scope.covers("use") && !scope.covers("x"));
        for wrong in [&b"ikv_secreT"[..], b"", b"ikv_", &[b'x'; 10_000]] {
            assert_eq!(tokens.of_token(wrong, NOW), Err(Denied::Unknown));
        }
        // A token is no certificate.
        let hash = Sha256::digest(b"ikv_secret").into();
        assert_eq!(tokens.of_certificate(&hash, NOW), Err(Denied::Unknown));
    }

    #[test]
    fn a_token_ends_at_its_instant() {
        let at = |expires: &str| {
            let tokens = Tokens::parse(&file(&format!("expires = {expires}"))).expect(expires);
            tokens.of_token(b"ikv_secret", NOW).is_ok()
        };
        assert!(at("2026-11-25T00:00:01Z"));
        assert!(!at("2026-11-25T00:00:00Z"));
        assert!(at("2026-11-25T01:00:00+00:59"));
        assert!(!at("2026-11-25T01:00:00+01:00"));
    }

    #[test]
    fn a_mistake_is_named_and_shows_no_secret() {
        let double = format!("{}\n{}", file(""), file(""));
        let other = file("").replace("\"ci\"", "\"cd\"");
        let cases = [
            ("[[tokens]]\nname = \"a\"".to_owned(), 1, "tokens"),
            (
                "[[token]]\nname = \"a\"\nrole = \"read\"".to_owned(),
                1,
                "sha256",
            ),
            (file("rol = 1"), 5, "rol"),
            (file("prefixes = []"), 5, "prefixes"),
            (file("prefixes = [1]"), 5, "prefixes"),
            (file("expires = 2027-01-01"), 5, "expires"),
            (file("expires = \"2027-01-01T00:00:00Z\""), 5, "expires"),
            (file("").replace("write", "root"), 4, "role"),
            (
                "[[token]]\nname = \"a\"\nsha256 = \"ikv_secret\"".to_owned(),
                3,
                "sha256",
            ),
            (double, 6, "name"),
            (format!("{}\n{other}", file("")), 6, "sha256"),
            ("[[token]]\nname = ikv_secret".to_owned(), 2, ""),
        ];
        for (text, line, key) in cases {
            let error = Tokens::parse(&text).expect_err(&text);
            assert_eq!(
                (error.line, error.key.as_str()),
                (line, key),
                "{error}\n{text}"
            );
            assert!(!error.to_string().contains("ikv_secret"), "{error}");
        }
    }

    #[test]
    fn new_tokens_differ_and_fit_a_header() {
        let (one, other) = (generate().expect("random"), generate().expect("random"));
        assert_ne!(one, other);
        assert_eq!(one.len(), 47);
        assert!(
            one.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
        );
    }

    #[test]
    fn roles_include_the_ones_before() {
        assert!(Role::Admin > Role::Write && Role::Write > Role::Read);
    }
}
