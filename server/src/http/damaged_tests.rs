//! A damaged value, met over real connections in every way there is: 500 with its code, not a byte of the value, an
//! audit event and a counter each; and nothing of it on disk.

use super::Settings;
use crate::engine::{Damaged, Disk, Engine, OnDamage, Options, Persistence};
use crate::runtime::{Shutdown, event_loop};
use crate::trust::{Access, Audit};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

const MARK: &str = "n0t-to-be-seen";

struct Running {
    engine: Engine,
    address: SocketAddr,
    shutdown: Shutdown,
    thread: JoinHandle<std::io::Result<()>>,
    audit: Audit,
    folder: tempfile::TempDir,
}

impl Running {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let audit = Audit::open(&folder.path().join("audit.log")).expect("an audit log");
        let witness = audit.clone();
        let disk = Disk::open(&folder.path().join("data")).expect("a data directory");
        let engine = Engine::open(Options {
            on_damage: Some(OnDamage::new(move |damaged, by| match damaged {
                Damaged::Value(key) => witness.damaged(key, by.name()),
                Damaged::File(place) => witness.damaged_file(place, by.name()),
            })),
            persistence: Some(Persistence::on(disk)),
            ..Options::default()
        })
        .expect("a store");
        engine.recover().expect("there is nothing to load");
        engine.start_threads().expect("threads");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a listener");
        let address = listener.local_addr().expect("an address");
        let settings = Settings {
            access: Arc::new(Access::new(Some(audit.clone()))),
            ..Settings::default()
        }
        .listening_on(address);
        let shutdown = Shutdown::default();
        let (store, end) = (engine.clone(), shutdown.clone());
        let thread =
            thread::spawn(move || event_loop::turn(0, &store, listener, settings, end, None));
        Self {
            engine,
            address,
            shutdown,
            thread,
            audit,
            folder,
        }
    }

    /// Status and the rest of an answer; whatever of it came before it was cut off.
    fn ask(&self, request: &str, body: &str) -> (u16, String) {
        let (first, fields) = request.split_once('\n').unwrap_or((request, ""));
        let fields: String = fields.lines().map(|line| format!("{line}\r\n")).collect();
        let mut stream = TcpStream::connect(self.address).expect("the server accepts");
        let patience = Some(Duration::from_secs(30));
        stream.set_read_timeout(patience).expect("a timeout");
        let length = body.len();
        write!(
            stream,
            "{first} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n{fields}\r\n{body}"
        )
        .expect("it is taken");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer");
        let text = String::from_utf8_lossy(&answer).into_owned();
        let status = text.split(' ').nth(1).expect("a status");
        (status.parse().expect("a number"), text)
    }

    fn stop(self) -> tempfile::TempDir {
        self.shutdown.request();
        let ended = self.thread.join().expect("the loop ends");
        ended.expect("the loop ends well");
        self.engine.close().expect("the store closes");
        self.audit.close();
        self.folder
    }
}

/// Snapshots that stand.
fn manifests(folder: &Path) -> usize {
    let files = std::fs::read_dir(folder).expect("a folder");
    files
        .map(|file| file.expect("a file").path())
        .map(|path| {
            if path.is_dir() {
                return manifests(&path);
            }
            let name = path.display().to_string();
            usize::from(name.ends_with(".manifest"))
        })
        .sum()
}

fn met_in_every_way(value: &str) {
    let running = Running::start();
    running.engine.plant_damage("bad", value.as_bytes());
    let v1 = "VALUE_DAMAGED";
    let old = "INTERNAL_ERROR";
    let get = r#"{"ops":[{"op":"get","key":"bad"}]}"#;
    let patch = r#"{"ops":[{"op":"patch","key":"bad","value":{}}]}"#;
    let lines = "GET /v1/keys?values=true\nAccept: application/x-ndjson";
    for (request, body, status, code) in [
        ("GET /v1/kv/bad", "", 500, v1),
        ("GET /v1/kv/bad\nAccept-Encoding: zstd", "", 500, v1),
        ("GET /kv/bad", "", 500, old),
        ("PATCH /v1/kv/bad", "{}", 500, v1),
        ("PATCH /kv/bad", "{}", 500, old),
        ("DELETE /kv/bad", "", 500, old),
        ("POST /v1/batch", get, 200, v1),
        ("POST /v1/batch", patch, 200, v1),
        ("GET /v1/keys?values=true", "", 500, v1),
        (lines, "", 500, v1),
        ("POST /v1/admin/snapshot?wait=true", "", 500, v1),
    ] {
        let (found, text) = running.ask(request, body);
        assert_eq!(found, status, "{request}: {text}");
        assert!(text.contains(code), "{request}: {text}");
        assert!(!text.contains(MARK), "{request}: {text}");
    }
    let (status, report) = running.ask("POST /v1/admin/verify", "");
    assert!(
        status == 200 && report.contains("\"damaged\":1"),
        "{report}"
    );
    let (_, backup) = running.ask("GET /v1/admin/backup", "");
    assert!(
        backup.contains("IFKVBKUP") && !backup.contains("IFKVBEND"),
        "{backup}"
    );
    assert!(!backup.contains(MARK));
    let met = [
        ("read", 3),
        ("batch", 1),
        ("listing", 2),
        ("patch", 3),
        ("delete", 1),
        ("snapshot", 1),
        ("backup", 1),
        ("verify", 1),
    ];
    let (_, metrics) = running.ask("GET /metrics", "");
    for (by, count) in met {
        let line = format!("inflightkv_damaged_values_total{{found_by=\"{by}\"}} {count}");
        assert!(metrics.contains(&line), "{line}\n{metrics}");
    }
    // The way out.
    assert_eq!(running.ask("DELETE /v1/kv/bad", "").0, 204);
    let (status, text) = running.ask("POST /v1/admin/snapshot?wait=true", "");
    assert_eq!(status, 200, "{text}");
    let folder = running.stop();
    assert_eq!(manifests(folder.path()), 1);
    let audit = std::fs::read_to_string(folder.path().join("audit.log")).expect("an audit log");
    let integrity = audit.lines().filter(|line| line.contains("\"integrity\""));
    assert_eq!(
        integrity.clone().count(),
        met.iter().map(|(_, count)| count).sum::<usize>()
    );
    for (by, count) in met {
        let found = format!("\"found_by\":\"{by}\"");
        let told = integrity.clone().filter(|line| line.contains(&found));
        assert_eq!(told.count(), count, "{by}");
    }
    assert!(
        integrity
            .clone()
            .all(|line| line.contains("\"key\":\"bad\""))
    );
    assert!(!audit.contains(MARK));
}

#[test]
fn a_small_damaged_value_is_refused_everywhere() {
    met_in_every_way(&format!("{{\"a\":\"{MARK}\"}}"));
}

#[test]
fn a_large_damaged_value_is_refused_everywhere() {
    met_in_every_way(&format!("[\"{MARK}\",\"{}\"]", "x".repeat(100_000)));
}
