//! The time before a store is ready, made as long as a test needs it by a disk that does not answer.
#![cfg(feature = "cli")]

mod support;

use inflightkv_server::engine::{self, Disk, Persistence, Progress};
use inflightkv_server::http;
use inflightkv_server::runtime::server::{self, Observer, ServerOptions};
use inflightkv_wal::{SegmentFile, Storage};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use support::{Client, PATIENCE, Server, eventually};

/// The log's folder behind a gate.
struct Gated {
    folder: inflightkv_wal::Directory,
    gate: Arc<Gate>,
}

#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn open(&self) {
        *self.open.lock().expect("nobody panics with it") = true;
        self.opened.notify_all();
    }

    fn pass(&self) {
        let mut open = self.open.lock().expect("nobody panics with it");
        while !*open {
            open = self.opened.wait(open).expect("nobody panics with it");
        }
    }
}

impl Storage for Gated {
    fn list(&self) -> io::Result<Vec<String>> {
        self.gate.pass();
        self.folder.list()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn SegmentFile>> {
        self.folder.create(name)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn SegmentFile>> {
        self.folder.open(name)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.folder.remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.folder.rename(from, to)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.folder.sync_dir()
    }
}

/// Tells where the server listens, and that it has recovered.
struct Told {
    listening: Mutex<Sender<SocketAddr>>,
    recovered: Mutex<Sender<()>>,
}

impl Observer for Told {
    fn recovering(&self, _: &Progress) {}

    fn recovered(&self) {
        let _ = self
            .recovered
            .lock()
            .expect("nobody panics with it")
            .send(());
    }

    fn listening(&self, address: SocketAddr) {
        let _ = self
            .listening
            .lock()
            .expect("nobody panics with it")
            .send(address);
    }
}

/// A server in this process on `directory`, whose log cannot be listed before the gate is opened.
fn start(directory: &Path, gate: &Arc<Gate>) -> (SocketAddr, Receiver<()>) {
    let wal = Gated {
        folder: inflightkv_wal::Directory::open(directory.join(Disk::WAL)).expect("a log"),
        gate: gate.clone(),
    };
    let snapshots =
        inflightkv_snapshot::Directory::create(directory.join(Disk::SNAPSHOTS)).expect("a folder");
    let options = ServerOptions {
        prepare: None,
        listen: "127.0.0.1:0".parse().expect("an address"),
        engine: engine::Options {
            persistence: Some(Persistence::on(Disk::custom(
                Arc::new(wal),
                Arc::new(snapshots),
            ))),
            ..engine::Options::default()
        },
        http: http::Settings::default(),
    };
    let (listening, listens) = channel();
    let (recovered, recovers) = channel();
    let told: Arc<dyn Observer> = Arc::new(Told {
        listening: Mutex::new(listening),
        recovered: Mutex::new(recovered),
    });
    // It ends with this process.
    thread::spawn(move || server::run(options, &told));
    let address = listens
        .recv_timeout(PATIENCE)
        .expect("it listens although it has not recovered");
    (address, recovers)
}

#[test]
fn nothing_is_said_about_keys_before_the_store_is_ready() {
    let directory = tempfile::tempdir().expect("a folder");
    let server = Server::start(&["--data-dir", directory.path().to_str().expect("UTF-8")]);
    assert_eq!(server.ask("PUT /v1/kv/a", "1").status, 201);
    assert!(server.terminate());

    let gate = Arc::new(Gate::default());
    let (address, recovered) = start(directory.path(), &gate);
    let ask = |request: &str, body: &str| Client::connect(address).ask(request, body);
    for request in [
        "GET /v1/kv/a",
        "HEAD /v1/kv/a",
        "PUT /v1/kv/a",
        "PATCH /v1/kv/a",
        "DELETE /v1/kv/a",
        "GET /v1/kv/none",
        "PUT /v1/kv/a?nonsense=1",
        "PUT /v1/kv/%zz",
        "PUT /v1/kv/__a",
        "GET /v1/keys",
        "GET /v1/keys?limit=x",
        "GET /v1/keys\nAccept: application/x-ndjson",
        "POST /v1/batch",
        "GET /v1/admin/stats",
        "GET /v1/admin/snapshots",
        "POST /v1/admin/snapshot",
        "GET /v1/admin/config",
        "GET /kv/a",
        "HEAD /kv/a",
        "PUT /kv/a",
        "PATCH /kv/a",
        "DELETE /kv/a",
        "PUT /kv/a?ifVersion=abc",
        "GET /kv",
    ] {
        for body in ["2", "not JSON"] {
            let answer = ask(request, if request.starts_with('P') { body } else { "" });
            assert_eq!(answer.status, 503, "{request}: {answer:?}");
            assert!(
                answer.field("retry-after").is_some(),
                "{request}: {answer:?}"
            );
            if request.starts_with("HEAD") {
                continue;
            }
            let document = answer.json();
            let code = if request.contains(" /kv") {
                &document["error"]["errorCode"]
            } else {
                &document["code"]
            };
            assert_eq!(code, "NOT_READY", "{request}: {answer:?}");
        }
    }
    assert_eq!(ask("GET /health/live", "").status, 200);
    assert_eq!(ask("GET /openapi.json", "").status, 200);
    assert_eq!(ask("GET /nowhere", "").status, 404);
    assert_eq!(ask("GET /api/cluster/route/a", "").status, 200);
    let actuator = ask("GET /actuator/health", "");
    assert_eq!(
        (actuator.status, actuator.text()),
        (503, r#"{"status":"DOWN"}"#)
    );
    let ready = ask("GET /health/ready", "");
    assert_eq!(
        (ready.status, ready.json()["status"].as_str()),
        (503, Some("DOWN"))
    );
    assert!(
        ready.json()["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("recovering")),
        "{ready:?}"
    );
    let startup = ask("GET /health/startup", "");
    assert_eq!(
        (startup.status, startup.json()["status"].as_str()),
        (503, Some("STARTING"))
    );
    assert!(
        startup.json()["doneBytes"].is_u64() && startup.json()["phase"].is_string(),
        "{startup:?}"
    );

    gate.open();
    recovered.recv_timeout(PATIENCE).expect("it recovers");
    eventually("it is ready", || ask("GET /health/ready", "").status == 200);
    assert_eq!(ask("GET /health/startup", "").status, 200);
    assert_eq!(ask("GET /actuator/health", "").text(), r#"{"status":"UP"}"#);
    assert_eq!(
        ask("GET /v1/kv/a", "").text(),
        "1",
        "nothing was changed meanwhile"
    );
    assert_eq!(ask("PUT /v1/kv/a", "3").status, 204);
}
