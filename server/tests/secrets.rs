//! No value, token or query string is in any log: marked secrets go everywhere that something can be sent to, everything
//! that a run writes down is read, and none of them is there.
#![cfg(feature = "cli")]

mod support;

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use support::{Server, eventually};

/// What every secret holds.
const MARK: &str = "S3CRETMARK";
const TOKEN: &str = "ikv_S3CRETMARK-of-the-admin-0123456789abcdefghijk";

fn token_file(folder: &Path) -> String {
    use sha2::Digest;
    let digest = sha2::Sha256::digest(TOKEN.as_bytes());
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let scoped = sha2::Sha256::digest(format!("{TOKEN}-scoped").as_bytes());
    let scoped: String = scoped.iter().map(|byte| format!("{byte:02x}")).collect();
    let file = folder.join("auth.toml");
    let text = format!(
        "[[token]]\nname = \"admin\"\nsha256 = \"{digest}\"\nrole = \"admin\"\n\
         [[token]]\nname = \"scoped\"\nsha256 = \"{scoped}\"\nrole = \"write\"\nprefixes = [\"mine/\"]\n"
    );
    fs::write(&file, text).expect("a file");
    file.display().to_string()
}

fn rule_file(folder: &Path) -> String {
    let file = folder.join("rules.toml");
    let text = "[[rule]]\nname = \"small\"\nprefix = \"small/\"\nvalue-json-type = \"number\"\nvalue-deny = [{ pointer = \"/x\" }]\n\
                [[rule]]\nname = \"schema\"\nprefix = \"schema/\"\nvalue-schema = '{\"type\":\"object\",\"required\":[\"id\"],\"additionalProperties\":false}'\n\
                [[rule]]\nname = \"trial\"\nmode = \"report-only\"\nvalue-max-size = 4\n";
    fs::write(&file, text).expect("a file");
    file.display().to_string()
}

/// Sends bytes as they are, and hears whatever is said.
fn raw(server: &Server, bytes: &[u8]) {
    let mut stream = TcpStream::connect(server.address).expect("the server accepts");
    // It may hang up in the middle of what it does not take.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let _ = std::io::copy(&mut stream, &mut std::io::sink());
}

fn send_everything(server: &Server) {
    let ask = |token: &str, request: &str, body: &str| {
        let mut lines = request.lines();
        let first = lines.next().expect("a request");
        let rest: String = lines.map(|line| format!("\n{line}")).collect();
        let request = format!("{first}\nAuthorization: Bearer {token}{rest}");
        server.ask(&request, body).status
    };
    let admin = |request: &str, body: &str| ask(TOKEN, request, body);
    let value = format!(r#"{{"{MARK}-name":"{MARK}-value"}}"#);
    let text = format!("\"{MARK}\"");
    // Values that are taken, changed, read and removed, on both surfaces and in batches.
    assert_eq!(admin("PUT /v1/kv/a", &value), 201);
    assert_eq!(admin("PATCH /v1/kv/a", &value), 204);
    let patch = format!(
        r#"[{{"op":"test","path":"/{MARK}","value":"{MARK}"}},{{"op":"add","path":"/{MARK}/x","value":1}}]"#
    );
    let json_patch = "PATCH /v1/kv/a\nContent-Type: application/json-patch+json";
    assert_eq!(admin(json_patch, &patch), 409);
    let opaque = format!("PUT /v1/kv/b\nContent-Type: text/x-{MARK}");
    assert_eq!(admin(&opaque, &value), 201);
    for request in ["GET /v1/kv/a", "GET /kv/a", "GET /v1/keys?values=true"] {
        assert_eq!(admin(request, ""), 200);
    }
    assert_eq!(admin("PUT /kv/c", &value), 200);
    assert_eq!(admin("DELETE /kv/c", ""), 200);
    let batch = format!(
        r#"{{"ops":[{{"op":"put","key":"d","value":{value}}},{{"op":"get","key":"a"}},{{"op":"patch","key":"d","value":{value}}}]}}"#
    );
    assert_eq!(admin("POST /v1/batch", &batch), 200);
    // Values, bodies and queries that are refused.
    for (request, body, status) in [
        ("PUT /v1/kv/small/a", &*value, 422),
        ("PUT /v1/kv/small/b", &*text, 422),
        ("PUT /v1/kv/schema/a", &*value, 422),
        ("PUT /kv/schema/a", &*value, 400),
        ("PUT /v1/kv/e", "{\"S3CRETMARK\"", 400),
        (
            "PUT /v1/kv/e\nContent-Digest: sha-256=:UzNDUkVUTUFSSw==:",
            &*value,
            400,
        ),
        ("PUT /v1/kv/e?S3CRETMARK=1", "1", 400),
        ("PUT /v1/kv/e?ttl=S3CRETMARK", "1", 400),
        ("PUT /v1/kv/e?ifVersion=S3CRETMARK", "1", 400),
        ("GET /v1/keys?cursor=S3CRETMARK", "", 400),
        ("GET /v1/keys?prefix=S3CRETMARK", "", 200),
        ("GET /nowhere?S3CRETMARK", "", 404),
        ("PUT /v1/kv/e\nIf-None-Match: S3CRETMARK", "1", 400),
        ("POST /v1/batch", "{\"ops\":[{\"op\":\"S3CRETMARK\"}]}", 400),
        ("POST /v1/admin/snapshot?mode=S3CRETMARK", "", 400),
        (
            "PATCH /v1/admin/config",
            "{\"S3CRETMARK\":\"S3CRETMARK\"}",
            400,
        ),
        (
            "PATCH /v1/admin/config",
            "{\"eviction\":\"S3CRETMARK\"}",
            400,
        ),
        ("POST /v1/admin/restore?mode=S3CRETMARK", &*value, 400),
        ("POST /v1/admin/restore?mode=merge", &*value, 400),
        ("POST /v1/admin/persistence?state=S3CRETMARK", "", 400),
        ("GET /v1/watch?from=S3CRETMARK", "", 400),
        ("GET /v1/kv/a\ntraceparent: S3CRETMARK", "", 200),
        ("POST /v1/admin/verify", "", 200),
        ("POST /v1/admin/snapshot?wait=true", "", 200),
        ("GET /v1/admin/backup", "", 200),
    ] {
        assert_eq!(admin(request, body), status, "{request} {body}");
    }
    // Tokens that are none, and one that reaches beyond its scope.
    for token in ["S3CRETMARK", "ikv_S3CRETMARK", "S3CRETMARK, S3CRETMARK"] {
        assert_eq!(ask(token, "GET /v1/kv/a?S3CRETMARK=1", ""), 401);
    }
    let scoped = format!("{TOKEN}-scoped");
    assert_eq!(ask(&scoped, "PUT /v1/kv/a?ttl=1s", &value), 403);
    assert_eq!(ask(&scoped, "POST /v1/batch", &batch), 403);
    assert_eq!(
        server
            .ask("GET /v1/kv/a\nAuthorization: Basic UzNDUkVUTUFSSw==", "")
            .status,
        401
    );
    // What is no request at all.
    let long = format!(
        "GET /v1/kv/a?{} HTTP/1.1\r\nHost: a\r\n\r\n",
        MARK.repeat(20_000)
    );
    for bytes in [
        &b"S3CRETMARK\r\n\r\n"[..],
        b"GET /v1/kv/a?S3CRETMARK HTTP/9.9\r\n\r\n",
        b"GET /v1/kv/%ffS3CRETMARK HTTP/1.1\r\nHost: a\r\nS3CRETMARK : S3CRETMARK\r\n\r\n",
        b"PUT /v1/kv/e HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n\"S3CRETMARK",
        b"PUT /v1/kv/e HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nS3CRETMARK",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nS3CRETMARK S3CRETMARK S3CRETMARK",
        long.as_bytes(),
    ] {
        raw(server, bytes);
    }
}

/// Every file below `folder` that is not the store's data.
fn written(folder: &Path, out: &mut String) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            if !path.ends_with("data") {
                written(&path, out);
            }
            continue;
        }
        let bytes = fs::read(&path).expect("a file");
        out.push_str(&format!("\n== {}\n", path.display()));
        out.push_str(&String::from_utf8_lossy(&bytes));
    }
}

