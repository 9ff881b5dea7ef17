//! Tokens, scopes and the audit log on a running server.
#![cfg(feature = "cli")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use support::{Answer, Server, eventually};

fn program(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_inflightkv"))
        .args(arguments)
        .env_remove("INFLIGHTKV_TOKEN")
        .output()
        .expect("the program runs")
}

/// A new token and its table.
fn token(arguments: &[&str]) -> (String, String) {
    let output = program(&[&["token", "new"], arguments].concat());
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let token = text
        .lines()
        .find_map(|line| line.strip_prefix("# ikv_"))
        .expect("the token is shown");
    (format!("ikv_{token}"), text)
}

struct Guarded {
    server: Server,
    folder: tempfile::TempDir,
    reader: String,
    writer: String,
    scoped: String,
    admin: String,
}

impl Guarded {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (reader, a) = token(&["--name", "reader", "--role", "read"]);
        let (writer, b) = token(&["--name", "writer", "--role", "write"]);
        let (scoped, c) = token(&[
            "--name", "scoped", "--role", "write", "--prefix", "user:", "--prefix", "job:",
        ]);
        let (admin, d) = token(&["--name", "admin", "--role", "admin"]);
        let file = folder.path().join("auth.toml");
        fs::write(&file, format!("{a}\n{b}\n{c}\n{d}")).expect("a file");
        let server = Server::start(&[
            "--auth",
            &file.display().to_string(),
            "--audit-log",
            &folder.path().join("audit.log").display().to_string(),
        ]);
        Self {
            server,
            folder,
            reader,
            writer,
            scoped,
            admin,
        }
    }

    fn ask(&self, token: &str, request: &str, body: &str) -> Answer {
        let mut lines = request.lines();
        let first = lines.next().expect("a request");
        let rest: String = lines.map(|line| format!("\n{line}")).collect();
        let request = format!("{first}\nAuthorization: Bearer {token}{rest}");
        self.server.ask(&request, body)
    }

    fn audit(&self) -> PathBuf {
        self.folder.path().join("audit.log")
    }
}

fn lines(path: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(path).expect("an audit log");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect()
}

