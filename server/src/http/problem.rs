//! Problem documents (RFC 9457): the failures of every surface but `/kv`.

use super::body::Body;
use super::json::{push_number, push_string};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Response, StatusCode};

/// A failure with a code that never changes its meaning, a sentence, and members that help.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) detail: String,
    pub(crate) members: Vec<(&'static str, Member)>,
}

/// The value of a member that helps.
#[derive(Debug)]
pub(crate) enum Member {
    Number(u64),
    Text(String),
    Texts(Vec<String>),
}

impl Problem {
    /// `code`, `detail` and the members, as they stand in a problem document and in a batch result.
    pub(crate) fn push_members(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(br#""code":"#);
        push_string(out, self.code.as_bytes());
        out.extend_from_slice(br#","detail":"#);
        push_string(out, self.detail.as_bytes());
        for (name, member) in &self.members {
            out.push(b',');
            push_string(out, name.as_bytes());
            out.push(b':');
            match member {
                Member::Number(number) => push_number(out, *number),
                Member::Text(text) => push_string(out, text.as_bytes()),
                Member::Texts(texts) => {
                    out.push(b'[');
                    for (index, text) in texts.iter().enumerate() {
                        if index > 0 {
                            out.push(b',');
                        }
                        push_string(out, text.as_bytes());
                    }
                    out.push(b']');
                }
            }
        }
    }

    /// The document.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(192 + self.detail.len());
        out.extend_from_slice(br#"{"type":"about:blank","title":"#);
        push_string(
            &mut out,
            self.status.canonical_reason().unwrap_or("Error").as_bytes(),
        );
        out.extend_from_slice(br#","status":"#);
        push_number(&mut out, self.status.as_u16().into());
        out.push(b',');
        self.push_members(&mut out);
        out.push(b'}');
        out
    }

    /// The answer, with `headers` as its first fields.
    pub(crate) fn into_response(self, mut headers: HeaderMap) -> Response<Body> {
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        let mut response = Response::new(Body::Full(self.to_json().into()));
        *response.status_mut() = self.status;
        *response.headers_mut() = headers;
        response
    }

    /// The answer as bytes on an HTTP/1.1 connection that ends after it, for when there is no request to answer.
    pub(crate) fn to_http1(&self, retry_after: Option<&str>) -> Vec<u8> {
        let body = self.to_json();
        let reason = self.status.canonical_reason().unwrap_or("Error");
        let retry = retry_after
            .map(|seconds| format!("retry-after: {seconds}\r\n"))
            .unwrap_or_default();
        let mut out = format!(
            "HTTP/1.1 {} {reason}\r\ncontent-type: application/problem+json\r\n{retry}connection: close\r\ncontent-length: {}\r\n\r\n",
            self.status.as_u16(),
            body.len()
        )
        .into_bytes();
        out.extend_from_slice(&body);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_spelt_like_this() {
        let problem = Problem {
            status: StatusCode::PRECONDITION_FAILED,
            code: "PRECONDITION_FAILED",
            detail: "it \"changed\"".to_owned(),
            members: vec![
                ("currentVersion", Member::Number(3)),
                ("rule", Member::Text("x".to_owned())),
                (
                    "unknown",
                    Member::Texts(vec!["a".to_owned(), "b".to_owned()]),
                ),
            ],
        };
        assert_eq!(
            String::from_utf8(problem.to_json()).expect("UTF-8"),
            r#"{"type":"about:blank","title":"Precondition Failed","status":412,"code":"PRECONDITION_FAILED","detail":"it \"changed\"","currentVersion":3,"rule":"x","unknown":["a","b"]}"#
        );
    }
}
