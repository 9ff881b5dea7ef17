//! `GET /ui`: one page to look at, whole in itself. It asks the same interface as everybody else.

use super::answer::{Answer, respond};
use super::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::StatusCode;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use sha2::{Digest as _, Sha256};
use std::sync::LazyLock;

const PAGE: &str = include_str!("ui.html");

/// Nothing but the page's own style and script, named by their digests, and requests to where it came from. So a value
/// shown on it that looks like a script is none.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let digest = |tag: &str| {
        let begin = format!("<{tag}>");
        let (_, rest) = PAGE.split_once(&begin).unwrap_or_default();
        let (content, _) = rest.split_once(&format!("</{tag}>")).unwrap_or_default();
        STANDARD.encode(Sha256::digest(content.as_bytes()))
    };
    let policy = format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        digest("script"),
        digest("style"),
    );
    HeaderValue::try_from(policy).expect("base64 is allowed in a header")
});

/// `/ui`
pub(crate) fn page() -> Answer {
    let mut headers = HeaderMap::new();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/html; charset=utf-8"),
    );
    headers.insert(CONTENT_SECURITY_POLICY, POLICY.clone());
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Answer::now(respond(
        StatusCode::OK,
        headers,
        Body::Full(Bytes::from_static(PAGE.as_bytes())),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_asks_for_nothing_from_elsewhere() {
        for outside in ["http://", "https://", "//cdn", "src=", "@import", "url("] {
            assert!(!PAGE.contains(outside), "{outside}");
        }
        // Handlers and styles in attributes would be refused by the policy.
        for attribute in ["onclick=\"", "onload=", "style=\""] {
            assert!(!PAGE.contains(attribute), "{attribute}");
        }
    }
}