#[test]
fn without_a_token_that_is_known_nothing_is_told() {
    let guarded = Guarded::start();
    let server = &guarded.server;
    assert_eq!(
        guarded.ask(&guarded.writer, "PUT /v1/kv/there", "1").status,
        201
    );
    for request in [
        "GET /v1/kv/there",
        "GET /v1/kv/missing",
        "PUT /v1/kv/there",
        "GET /v1/keys",
        "POST /v1/batch",
        "GET /v1/admin/stats",
        "POST /v1/admin/snapshot",
    ] {
        let answer = server.ask(request, "");
        assert_eq!(answer.status, 401, "{request}");
        assert_eq!(answer.json()["code"], "UNAUTHORIZED");
        assert_eq!(
            answer.field("www-authenticate"),
            Some(r#"Bearer realm="inflightkv""#)
        );
    }
    let missing = server.ask("GET /v1/kv/missing", "");
    assert_eq!(missing.body, server.ask("GET /v1/kv/there", "").body);
    for field in [
        "Authorization: Bearer ikv_wrong",
        "Authorization: Bearer",
        "Authorization: Basic YTpi",
        &format!(
            "Authorization: Bearer {0}\nAuthorization: Bearer {0}",
            guarded.writer
        ),
    ] {
        let answer = server.ask(&format!("GET /v1/kv/there\n{field}"), "");
        assert_eq!(answer.status, 401, "{field}");
        assert_eq!(
            answer.field("www-authenticate"),
            Some(r#"Bearer realm="inflightkv", error="invalid_token""#)
        );
    }
    let old = server.ask("GET /kv/there", "");
    assert_eq!(old.status, 401);
    assert_eq!(old.json()["error"]["errorCode"], "UNAUTHORIZED");
    for open in [
        "/health/live",
        "/health/ready",
        "/health/startup",
        "/actuator/health",
        "/openapi.json",
    ] {
        assert_eq!(server.ask(&format!("GET {open}"), "").status, 200, "{open}");
    }
    // The scheme is not told from another by its case.
    let lower = format!("GET /v1/kv/there\nauthorization: bearer {}", guarded.reader);
    assert_eq!(server.ask(&lower, "").status, 200);
}

#[test]
fn roles_allow_what_they_say() {
    let guarded = Guarded::start();
    let write = r#"{"ops":[{"op":"put","key":"b","value":1}]}"#;
    let read = r#"{"ops":[{"op":"get","key":"b"}]}"#;
    let cases = [
        ("PUT /v1/kv/a", "1", [403, 201, 204]),
        ("GET /v1/kv/a", "", [200, 200, 200]),
        ("PUT /kv/a", "1", [403, 200, 200]),
        ("PATCH /v1/kv/a", "1", [403, 204, 204]),
        ("GET /v1/keys", "", [200, 200, 200]),
        ("GET /kv", "", [200, 200, 200]),
        ("POST /v1/batch", write, [403, 200, 200]),
        ("POST /v1/batch", read, [200, 200, 200]),
        ("GET /v1/admin/stats", "", [403, 403, 200]),
        ("GET /v1/admin/config", "", [403, 403, 200]),
        ("POST /v1/admin/snapshot", "", [403, 403, 409]),
    ];
    for (request, body, wanted) in cases {
        // What the reader may not do must not have been done by the time the writer does it.
        let tokens = [&guarded.reader, &guarded.writer, &guarded.admin];
        let found = tokens.map(|token| guarded.ask(token, request, body).status);
        assert_eq!(found, wanted, "{request}");
    }
    let refused = guarded.ask(&guarded.reader, "DELETE /kv/a", "");
    assert_eq!(refused.json()["error"]["errorCode"], "FORBIDDEN");
}

#[test]
fn a_scope_holds_for_keys_batches_and_listings() {
    let guarded = Guarded::start();
    for key in ["user:1", "job:1", "secret:1"] {
        let request = format!("PUT /v1/kv/{key}");
        assert_eq!(guarded.ask(&guarded.writer, &request, "1").status, 201);
    }
    let scoped = |request: &str, body: &str| guarded.ask(&guarded.scoped, request, body);
    assert_eq!(scoped("GET /v1/kv/user:1", "").status, 200);
    assert_eq!(scoped("PUT /v1/kv/job%3A2", "1").status, 201);
    for request in [
        "GET /v1/kv/secret:1",
        "GET /v1/kv/secret:none",
        "GET /v1/kv/use",
        "PUT /v1/kv/secret:1",
        "DELETE /v1/kv/%73ecret:1",
        "GET /api/cluster/route/secret:1",
        "GET /kv/secret:1",
    ] {
        let answer = scoped(request, "2");
        assert_eq!(answer.status, 403, "{request}");
    }
    // Whether it is there makes no difference.
    let there = scoped("GET /v1/kv/secret:1", "");
    assert_eq!(there.body, scoped("GET /v1/kv/secret:none", "").body);
    let batch = r#"{"ops":[{"op":"put","key":"user:9","value":1},{"op":"get","key":"secret:1"}]}"#;
    assert_eq!(scoped("POST /v1/batch", batch).status, 403);
    assert_eq!(scoped("GET /v1/kv/user:9", "").status, 404);
    let keys = |answer: Answer| -> Vec<String> {
        let text = answer.text().to_owned();
        let mut keys: Vec<String> = ["user:1", "job:1", "job:2", "secret:1"]
            .into_iter()
            .filter(|key| text.contains(&format!("\"{key}\"")))
            .map(str::to_owned)
            .collect();
        keys.sort();
        keys
    };
    let seen = ["job:1", "job:2", "user:1"];
    assert_eq!(keys(scoped("GET /v1/keys?values=true", "")), seen);
    assert_eq!(
        keys(scoped("GET /v1/keys\nAccept: application/x-ndjson", "")),
        seen
    );
    assert_eq!(keys(scoped("GET /kv", "")), seen);
    assert!(keys(scoped("GET /v1/keys?prefix=secret", "")).is_empty());
}

#[test]
fn tokens_are_read_again_and_a_bad_file_changes_nothing() {
    let guarded = Guarded::start();
    let file = guarded.folder.path().join("auth.toml");
    let before = fs::read_to_string(&file).expect("a file");
    fs::write(&file, "[[token]]\nname = 3\n").expect("a file");
    guarded.server.hang_up();
    let (new, table) = token(&["--name", "new", "--role", "admin"]);
    let (old, expired) = token(&[
        "--name",
        "old",
        "--role",
        "admin",
        "--expires",
        "2020-01-01T00:00:00Z",
    ]);
    eventually("the bad file was seen", || {
        lines(&guarded.audit())
            .iter()
            .any(|line| line["event.action"] == "reload" && line["event.outcome"] == "failure")
    });
    assert_eq!(guarded.ask(&guarded.admin, "GET /v1/keys", "").status, 200);
    let without_reader = before.replace("\"reader\"", "\"other\"");
    fs::write(&file, format!("{without_reader}\n{table}\n{expired}")).expect("a file");
    guarded.server.hang_up();
    eventually("the new token is known", || {
        guarded.ask(&new, "GET /v1/keys", "").status == 200
    });
    assert_eq!(guarded.ask(&old, "GET /v1/keys", "").status, 401);
    fs::write(&file, &table).expect("a file");
    guarded.server.hang_up();
    eventually("the old tokens are gone", || {
        guarded.ask(&guarded.admin, "GET /v1/keys", "").status == 401
    });
}

#[test]
fn the_audit_log_tells_what_happened_and_proves_it() {
    let guarded = Guarded::start();
    let value = r#"{"pin":"hunter2"}"#;
    guarded.ask(&guarded.writer, "PUT /v1/kv/secret:1", value);
    guarded.ask("ikv_wrongtoken", "GET /v1/kv/secret:1?query=hunter3", "");
    guarded.ask(&guarded.scoped, "PUT /v1/kv/secret:1", value);
    guarded.ask(&guarded.admin, "POST /v1/admin/snapshot?mode=full", "");
    guarded.ask(&guarded.reader, "GET /v1/admin/config", "");
    let path = guarded.audit();
    let (admin, folder) = (guarded.admin.clone(), guarded.folder);
    assert!(guarded.server.terminate());
    let lines = lines(&path);
    let told: Vec<String> = lines
        .iter()
        .map(|line| {
            let text = |name: &str| line[name].as_str().unwrap_or("-").to_owned();
            assert!(line["@timestamp"].is_string() && line["chain.hash"].is_string());
            assert_eq!(line["source.ip"], "127.0.0.1");
            format!(
                "{} {} {} {} {}",
                text("event.action"),
                text("event.outcome"),
                text("user.name"),
                text("endpoint"),
                text("http.response.status_code")
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            "authentication failure - /v1/kv/{key} -",
            "authorization failure scoped /v1/kv/{key} -",
            "admin failure admin /v1/admin/snapshot 409",
            "authorization failure reader /v1/admin/config -",
        ]
    );
    let text = fs::read_to_string(&path).expect("a log");
    for secret in ["hunter2", "hunter3", "ikv_", &admin] {
        assert!(!text.contains(secret), "{secret}");
    }
    let shown = path.display().to_string();
    let sound = program(&["audit", "verify", &shown]);
    assert!(sound.status.success(), "{sound:?}");
    fs::write(&path, text.replacen("scoped", "writer", 1)).expect("a file");
    let changed = program(&["audit", "verify", &shown]);
    assert_eq!(changed.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&changed.stderr).contains("line 2 was changed"));
    drop(folder);
}

#[test]
fn the_client_sends_its_token() {
    let guarded = Guarded::start();
    let url = format!("http://{}", guarded.server.address);
    let file = guarded.folder.path().join("token");
    fs::write(&file, format!("{}\n", guarded.writer)).expect("a file");
    let file = file.display().to_string();
    let put = program(&["put", "--url", &url, "--token-file", &file, "a", "1"]);
    assert!(put.status.success(), "{put:?}");
    let get = Command::new(env!("CARGO_BIN_EXE_inflightkv"))
        .args(["get", "--url", &url, "a"])
        .env("INFLIGHTKV_TOKEN", &guarded.reader)
        .output()
        .expect("the program runs");
    assert_eq!(get.stdout.trim_ascii(), b"1");
    let without = program(&["get", "--url", &url, "a"]);
    assert_eq!(without.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&without.stderr).contains("token"));
}

/// With tokens an address that others can reach needs no override; the token file is part of the check.
#[test]
fn tokens_open_a_public_address() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("auth.toml");
    let (_, table) = token(&["--name", "a", "--role", "read"]);
    fs::write(&file, table).expect("a file");
    let file = file.display().to_string();
    let check = |auth: &str| {
        program(&[
            "serve",
            "--check-config",
            "--listen",
            "0.0.0.0:0",
            "--auth",
            auth,
        ])
        .status
        .code()
    };
    assert_eq!(check(&file), Some(0));
    assert_eq!(check("/nowhere/auth.toml"), Some(2));
}

