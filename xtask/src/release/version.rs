//! Version numbers, and where they stand in the root manifest.

use std::fmt;
use std::str::FromStr;

use crate::shell::Failure;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version([u64; 3]);

impl Version {
    pub(super) fn tag(self) -> String {
        format!("v{self}")
    }
}

impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.0;
        write!(out, "{major}.{minor}.{patch}")
    }
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers: Vec<u64> = text
            .split('.')
            // `+1` and `01` are numbers, but no parts of a version.
            .filter(|part| {
                part.bytes().all(|byte| byte.is_ascii_digit())
                    && (*part == "0" || !part.starts_with('0'))
            })
            .filter_map(|part| part.parse().ok())
            .collect();
        match numbers[..] {
            [major, minor, patch] if text.split('.').count() == 3 => {
                Ok(Self([major, minor, patch]))
            }
            _ => Err(format!("{text:?} is no version such as 1.2.3")),
        }
    }
}

/// What the workspace is at.
pub(super) fn current(manifest: &str) -> Result<Version, Failure> {
    let table: toml::Table = manifest
        .parse()
        .map_err(|error: toml::de::Error| Failure(format!("Cargo.toml: {}", error.message())))?;
    let version = table
        .get("workspace")
        .and_then(|workspace| workspace.get("package")?.get("version")?.as_str())
        .ok_or_else(|| Failure("Cargo.toml has no workspace.package.version".to_owned()))?;
    version.parse().map_err(Failure)
}

/// The manifest with this version for the workspace and for its members among the dependencies; everything else stays.
pub(super) fn changed(manifest: &str, version: Version) -> String {
    let mut section = "";
    let mut out = String::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line;
        }
        let own = section == "[workspace.package]" && line.starts_with("version = ")
            || section == "[workspace.dependencies]" && line.starts_with("inflightkv-");
        let line = if own {
            replaced(line, version)
        } else {
            line.to_owned()
        };
        out.push_str(&line);
        out.push('\n');
    }
    out
}

fn replaced(line: &str, version: Version) -> String {
    const NAME: &str = "version = \"";
    let Some(start) = line.find(NAME).map(|at| at + NAME.len()) else {
        return line.to_owned();
    };
    let end = line[start..].find('"').map_or(line.len(), |at| start + at);
    format!("{}{version}{}", &line[..start], &line[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_three_numbers() {
        assert_eq!("1.20.3".parse(), Ok(Version([1, 20, 3])));
        for wrong in [
            "",
            "1",
            "1.2",
            "1.2.3.4",
            "v1.2.3",
            "1.2.x",
            "1.02.3",
            "+1.2.3",
            "1..3",
            "1.2.3-rc1",
        ] {
            assert!(Version::from_str(wrong).is_err(), "{wrong:?} was taken");
        }
        assert!(Version([0, 10, 0]) > Version([0, 9, 9]));
    }

    #[test]
    fn only_our_own_versions_change() {
        let manifest = "[workspace.package]\nversion = \"0.1.0\"\nrust-version = \"1.95\"\n\n[workspace.dependencies]\n\
                        inflightkv-core = { path = \"core\", version = \"0.1.0\" }\nbytes = { version = \"0.1.0\" }\n";
        let changed = changed(manifest, Version([0, 2, 0]));
        assert_eq!(current(&changed).expect("a version"), Version([0, 2, 0]));
        assert!(
            changed.contains("inflightkv-core = { path = \"core\", version = \"0.2.0\" }"),
            "{changed}"
        );
        assert!(
            changed.contains("bytes = { version = \"0.1.0\" }") && changed.contains("\"1.95\""),
            "{changed}"
        );
    }
}
