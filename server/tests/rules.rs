//! Validation rules on a running server: what is refused, with which words, and how rules are changed.
#![cfg(feature = "cli")]

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use support::{Answer, Server, eventually};

const RULES: &str = r#"
[[rule]]
name = "users"
prefix = "user/"
key-pattern = "^user/[0-9]+$"
value-json-type = "object"
value-max-members = 3
value-forbidden-members = ["password"]

[[rule]]
name = "trial"
mode = "report-only"
value-max-size = 4
"#;

fn started(folder: &Path) -> Server {
    let file = folder.join("rules.toml");
    fs::write(&file, RULES).expect("the folder can be written");
    let file = file.display().to_string();
    Server::start(&["--validation", &file])
}

/// `rule setting pointer` of a refusal.
fn refusal(answer: &Answer) -> (u16, String) {
    assert_eq!(
        answer.field("content-type"),
        Some("application/problem+json")
    );
    let problem = answer.json();
    assert_eq!(problem["code"], "VALIDATION_FAILED");
    for member in ["found", "allowed", "detail"] {
        let words = problem[member].as_str().expect(member);
        assert!(!words.is_empty(), "{member}");
    }
    let text = |name: &str| problem[name].as_str().unwrap_or("-").to_owned();
    (
        answer.status,
        format!("{} {} {}", text("rule"), text("setting"), text("pointer")),
    )
}

#[test]
fn a_write_that_breaks_a_rule_is_refused_with_its_words() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = started(folder.path());
    let cases = [
        ("PUT /v1/kv/user/ada", "{}", "users key-pattern -"),
        ("PATCH /v1/kv/user/ada", "{}", "users key-pattern -"),
        ("PUT /v1/kv/user/1", "[]", "users value-json-type "),
        (
            "PUT /v1/kv/user/1",
            r#"{"a":{"password":"hunter2"}}"#,
            "users value-forbidden-members /a/password",
        ),
    ];
    for (request, body, wanted) in cases {
        let answer = server.ask(request, body);
        assert_eq!(refusal(&answer), (422, wanted.to_owned()), "{request}");
        assert!(!answer.text().contains("hunter2"));
    }
    let opaque = server.ask("PUT /v1/kv/user/1\nContent-Type: text/plain", "x");
    assert_eq!(
        refusal(&opaque),
        (422, "users value-json-type -".to_owned())
    );
    let old = server.ask("PUT /kv/user/1", "[]");
    assert_eq!(old.status, 400);
    assert_eq!(old.json()["error"]["errorCode"], "VALIDATION_FAILED");
    let message = old.json()["error"]["errorMessage"].to_string();
    assert!(message.contains("users") && message.contains("value-json-type"));
    // Nothing was stored, and what no rule is about is as before.
    assert_eq!(server.ask("GET /v1/kv/user/1", "").status, 404);
    assert_eq!(server.ask("PUT /v1/kv/user/1", "{}").status, 201);
    assert_eq!(server.ask("PUT /v1/kv/other", "[1,2,3]").status, 201);
}

