//! Media types of request bodies: which are JSON, which are patches, which are kept as they are.

use super::fault::Fault;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use inflightkv_core::MEDIA_TYPE_BYTES_MAX;

/// What a body is stored as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Json,
    Opaque(String),
}

/// How a patch is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PatchType {
    /// RFC 7396
    Merge,
    /// RFC 6902
    Json,
}

/// How a batch is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BatchType {
    Json,
    Lines,
}

pub(crate) const PATCH_TYPES: &str =
    "application/merge-patch+json, application/json-patch+json, application/json";
const BATCH_TYPES: &str = "application/json, application/x-ndjson";

/// What a PUT body is.
pub(crate) fn value(headers: &HeaderMap) -> Result<Kind, Fault> {
    let Some(text) = content_type(headers) else {
        return Ok(Kind::Json);
    };
    let Ok(text) = text else {
        return Err(unreadable(
            headers,
            "a media type of at most 255 characters",
        ));
    };
    // Spelt like this by nearly everybody.
    if text == "application/json" {
        return Ok(Kind::Json);
    }
    let essence = essence(text);
    if is_json(&essence) {
        return Ok(Kind::Json);
    }
    if !is_media_type(&essence) || text.len() > MEDIA_TYPE_BYTES_MAX {
        return Err(unreadable(
            headers,
            "a media type of at most 255 characters",
        ));
    }
    Ok(Kind::Opaque(text.to_owned()))
}

/// What a PATCH body is.
pub(crate) fn patch(headers: &HeaderMap) -> Result<PatchType, Fault> {
    let Some(text) = content_type(headers) else {
        return Ok(PatchType::Merge);
    };
    match essence(text.unwrap_or_default()).as_str() {
        "application/json" | "application/merge-patch+json" | FORM => Ok(PatchType::Merge),
        "application/json-patch+json" => Ok(PatchType::Json),
        _ => Err(Fault::MediaType {
            found: shown(headers),
            accepted: PATCH_TYPES,
            patch: true,
        }),
    }
}

/// What a batch body is.
pub(crate) fn batch(headers: &HeaderMap) -> Result<BatchType, Fault> {
    let Some(text) = content_type(headers) else {
        return Ok(BatchType::Json);
    };
    match essence(text.unwrap_or_default()).as_str() {
        "application/x-ndjson" | "application/ndjson" => Ok(BatchType::Lines),
        essence if is_json(essence) => Ok(BatchType::Json),
        _ => Err(Fault::MediaType {
            found: shown(headers),
            accepted: BATCH_TYPES,
            patch: false,
        }),
    }
}

/// Content codings are not undone, and coded content must not be taken for the content.
pub(crate) fn refuse_coded(headers: &HeaderMap) -> Result<(), Fault> {
    match headers.get(CONTENT_ENCODING) {
        Some(coding) if !coding.as_bytes().eq_ignore_ascii_case(b"identity") => {
            Err(Fault::ContentCoding {
                found: String::from_utf8_lossy(coding.as_bytes()).into_owned(),
            })
        }
        _ => Ok(()),
    }
}

/// Whether `Accept` asks for lines, and not more for one document.
pub(crate) fn accepts_lines(headers: &HeaderMap) -> bool {
    let (mut lines, mut document) = (0.0_f32, 0.0_f32);
    let ranges = headers
        .get_all(http::header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    for range in ranges {
        let wanted = match essence(range).as_str() {
            "application/x-ndjson" | "application/ndjson" => &mut lines,
            "application/json" => &mut document,
            _ => continue,
        };
        *wanted = wanted.max(weight(range));
    }
    lines > 0.0 && lines >= document
}

/// The `q` of a media range; 1 when there is none that can be read.
fn weight(range: &str) -> f32 {
    let parameters = range.split(';').skip(1);
    parameters
        .filter_map(|parameter| parameter.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("q"))
        .and_then(|(_, weight)| weight.trim().parse().ok())
        .unwrap_or(1.0)
}

/// Whether the client takes a body as a frame of Zstandard (RFC 8878): `Accept-Encoding` names it, with a weight above 0.
pub(crate) fn accepts_zstd(headers: &HeaderMap) -> bool {
    headers
        .get_all(http::header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|coding| {
            let mut parts = coding.split(';');
            let name = parts.next().unwrap_or_default().trim();
            let refused = parts.any(|parameter| {
                parameter.split_once('=').is_some_and(|(name, weight)| {
                    name.trim().eq_ignore_ascii_case("q")
                        && weight.trim().parse::<f32>().is_ok_and(|q| q <= 0.0)
                })
            });
            name.eq_ignore_ascii_case("zstd") && !refused
        })
}

/// What `curl -d` sends unless told otherwise.
const FORM: &str = "application/x-www-form-urlencoded";

fn is_json(essence: &str) -> bool {
    essence == "application/json"
        || essence == FORM
        || (essence.ends_with("+json") && is_media_type(essence))
}

/// The field, unless it is absent or empty. An error: not visible ASCII.
fn content_type(headers: &HeaderMap) -> Option<Result<&str, ()>> {
    let value = headers.get(CONTENT_TYPE)?;
    match value.to_str() {
        Ok(text) if text.trim().is_empty() => None,
        Ok(text) => Some(Ok(text.trim())),
        Err(_) => Some(Err(())),
    }
}

/// `type/subtype` in lower case, without parameters.
fn essence(text: &str) -> String {
    text.split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase()
}

fn is_media_type(essence: &str) -> bool {
    let token = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
    };
    essence
        .split_once('/')
        .is_some_and(|(kind, subtype)| token(kind) && token(subtype))
}

