//! `Content-Digest` and `Want-Content-Digest` (RFC 9530): sha-256 and sha-512, checked and sent.

use super::fault::Fault;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest, Sha256, Sha512};

pub(crate) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
const WANT_CONTENT_DIGEST: HeaderName = HeaderName::from_static("want-content-digest");

/// The algorithms of RFC 9530 that are still good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Sha256,
    Sha512,
}

impl Algorithm {
    fn named(name: &str) -> Option<Self> {
        match name {
            "sha-256" => Some(Self::Sha256),
            "sha-512" => Some(Self::Sha512),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha-256",
            Self::Sha512 => "sha-512",
        }
    }

    fn of(self, content: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha256 => Sha256::digest(content).to_vec(),
            Self::Sha512 => Sha512::digest(content).to_vec(),
        }
    }
}

/// Checks every digest of a known algorithm that the request gives; others are none of our business.
pub(crate) fn check(headers: &HeaderMap, content: &[u8]) -> Result<(), Fault> {
    for value in headers.get_all(CONTENT_DIGEST) {
        let malformed = Fault::Header {
            name: "Content-Digest",
            reason: "is not a dictionary of byte sequences (RFC 9530)",
        };
        let Ok(text) = value.to_str() else {
            return Err(malformed);
        };
        for member in text
            .split(',')
            .map(str::trim)
            .filter(|member| !member.is_empty())
        {
            let Some((name, rest)) = member.split_once('=') else {
                return Err(malformed);
            };
            let Some(algorithm) = Algorithm::named(name) else {
                continue;
            };
            // Parameters after the value have no meaning here.
            let encoded = rest.split(';').next().unwrap_or_default().trim();
            let encoded = encoded
                .strip_prefix(':')
                .and_then(|rest| rest.strip_suffix(':'));
            let Some(Ok(claimed)) = encoded.map(|encoded| STANDARD.decode(encoded)) else {
                return Err(malformed);
            };
            if claimed != algorithm.of(content) {
                return Err(Fault::DigestMismatch {
                    algorithm: algorithm.name(),
                });
            }
        }
    }
    Ok(())
}

/// The algorithm that the client likes best, if it likes one of ours.
pub(crate) fn wanted(headers: &HeaderMap) -> Option<Algorithm> {
    let mut best: Option<(u8, Algorithm)> = None;
    for value in headers.get_all(WANT_CONTENT_DIGEST) {
        for member in value.to_str().ok()?.split(',').map(str::trim) {
            let (name, weight) = member.split_once('=').unwrap_or((member, "1"));
            let weight = weight
                .split(';')
                .next()
                .unwrap_or_default()
                .trim()
                .parse::<u8>();
            if let (Some(algorithm), Ok(weight @ 1..=10)) = (Algorithm::named(name.trim()), weight)
                && best.is_none_or(|(known, _)| weight > known)
            {
                best = Some((weight, algorithm));
            }
        }
    }
    best.map(|(_, algorithm)| algorithm)
}

/// The field that says what the content's digest is.
pub(crate) fn field(algorithm: Algorithm, content: &[u8]) -> HeaderValue {
    let text = format!(
        "{}=:{}:",
        algorithm.name(),
        STANDARD.encode(algorithm.of(content))
    );
    HeaderValue::try_from(text).expect("base64 is allowed in a header")
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY_256: &str = "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:";

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_str(value).expect("a header value"));
        headers
    }

    #[test]
    fn digests_are_checked_each() {
        let check = |value: &str, content: &[u8]| check(&headers(CONTENT_DIGEST, value), content);
        assert_eq!(field(Algorithm::Sha256, b""), EMPTY_256);
        assert!(check(EMPTY_256, b"").is_ok());
        assert!(matches!(
            check(EMPTY_256, b"x"),
            Err(Fault::DigestMismatch {
                algorithm: "sha-256"
            })
        ));
        let both = format!(
            "md5=:AAAA:, {EMPTY_256}, {}",
            field(Algorithm::Sha512, b"").to_str().expect("ASCII")
        );
        assert!(check(&both, b"").is_ok());
        let wrong = format!(
            "{EMPTY_256}, {}",
            field(Algorithm::Sha512, b"x").to_str().expect("ASCII")
        );
        assert!(matches!(
            check(&wrong, b""),
            Err(Fault::DigestMismatch {
                algorithm: "sha-512"
            })
        ));
        for bad in ["sha-256", "sha-256=abc", "sha-256=:!:", "sha-256=::x"] {
            assert!(
                matches!(check(bad, b""), Err(Fault::Header { .. })),
                "{bad}"
            );
        }
        assert!(check("crc32c=:xx:", b"").is_ok());
    }

    #[test]
    fn the_best_liked_algorithm_is_sent() {
        let wanted = |value: &str| wanted(&headers(WANT_CONTENT_DIGEST, value));
        assert_eq!(wanted("sha-256=10, sha-512=3"), Some(Algorithm::Sha256));
        assert_eq!(wanted("sha-256=1, sha-512=3"), Some(Algorithm::Sha512));
        assert_eq!(wanted("sha-256=0, sha-512=0"), None);
        assert_eq!(wanted("md5=10"), None);
        assert_eq!(wanted("sha-256"), Some(Algorithm::Sha256));
    }
}