fn nothing_is_told(format: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (auth, rules) = (token_file(folder.path()), rule_file(folder.path()));
    let (data, audit) = (at("data"), at("audit.log"));
    let (server, logs) = Server::start_logging(&[
        "--data-dir",
        &data,
        "--audit-log",
        &audit,
        "--auth",
        &auth,
        "--validation",
        &rules,
        "--log-level",
        "trace",
        "--log-format",
        format,
        "--log-requests",
        "on",
        "--log-keys",
        "plain",
        "--slow-op",
        "1ms",
    ]);
    send_everything(&server);
    // Files with mistakes are told of by place, not by what stands there.
    let good = fs::read_to_string(&auth).expect("a file");
    let reloads = || {
        let text = fs::read_to_string(&audit).expect("an audit log");
        text.matches("\"event.action\":\"reload\"").count()
    };
    let seen = reloads();
    for (number, mistake) in [
        format!("[[token]]\nname = \"x\"\nsha256 = \"{TOKEN}\"\nrole = \"read\"\n"),
        format!("[[token]]\nname = \"x\"\nrole = {TOKEN}\n"),
    ]
    .iter()
    .enumerate()
    {
        fs::write(&auth, mistake).expect("a file");
        server.hang_up();
        eventually("the file was read again", || reloads() > seen + number);
    }
    fs::write(&auth, good).expect("a file");
    // The client that the program is knows secrets too.
    let url = format!("http://{}", server.address);
    let output = Command::new(env!("CARGO_BIN_EXE_inflightkv"))
        .args([
            "put",
            "--url",
            &url,
            "small/x",
            &format!("\"{MARK}-of-the-client\""),
        ])
        .env("INFLIGHTKV_TOKEN", TOKEN)
        .output()
        .expect("the program runs");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(server.terminate());
    fs::remove_file(&auth).expect("it is there");
    let mut text = logs.read();
    assert!(
        text.matches("small/a").count() > 0,
        "keys were asked for:\n{text}"
    );
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    written(folder.path(), &mut text);
    assert!(
        text.contains("\"event.action\":\"authentication\""),
        "{text}"
    );
    let told: Vec<&str> = text.lines().filter(|line| line.contains(MARK)).collect();
    assert!(told.is_empty(), "{told:#?}");
}

#[test]
fn no_secret_is_in_logs_for_people() {
    nothing_is_told("pretty");
}

#[test]
fn no_secret_is_in_logs_as_json() {
    nothing_is_told("json");
}

#[test]
fn no_secret_is_in_logs_by_the_common_schema() {
    nothing_is_told("ecs");
}
