//! Real documents, as a user loads them: in through the command line, out byte for byte on both surfaces, listed, and still
//! there after the process was killed. Skipped with a notice where the documents are not.
#![cfg(feature = "cli")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use support::{Client, Server, binary};

/// The files beside the workspace, if they are there.
fn files() -> Vec<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("a workspace");
    let folder = workspace.join("../shared/data/documents");
    let Ok(entries) = fs::read_dir(&folder) else {
        println!("skipped: there are no documents at {}", folder.display());
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "ndjson")
        })
        .collect();
    files.sort();
    files
}

/// Keys and the bytes of their values, taken from the lines without any JSON library having a say in them.
fn documents(files: &[PathBuf]) -> BTreeMap<String, String> {
    let mut documents = BTreeMap::new();
    for file in files {
        for line in fs::read_to_string(file).expect("UTF-8").lines() {
            let rest = line.strip_prefix("{\"key\":").expect("the key comes first");
            let (key, value) = rest.split_once(",\"value\":").expect("then the value");
            let key: String = serde_json::from_str(key).expect("a string");
            let value = value.strip_suffix('}').expect("and no more");
            documents.insert(key, value.to_owned());
        }
    }
    documents
}

fn encoded(key: &str) -> String {
    key.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

fn load(server: &Server, files: &[PathBuf]) {
    for file in files {
        let url = format!("http://{}", server.address);
        let output = binary()
            .args(["put", "--url", &url, "--ndjson"])
            .arg(file)
            .output()
            .expect("the binary runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{}: {said}", file.display());
        assert!(said.contains(" stored, 0 failed"), "{said}");
    }
}

/// Everything comes back as it was, alone and in every listing.
fn check(server: &Server, documents: &BTreeMap<String, String>) {
    let mut client = server.connect();
    for (key, value) in documents {
        let answer = client.ask(&format!("GET /v1/kv/{}", encoded(key)), "");
        assert!(
            answer.status == 200 && answer.text() == value,
            "{key}: {answer:?}"
        );
        let answer = client.ask(&format!("GET /kv/{}", encoded(key)), "");
        let envelope = answer.json();
        assert_eq!(envelope["data"].as_str(), Some(value.as_str()), "{key}");
        assert_eq!(envelope["error"], serde_json::Value::Null);
    }
    check_listings(&mut client, documents);
}

fn check_listings(client: &mut Client, documents: &BTreeMap<String, String>) {
    let names: BTreeSet<&str> = documents.keys().map(String::as_str).collect();
    let key_of = |line: &str| {
        let row: serde_json::Value = serde_json::from_str(line).expect("JSON");
        row["key"].as_str().expect("a key").to_owned()
    };
    let lines = client.ask("GET /kv", "");
    let listed: Vec<String> = lines.text().lines().map(key_of).collect();
    assert_eq!(listed.len(), names.len());
    assert_eq!(
        listed.iter().map(String::as_str).collect::<BTreeSet<_>>(),
        names
    );

    let lines = client.ask("GET /v1/keys?values=true\nAccept: application/x-ndjson", "");
    let mut listed = 0;
    for line in lines.text().lines() {
        let value = &documents[&key_of(line)];
        assert!(line.ends_with(&format!(",\"value\":{value}}}")), "{line}");
        listed += 1;
    }
    assert_eq!(listed, names.len());

    let mut listed = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = client
            .ask(&format!("GET /v1/keys?limit=500{cursor}"), "")
            .json();
        let rows = page["keys"].as_array().expect("keys");
        listed.extend(
            rows.iter()
                .map(|row| row["key"].as_str().expect("a key").to_owned()),
        );
        match page["cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(listed.len(), names.len());
    assert_eq!(
        listed.iter().map(String::as_str).collect::<BTreeSet<_>>(),
        names
    );
}

#[test]
fn documents_come_back_byte_for_byte_also_after_a_kill() {
    let files = files();
    if files.is_empty() {
        return;
    }
    let documents = documents(&files);
    assert!(documents.len() > 100, "{} documents", documents.len());
    let directory = tempfile::tempdir().expect("a folder");
    let flags = [
        "--data-dir",
        directory.path().to_str().expect("UTF-8"),
        "--wal-sync",
        "always",
    ];

    let server = Server::start(&flags);
    load(&server, &files);
    check(&server, &documents);
    server.kill();

    let server = Server::start(&flags);
    check(&server, &documents);
    // Loading them again changes nothing, and a snapshot holds what the log held.
    load(&server, &files);
    let (key, _) = documents.first_key_value().expect("a document");
    let answer = server.ask(&format!("GET /v1/kv/{}", encoded(key)), "");
    assert_eq!(answer.field("version"), Some("0"));
    let report = server.ask("POST /v1/admin/snapshot?mode=full&wait=true", "");
    assert_eq!(
        report.json()["entries"].as_u64(),
        Some(documents.len() as u64),
        "{report:?}"
    );
    server.kill();

    let server = Server::start(&flags);
    check(&server, &documents);
    assert!(server.terminate());
}
