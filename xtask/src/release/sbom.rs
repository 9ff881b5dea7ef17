//! What the program is made of, as a CycloneDX document (version 1.5), from what cargo knows.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::release::version::Version;
use crate::shell::Failure;

const ROOT: &str = "inflightkv-server";

/// `metadata` is what `cargo metadata --format-version 1` prints.
pub(super) fn cyclonedx(metadata: &Value, version: Version) -> Result<String, Failure> {
    let wrong = || Failure("`cargo metadata` says nothing of inflightkv-server".to_owned());
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let packages: BTreeMap<String, Value> = list(&metadata["packages"])
        .into_iter()
        .map(|package| (text(&package["id"]), package))
        .collect();
    let nodes: BTreeMap<String, Vec<String>> = list(&metadata["resolve"]["nodes"])
        .iter()
        .map(|node| (text(&node["id"]), needed(node)))
        .collect();
    let (root, _) = packages
        .iter()
        .find(|(_, package)| package["name"] == ROOT)
        .ok_or_else(wrong)?;
    let mut reached = BTreeSet::new();
    let mut waiting = vec![root.clone()];
    while let Some(id) = waiting.pop() {
        if reached.insert(id.clone()) {
            waiting.extend(nodes.get(&id).into_iter().flatten().cloned());
        }
    }
    let reference = |id: &str| packages.get(id).map_or_else(String::new, purl);
    let components: Vec<Value> = reached
        .iter()
        .filter(|id| *id != root)
        .filter_map(|id| packages.get(id))
        .map(component)
        .collect();
    let dependencies: Vec<Value> = reached
        .iter()
        .map(|id| {
            let on: BTreeSet<String> = nodes
                .get(id)
                .into_iter()
                .flatten()
                .map(|id| reference(id))
                .collect();
            json!({ "ref": reference(id), "dependsOn": on })
        })
        .collect();
    let mut product = packages.get(root).map(component).ok_or_else(wrong)?;
    product["type"] = json!("application");
    product["name"] = json!("inflightkv");
    product["version"] = json!(version.to_string());
    let document = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": product },
        "components": components,
        "dependencies": dependencies,
    });
    serde_json::to_string_pretty(&document).map_err(|error| Failure(format!("the SBOM: {error}")))
}

/// What a package needs to be built and to run; what only its tests need is not in the program.
fn needed(node: &Value) -> Vec<String> {
    let dependencies = node["deps"].as_array().cloned().unwrap_or_default();
    let in_program = |dependency: &&Value| {
        let kinds = dependency["dep_kinds"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        kinds.iter().any(|kind| kind["kind"] != "dev")
    };
    dependencies
        .iter()
        .filter(in_program)
        .map(|dependency| text(&dependency["pkg"]))
        .collect()
}

fn component(package: &Value) -> Value {
    let mut component = json!({
        "type": "library",
        "bom-ref": purl(package),
        "name": package["name"],
        "version": package["version"],
        "purl": purl(package),
    });
    if let Some(licence) = package["license"].as_str() {
        // Some still separate with a slash what is now an OR.
        component["licenses"] =
            json!([{ "expression": licence.replace('/', " OR ").replace("  ", " ") }]);
    }
    component
}

fn purl(package: &Value) -> String {
    format!(
        "pkg:cargo/{}@{}",
        text(&package["name"]),
        text(&package["version"])
    )
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_program_needs_is_in_it_and_what_tests_need_is_not() {
        let package = |name: &str| json!({ "id": name, "name": name, "version": "1.0.0", "license": "MIT/Apache-2.0" });
        let dep = |name: &str, kind: Option<&str>| json!({ "pkg": name, "dep_kinds": [{ "kind": kind }] });
        let metadata = json!({
            "packages": [package(ROOT), package("bytes"), package("proptest"), package("cc")],
            "resolve": { "nodes": [
                { "id": ROOT, "deps": [dep("bytes", None), dep("proptest", Some("dev")), dep("cc", Some("build"))] },
                { "id": "bytes", "deps": [] }, { "id": "cc", "deps": [] }, { "id": "proptest", "deps": [] },
            ] },
        });
        let document =
            cyclonedx(&metadata, "1.2.3".parse().expect("a version")).expect("all is there");
        let document: Value = serde_json::from_str(&document).expect("JSON");
        let names: Vec<&str> = document["components"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|component| component["name"].as_str())
            .collect();
        assert_eq!(names, ["bytes", "cc"]);
        assert_eq!(document["metadata"]["component"]["version"], "1.2.3");
        assert_eq!(
            document["components"][0]["licenses"][0]["expression"],
            "MIT OR Apache-2.0"
        );
        assert!(cyclonedx(&json!({}), "1.2.3".parse().expect("a version")).is_err());
    }
}
