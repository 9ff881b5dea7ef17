//! Which crate may know which: read from the manifests, and inside the server from the sources.

use std::path::Path;

use crate::tidy::Finding;
use crate::tidy::manifest::{Dependency, Manifest};
use crate::tidy::tree::Files;

const OWN: &str = "inflightkv-";

/// Each is worth using alone, so none names another, not even in tests.
const ALONE: [&str; 6] = [
    "core",
    "wal",
    "snapshot",
    "eviction",
    "compression",
    "validation",
];

/// Families of foreign crates, and the members that may know them. A family is the name itself and the name with a
/// dash behind it.
const FOREIGN: [(&[&str], &[&str]); 2] = [
    (
        &["tokio", "hyper", "h2", "async-std", "smol", "axum", "tower"],
        &["server", "bench"],
    ),
    (
        &[
            "criterion",
            "gungraun",
            "iai-callgrind",
            "hdrhistogram",
            "plotters",
        ],
        &["bench", "xtask"],
    ),
];

/// The server's library without features is the store without HTTP, so these are switched on by features only.
const OPTIONAL_IN_SERVER: [&str; 3] = ["tokio", "hyper", "http"];

/// A part of the server, and what its code must not name.
const INSIDE: [(&str, &[&str]); 1] = [(
    "server/src/engine",
    &["crate::http::", "crate::cli::", "tokio::", "hyper::"],
)];

pub(crate) fn check(manifests: &[Manifest], files: &Files) -> Vec<Finding> {
    let mut findings: Vec<Finding> = manifests.iter().flat_map(check_manifest).collect();
    for (path, text) in files {
        for (part, forbidden) in INSIDE {
            if path.starts_with(part) && path.extension().is_some_and(|extension| extension == "rs")
            {
                findings.extend(check_part(path, text, part, forbidden));
            }
        }
    }
    findings
}

fn check_manifest(manifest: &Manifest) -> Vec<Finding> {
    let member = manifest.member();
    let finding = |what: String| Finding::new(&manifest.path, what);
    let Some(allowed) = allowed(member) else {
        let what = format!("{member:?} has no layer yet; give it one in xtask/src/tidy/layers.rs");
        return vec![finding(what)];
    };
    let mut findings = Vec::new();
    for Dependency {
        package,
        optional,
        dev,
    } in manifest.dependencies()
    {
        if let Some(own) = package.strip_prefix(OWN)
            && !allowed.contains(&own)
        {
            findings.push(finding(format!("{member} must not know {own}")));
        }
        for (families, members) in FOREIGN {
            let known = families.iter().any(|family| is_of(&package, family));
            if known && !members.contains(&member) {
                findings.push(finding(format!(
                    "{package} is for {} only",
                    members.join(" and ")
                )));
            }
        }
        if member == "server"
            && !dev
            && !optional
            && OPTIONAL_IN_SERVER
                .iter()
                .any(|family| is_of(&package, family))
        {
            findings.push(finding(format!(
                "{package} has to be optional: the store works without HTTP"
            )));
        }
    }
    findings
}

/// The members that this one may depend on, if it is known at all.
fn allowed(member: &str) -> Option<Vec<&'static str>> {
    match member {
        "server" => Some(ALONE.to_vec()),
        "bench" => Some([&ALONE[..], &["server"]].concat()),
        "xtask" => Some(Vec::new()),
        _ if ALONE.contains(&member) => Some(Vec::new()),
        _ => None,
    }
}

fn is_of(package: &str, family: &str) -> bool {
    package
        .strip_prefix(family)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

fn check_part(path: &Path, text: &str, part: &str, forbidden: &[&str]) -> Vec<Finding> {
    let code = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim_start().starts_with("//"));
    code.flat_map(|(number, line)| {
        forbidden
            .iter()
            .filter(move |&&name| line.contains(name))
            .map(move |name| Finding::at(path, number + 1, format!("{part} must not know {name}")))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(member: &str, dependencies: &str) -> Vec<String> {
        let text = format!("[dependencies]\n{dependencies}");
        let manifest = Manifest::parse(Path::new(member), &text).unwrap();
        check_manifest(&manifest)
            .into_iter()
            .map(|finding| finding.what)
            .collect()
    }

    #[test]
    fn no_arrow_between_the_crates_that_stand_alone() {
        for from in ALONE {
            for to in ALONE {
                let found = findings(from, &format!("inflightkv-{to}.workspace = true"));
                assert_eq!(found, [format!("{from} must not know {to}")]);
            }
        }
        let dev = "[dev-dependencies]\ninflightkv-core.workspace = true";
        assert_eq!(findings("wal", dev), ["wal must not know core"]);
    }

    #[test]
    fn the_server_knows_them_all_and_nothing_above() {
        for to in ALONE {
            assert_eq!(
                findings("server", &format!("inflightkv-{to}.workspace = true")),
                [""; 0]
            );
        }
        assert_eq!(
            findings("server", "inflightkv-bench.workspace = true"),
            ["server must not know bench"]
        );
    }

    #[test]
    fn a_runtime_reaches_server_and_bench_only() {
        assert_eq!(
            findings("wal", "tokio = \"1\""),
            ["tokio is for server and bench only"]
        );
        assert_eq!(
            findings("core", "hyper-util = \"0.1\""),
            ["hyper-util is for server and bench only"]
        );
        assert_eq!(findings("core", "hyperloglog = \"1\""), [""; 0]);
        assert_eq!(findings("bench", "tokio = \"1\""), [""; 0]);
        assert_eq!(
            findings("server", "tokio = { version = \"1\", optional = true }"),
            [""; 0]
        );
        assert_eq!(findings("server", "tokio = \"1\"").len(), 1);
    }

    #[test]
    fn a_new_member_has_to_be_given_a_layer() {
        assert_eq!(findings("newcomer", "").len(), 1);
    }

    #[test]
    fn the_engine_knows_no_http() {
        let text = "//! Not crate::http:: here.\nuse crate::http::Route;\n";
        let found = check_part(
            Path::new("server/src/engine/mod.rs"),
            text,
            "server/src/engine",
            INSIDE[0].1,
        );
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].line, Some(2));
    }
}
