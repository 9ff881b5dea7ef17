//! What the manifests of the workspace say.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::tidy::Finding;
use crate::tidy::tree::Files;

/// The kinds of dependencies; an arrow between layers is one in each of them.
const KINDS: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

const METADATA: [&str; 8] = [
    "authors",
    "categories",
    "description",
    "documentation",
    "keywords",
    "license",
    "readme",
    "rust-version",
];

/// One member of the workspace.
#[derive(Debug)]
pub(crate) struct Manifest {
    pub(crate) folder: PathBuf,
    pub(crate) path: PathBuf,
    table: Table,
}

/// One line of a `[dependencies]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dependency {
    /// The package's own name, whatever it is called here.
    pub(crate) package: String,
    pub(crate) optional: bool,
    /// Needed by tests and benchmarks only.
    pub(crate) dev: bool,
}

impl Manifest {
    pub(crate) fn parse(folder: &Path, text: &str) -> Result<Self, Finding> {
        let path = folder.join("Cargo.toml");
        match text.parse::<Table>() {
            Ok(table) => Ok(Self {
                folder: folder.to_owned(),
                path,
                table,
            }),
            Err(error) => Err(Finding::new(path, error.message())),
        }
    }

    /// The member's name among its siblings: `wal`.
    pub(crate) fn member(&self) -> &str {
        self.folder.to_str().unwrap_or_default()
    }

    pub(crate) fn inherits_lints(&self) -> bool {
        let lints = self
            .table
            .get("lints")
            .and_then(|lints| lints.get("workspace"));
        lints.and_then(Value::as_bool) == Some(true)
    }

    /// Whether others can build on it: a package that `publish = false` does not keep back.
    pub(crate) fn is_published(&self) -> bool {
        let package = self.table.get("package");
        package
            .is_some_and(|package| package.get("publish").and_then(Value::as_bool) != Some(false))
    }

    /// What a registry shows of a package and this one does not say.
    pub(crate) fn missing_metadata(&self) -> Vec<&'static str> {
        let package = self.table.get("package").and_then(Value::as_table);
        let says = |name: &&str| package.is_some_and(|package| package.contains_key(*name));
        METADATA.into_iter().filter(|name| !says(name)).collect()
    }

    pub(crate) fn dependencies(&self) -> Vec<Dependency> {
        let targets = self.table.get("target").and_then(Value::as_table);
        let targets = targets
            .into_iter()
            .flat_map(Table::values)
            .filter_map(Value::as_table);
        let mut found = Vec::new();
        for table in std::iter::once(&self.table).chain(targets) {
            for kind in KINDS {
                let lines = table
                    .get(kind)
                    .and_then(Value::as_table)
                    .into_iter()
                    .flatten();
                found.extend(lines.map(|(name, value)| {
                    Dependency {
                        package: value
                            .get("package")
                            .and_then(Value::as_str)
                            .unwrap_or(name)
                            .to_owned(),
                        optional: value.get("optional").and_then(Value::as_bool) == Some(true),
                        dev: kind == "dev-dependencies",
                    }
                }));
            }
        }
        found
    }
}

/// The members that the root manifest lists.
pub(crate) fn read_all(files: &Files) -> Result<Vec<Manifest>, Finding> {
    let text = |path: &Path| {
        files
            .get(path)
            .ok_or_else(|| Finding::new(path, "is missing"))
    };
    let root = Manifest::parse(Path::new(""), text(Path::new("Cargo.toml"))?)?;
    let members = root
        .table
        .get("workspace")
        .and_then(|workspace| workspace.get("members"))
        .and_then(Value::as_array);
    let members = members.ok_or_else(|| Finding::new("Cargo.toml", "lists no members"))?;
    members
        .iter()
        .filter_map(Value::as_str)
        .map(|member| {
            Manifest::parse(
                Path::new(member),
                text(&Path::new(member).join("Cargo.toml"))?,
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_found_in_every_kind_of_table() {
        let text = r#"
            [dependencies]
            a.workspace = true
            renamed = { package = "b", version = "1", optional = true }
            [dev-dependencies]
            c = "1"
            [target.'cfg(unix)'.build-dependencies]
            d = "1"
        "#;
        let manifest = Manifest::parse(Path::new("wal"), text).unwrap();
        let found = manifest.dependencies();
        let names: Vec<_> = found
            .iter()
            .map(|found| (found.package.as_str(), found.optional, found.dev))
            .collect();
        assert_eq!(
            names,
            [
                ("a", false, false),
                ("b", true, false),
                ("c", false, true),
                ("d", false, false)
            ]
        );
    }
}
