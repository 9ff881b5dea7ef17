//! Media types that a value may have: `application/json`, `text/*`, `*/*`.

/// What JSON is called.
pub(crate) const JSON: &str = "application/json";

/// A media type, or all subtypes of one, or all.
#[derive(Debug, Clone)]
pub(crate) struct MediaRange {
    written: String,
}

impl MediaRange {
    pub(crate) fn parse(written: &str) -> Option<Self> {
        let token = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&byte))
        };
        let (kind, subtype) = written.split_once('/')?;
        let wide = kind == "*" && subtype == "*";
        let known = wide || token(kind) && (subtype == "*" || token(subtype));
        known.then(|| Self {
            written: written.to_ascii_lowercase(),
        })
    }

    /// Whether `media_type`, with or without parameters, is in the range.
    pub(crate) fn contains(&self, media_type: &str) -> bool {
        let essence = media_type.split(';').next().unwrap_or_default().trim();
        match self.written.strip_suffix('*') {
            Some("*/") => true,
            Some(kind) => essence
                .get(..kind.len())
                .is_some_and(|begin| begin.eq_ignore_ascii_case(kind)),
            None => essence.eq_ignore_ascii_case(&self.written),
        }
    }

    pub(crate) fn written(&self) -> &str {
        &self.written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_contain_what_they_say() {
        let cases = [
            ("application/json", "Application/JSON; charset=utf-8", true),
            ("application/json", "application/jsonx", false),
            ("text/*", "text/plain", true),
            ("TEXT/*", "texts/plain", false),
            ("*/*", "image/png", true),
        ];
        for (range, media_type, inside) in cases {
            let range = MediaRange::parse(range).expect(range);
            assert_eq!(range.contains(media_type), inside, "{media_type}");
        }
        for bad in ["", "json", "*/json", "a/", "/a", "a/b;c=d", "a b/c"] {
            assert!(MediaRange::parse(bad).is_none(), "{bad}");
        }
    }
}