fn unreadable(headers: &HeaderMap, accepted: &'static str) -> Fault {
    Fault::MediaType {
        found: shown(headers),
        accepted,
        patch: false,
    }
}

fn shown(headers: &HeaderMap) -> String {
    let value = headers
        .get(CONTENT_TYPE)
        .map(|value| String::from_utf8_lossy(value.as_bytes()));
    value.unwrap_or_default().chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn with(text: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_str(text).expect("a header value"),
        );
        headers
    }

    #[test]
    fn what_is_json_and_what_is_not() {
        assert!(matches!(value(&HeaderMap::new()), Ok(Kind::Json)));
        for text in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/vnd.api+json",
            "application/x-www-form-urlencoded",
            "",
        ] {
            assert!(matches!(value(&with(text)), Ok(Kind::Json)), "{text}");
        }
        for text in [
            "text/plain",
            "text/plain; charset=utf-8",
            "application/octet-stream",
            "image/png",
            "text/json",
        ] {
            assert!(
                matches!(value(&with(text)), Ok(Kind::Opaque(kept)) if kept == text),
                "{text}"
            );
        }
        for text in [
            "json",
            "a/b/c",
            "/",
            "a b/c",
            "+json",
            &format!("text/{}", "x".repeat(255)),
        ] {
            assert!(
                matches!(value(&with(text)), Err(Fault::MediaType { .. })),
                "{text}"
            );
        }
    }

    #[test]
    fn patches_and_batches() {
        for (text, expected) in [
            ("application/merge-patch+json", Some(PatchType::Merge)),
            ("application/json", Some(PatchType::Merge)),
            ("application/json-patch+json; x=y", Some(PatchType::Json)),
            ("application/vnd.api+json", None),
            ("text/plain", None),
        ] {
            assert_eq!(patch(&with(text)).ok(), expected, "{text}");
        }
        assert!(matches!(
            batch(&with("application/x-ndjson")),
            Ok(BatchType::Lines)
        ));
        assert!(matches!(
            batch(&with("application/json")),
            Ok(BatchType::Json)
        ));
        assert!(batch(&with("text/csv")).is_err());
    }

    #[test]
    fn lines_are_sent_only_to_those_who_ask() {
        let accept = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(http::header::ACCEPT, HeaderValue::from_static(text));
            accepts_lines(&headers)
        };
        assert!(accept("application/x-ndjson"));
        assert!(accept("text/html, application/x-ndjson;q=0.5"));
        assert!(accept("application/json, application/x-ndjson"));
        assert!(!accept("application/json, application/x-ndjson;q=0.9"));
        assert!(!accept("application/json"));
        assert!(!accept("*/*"));
        assert!(!accept("application/x-ndjson;q=0"));
    }

    #[test]
    fn zstd_is_sent_to_those_who_name_it() {
        let accept = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(
                http::header::ACCEPT_ENCODING,
                HeaderValue::from_static(text),
            );
            accepts_zstd(&headers)
        };
        assert!(accept("zstd"));
        assert!(accept("gzip, br;q=0.5, ZSTD ; q=0.1"));
        assert!(!accept("gzip, br"));
        assert!(!accept("zstd;q=0, gzip"));
        assert!(!accept("zstd;q=0.000"));
        assert!(!accept("*"));
        assert!(!accept("xzstd"));
        assert!(!accepts_zstd(&HeaderMap::new()));
    }
}