/// The patch alone keeps every rule; the whole does not.
#[test]
fn what_a_patch_makes_is_judged_as_a_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = started(folder.path());
    let stored = r#"{"a":1,"b":2,"c":3}"#;
    assert_eq!(server.ask("PUT /v1/kv/user/1", stored).status, 201);
    let merge = server.ask("PATCH /v1/kv/user/1", r#"{"d":4}"#);
    assert_eq!(
        refusal(&merge),
        (422, "users value-max-members /d".to_owned())
    );
    let patch = server.ask(
        "PATCH /v1/kv/user/1\nContent-Type: application/json-patch+json",
        r#"[{"op":"copy","from":"/a","path":"/password"}]"#,
    );
    assert_eq!(refusal(&patch).0, 422);
    assert_eq!(server.ask("PATCH /kv/user/1", r#"{"d":4}"#).status, 400);
    assert_eq!(server.ask("GET /v1/kv/user/1", "").text(), stored);
    // Conditions and failing patches are answered as without rules.
    let stale = server.ask("PATCH /v1/kv/user/1?ifVersion=7", r#"{"d":4}"#);
    assert_eq!(stale.status, 412);
    let test = server.ask(
        "PATCH /v1/kv/user/1\nContent-Type: application/json-patch+json",
        r#"[{"op":"test","path":"/a","value":9}]"#,
    );
    assert_eq!(test.status, 409);
    let missing = server.ask(
        "PATCH /v1/kv/user/2\nContent-Type: application/json-patch+json",
        r#"[{"op":"remove","path":"/a"}]"#,
    );
    assert_eq!(missing.status, 404);
    let fits = server.ask("PATCH /v1/kv/user/1", r#"{"d":4,"a":null}"#);
    assert_eq!(fits.status, 204);
    assert_eq!(
        server.ask("GET /v1/kv/user/1", "").text(),
        r#"{"b":2,"c":3,"d":4}"#
    );
}

#[test]
fn a_batch_with_one_bad_operation_applies_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = started(folder.path());
    let put = server.ask("PUT /v1/kv/user/1", r#"{"a":1,"b":2,"c":3}"#);
    assert_eq!(put.status, 201);
    for bad in [
        r#"{"op":"put","key":"user/2","value":[]}"#,
        r#"{"op":"put","key":"user/x","value":{}}"#,
        r#"{"op":"patch","key":"user/1","value":{"d":1}}"#,
    ] {
        let ops = format!(r#"{{"ops":[{{"op":"put","key":"a","value":1}},{bad}]}}"#);
        let answer = server.ask("POST /v1/batch", ops);
        assert_eq!(refusal(&answer).0, 422, "{bad}");
        assert_eq!(answer.json()["index"], 1, "{bad}");
        assert_eq!(server.ask("GET /v1/kv/a", "").status, 404, "{bad}");
    }
    // What only the batch itself makes of a key is found when its turn comes.
    let ops = r#"{"ops":[{"op":"put","key":"user/2","value":{"a":1,"b":1,"c":1}},
        {"op":"patch","key":"user/2","value":{"d":1}}]}"#;
    let results = server.ask("POST /v1/batch", ops).json();
    assert_eq!(results["results"][0]["status"], 201);
    assert_eq!(results["results"][1]["status"], 422);
    assert_eq!(results["results"][1]["rule"], "users");
}

#[test]
fn rules_are_counted_and_reported_ones_refuse_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = started(folder.path());
    assert_eq!(server.ask("PUT /v1/kv/x", "123456").status, 201);
    assert_eq!(server.ask("PUT /v1/kv/user/1", "[]").status, 422);
    let stats = server.ask("GET /v1/admin/stats", "").json();
    let hits = |name: &str| {
        let rules = stats["rules"].as_array().expect("rules");
        let rule = rules.iter().find(|rule| rule["name"] == name);
        rule.expect(name)["hits"].as_u64()
    };
    assert_eq!((hits("users"), hits("trial")), (Some(1), Some(1)));
    let metrics = server.ask("GET /metrics", "");
    for line in [
        r#"inflightkv_rule_hits_total{rule="users",mode="enforce"} 1"#,
        r#"inflightkv_rule_hits_total{rule="trial",mode="report-only"} 1"#,
        "inflightkv_damaged_values_total{found_by=\"read\"} 0",
    ] {
        assert!(metrics.text().contains(line), "{line}");
    }
}

#[test]
fn a_file_is_read_again_and_a_bad_one_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = started(folder.path());
    let file = folder.path().join("rules.toml");
    assert_eq!(server.ask("PUT /v1/kv/user/1", "[]").status, 422);

    fs::write(&file, "[[rule]]\nname = \"r\"\nkey-max-lenght = 3\n").expect("a file");
    server.hang_up();
    let named = file.display().to_string();
    let change = serde_json::json!({ "validation": named }).to_string();
    let answer = server.ask("PATCH /v1/admin/config", &change);
    assert_eq!(answer.status, 400, "{}", answer.text());
    let detail = answer.json()["detail"].to_string();
    assert!(
        detail.contains("line 3") && detail.contains("key-max-lenght"),
        "{detail}"
    );
    assert_eq!(server.ask("PUT /v1/kv/user/1", "[]").status, 422);

    fs::write(&file, "[[rule]]\nname = \"r\"\nkey-max-length = 3\n").expect("a file");
    server.hang_up();
    eventually("the new rules hold", || {
        server.ask("PUT /v1/kv/long", "1").status == 422
    });
    assert_eq!(server.ask("PUT /v1/kv/u", "[]").status, 201);
    let answer = server.ask("PATCH /v1/admin/config", r#"{"validation":null}"#);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(server.ask("PUT /v1/kv/longer", "1").status, 201);
}

/// Many writers patch one key under rules: every patch that was answered 204 is there, and no rule was ever broken.
#[test]
fn patches_under_rules_lose_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("rules.toml");
    fs::write(&file, "[[rule]]\nname = \"few\"\nvalue-max-members = 20\n").expect("a file");
    let server = Server::start(&["--validation", &file.display().to_string()]);
    let done: usize = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let server = &server;
                scope.spawn(move || {
                    let mut client = server.connect();
                    (0..10)
                        .filter(|turn| {
                            let patch = format!(r#"{{"w{writer}t{turn}":1}}"#);
                            let answer = client.ask("PATCH /v1/kv/shared", patch);
                            assert!(matches!(answer.status, 201 | 204 | 422 | 503), "{answer:?}");
                            answer.status < 300
                        })
                        .count()
                })
            })
            .collect();
        writers
            .into_iter()
            .map(|writer| writer.join().expect("a writer"))
            .sum()
    });
    let value = server.ask("GET /v1/kv/shared", "").json();
    assert_eq!(value.as_object().map(serde_json::Map::len), Some(done));
    assert_eq!(done, 20);
}

fn check_rules(arguments: &[&str], input: &str) -> (Option<i32>, String, String) {
    use std::io::Write as _;
    let mut child = Command::new(env!("CARGO_BIN_EXE_inflightkv"))
        .arg("check-rules")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    // It may end before it has read everything.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn rules_can_be_tried_before_they_are_used() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("rules.toml");
    fs::write(&file, RULES).expect("a file");
    let file = file.display().to_string();
    let (code, out, _) = check_rules(&[&file], "");
    assert_eq!((code, out.lines().count()), (Some(0), 2), "{out}");
    let sample = "{\"key\":\"user/1\",\"value\":{}}\n{\"key\":\"user/x\",\"value\":{}}\n\
                  {\"key\":\"b\",\"valueBase64\":\"AAEC\",\"mediaType\":\"image/png\"}\n";
    let (code, out, _) = check_rules(&[&file, "--sample", "-"], sample);
    assert_eq!(code, Some(1), "{out}");
    assert!(out.starts_with("line 2: users: key-pattern: "), "{out}");
    assert!(out.contains("users (enforce): 1 broke it"), "{out}");
    fs::write(&file, "[[rule]]\nname = 3\n").expect("a file");
    let (code, _, error) = check_rules(&[&file], "");
    assert_eq!(code, Some(2));
    assert!(error.contains("line 2: name: found 3"), "{error}");
    // The server does not start on it either.
    let output = Command::new(env!("CARGO_BIN_EXE_inflightkv"))
        .args(["--check-config", "--validation", &file])
        .output()
        .expect("the program runs");
    assert_eq!(output.status.code(), Some(2));
}
