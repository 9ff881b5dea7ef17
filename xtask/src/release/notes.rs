//! What the changelog says about a release.

use crate::release::version::Version;

const UNRELEASED: &str = "## Unreleased";

pub(super) struct Notes {
    version: Version,
    text: String,
}

impl Notes {
    /// What stands between the heading and the next one.
    pub(super) fn read(changelog: &str, version: Version) -> Self {
        let text = changelog
            .lines()
            .skip_while(|line| line.trim() != UNRELEASED)
            .skip(1)
            .take_while(|line| !line.starts_with("## "))
            .collect::<Vec<_>>()
            .join("\n");
        Self {
            version,
            text: text.trim().to_owned(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// The changelog with these notes under the version and its date, and an empty heading for what comes next.
    pub(super) fn dated(&self, changelog: &str, date: &str) -> String {
        let heading = format!("{UNRELEASED}\n\n## {} - {date}", self.version);
        changelog.replacen(UNRELEASED, &heading, 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANGELOG: &str =
        "# Changelog\n\n## Unreleased\n\n- New things.\n\n## 0.1.0 - 2026-01-01\n\n- Old things.\n";

    #[test]
    fn notes_are_dated_and_leave_room_for_the_next() {
        let version: Version = "0.2.0".parse().expect("a version");
        let notes = Notes::read(CHANGELOG, version);
        assert_eq!(notes.text, "- New things.");
        let dated = notes.dated(CHANGELOG, "2026-11-25");
        assert!(
            dated.contains("## Unreleased\n\n## 0.2.0 - 2026-11-25\n\n- New things.\n\n## 0.1.0"),
            "{dated}"
        );
        assert!(Notes::read(&dated, version).is_empty());
        assert!(Notes::read("# Changelog\n", version).is_empty());
    }
}