/// As rotation does it: the file is moved away and the server told so.
#[test]
fn an_audit_log_that_was_moved_away_goes_on_in_a_new_file() {
    let guarded = Guarded::start();
    let (path, old) = (guarded.audit(), guarded.folder.path().join("audit.log.1"));
    guarded.ask("ikv_wrong", "GET /v1/kv/a", "");
    eventually("the refusal is written", || lines(&path).len() == 1);
    fs::rename(&path, &old).expect("it is moved");
    guarded.server.hang_up();
    eventually("the log goes on", || {
        path.exists() && fs::read_to_string(&path).is_ok_and(|text| text.contains("reload"))
    });
    guarded.ask("ikv_wrong", "GET /v1/kv/b", "");
    let Guarded { server, folder, .. } = guarded;
    assert!(server.terminate());
    let told: Vec<String> = lines(&path)
        .iter()
        .map(|line| line["event.action"].as_str().unwrap_or("-").to_owned())
        .collect();
    assert_eq!(told, ["audit-log", "reload", "authentication"]);
    let (path, old) = (path.display().to_string(), old.display().to_string());
    let whole = program(&["audit", "verify", &old, &path]);
    assert!(whole.status.success(), "{whole:?}");
    assert!(String::from_utf8_lossy(&whole.stdout).contains("4 lines, all sound"));
    let part = program(&["audit", "verify", &path]);
    assert!(String::from_utf8_lossy(&part.stdout).contains("the first is number 2"));
    assert_eq!(
        program(&["audit", "verify", &path, &old]).status.code(),
        Some(1)
    );
    drop(folder);
}
