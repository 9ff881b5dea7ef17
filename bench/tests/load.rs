//! The generator against the bare server and against servers that misbehave, as a person would run it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

const BENCH: &str = env!("CARGO_BIN_EXE_inflightkv-bench");

/// A bare server that ends with the test.
struct Bare {
    child: Child,
    address: String,
}

impl Bare {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(BENCH)
            .args(["bare", "--threads", "1"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program was built for this test");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("it says where it listens");
        let address = line
            .trim()
            .strip_prefix("listening on ")
            .expect("its line")
            .to_owned();
        Self { child, address }
    }

    fn pid(&self) -> String {
        self.child.id().to_string()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn load(address: &str, arguments: &[&str]) -> Output {
    Command::new(BENCH)
        .args(["load", "--json", "--address", address])
        .args(arguments)
        .output()
        .expect("the program was built for this test")
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// A server that gives every connection to `serve`, for as long as the test lives.
fn server(serve: fn(std::net::TcpStream)) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || listener.incoming().map_while(Result::ok).for_each(serve));
    address
}

#[test]
fn every_request_of_a_closed_loop_is_answered_and_counted() {
    let bare = Bare::start(&[]);
    for (mix, pipeline) in [("get", "1"), ("put", "1"), ("mixed", "16")] {
        let output = load(
            &bare.address,
            &[
                "--requests",
                "5000",
                "--mix",
                mix,
                "--pipeline",
                pipeline,
                "--pid",
                &bare.pid(),
            ],
        );
        let report = report(&output);
        assert!(output.status.success(), "{mix}: {report}");
        assert_eq!(report["requests"], 5000, "{mix}");
        assert_eq!(report["failures"], serde_json::json!({}));
        let latency = &report["latency_us"];
        assert!(
            latency["p50"].as_f64() <= latency["p99"].as_f64(),
            "{latency}"
        );
        assert!(
            report["server"]["cpu_us_per_request"].as_f64() > Some(0.5),
            "{report}"
        );
        assert!(
            report["server"]["resident_bytes"].as_u64() > Some(1 << 20),
            "{report}"
        );
    }
}

#[test]
fn an_open_loop_keeps_its_rate() {
    let bare = Bare::start(&[]);
    for arrivals in ["constant", "poisson"] {
        let output = load(
            &bare.address,
            &[
                "--rate",
                "2000",
                "--arrivals",
                arrivals,
                "--duration",
                "1s",
                "--fill",
            ],
        );
        let report = report(&output);
        let sent = report["requests"].as_u64().unwrap() + report["unsent"].as_u64().unwrap();
        assert!((1_700..2_300).contains(&sent), "{arrivals}: {report}");
    }
}

#[test]
fn values_of_a_wrong_length_are_failures() {
    let bare = Bare::start(&["--bytes", "99"]);
    let output = load(&bare.address, &["--requests", "10"]);
    assert!(!output.status.success());
    assert_eq!(report(&output)["failures"]["wrong length"], 10);
}

#[test]
fn large_bodies_arrive_in_pieces() {
    let bare = Bare::start(&["--bytes", "300000"]);
    let output = load(
        &bare.address,
        &[
            "--requests",
            "200",
            "--value-bytes",
            "300000",
            "--mix",
            "mixed",
        ],
    );
    assert!(output.status.success(), "{output:?}");
}

/// A server that stalls is charged for every request that was due meanwhile, not only for the few that it kept.
#[test]
fn an_open_loop_charges_a_stall_to_every_request_due_in_it() {
    let address = server(|mut stream| {
        let start = Instant::now();
        thread::spawn(move || {
            let mut request = [0; 4096];
            while let Ok(1..) = stream.read(&mut request) {
                if start.elapsed() < Duration::from_millis(500) {
                    thread::sleep(Duration::from_millis(500));
                }
                let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n");
            }
        });
    });
    let output = load(
        &address.to_string(),
        &[
            "--rate",
            "1000",
            "--connections",
            "1",
            "--duration",
            "1s",
            "--mix",
            "put",
        ],
    );
    let report = report(&output);
    assert!(report["requests"].as_u64() > Some(500), "{report}");
    assert!(report["late"].as_u64() > Some(300), "{report}");
    assert!(
        report["latency_us"]["mean"].as_f64() > Some(50_000.0),
        "{report}"
    );
}

#[test]
fn failures_are_counted_by_their_kind() {
    let refuses = server(|mut stream| {
        thread::spawn(move || {
            let mut request = [0; 4096];
            while let Ok(1..) = stream.read(&mut request) {
                let _ = stream
                    .write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
            }
        });
    });
    let closes = server(|mut stream| {
        let _ = stream.read(&mut [0; 4096]);
    });
    let babbles = server(|mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"hello\r\n\r\n");
    });
    let silent = server(|stream| {
        // Never dropped, so never closed.
        std::mem::forget(stream);
    });
    for (address, kind) in [
        (refuses, "status 503"),
        (closes, "closed by the server"),
        (babbles, "malformed answer: status line"),
        (silent, "timeout"),
    ] {
        let output = load(
            &address.to_string(),
            &[
                "--requests",
                "6",
                "--connections",
                "2",
                "--timeout",
                "200ms",
            ],
        );
        assert!(!output.status.success(), "{kind}");
        assert_eq!(report(&output)["failures"][kind], 6, "{kind}: {output:?}");
    }
}

#[test]
fn a_server_that_is_not_there_is_one_sentence() {
    let free = TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a port is free");
    let output = load(&free.to_string(), &["--requests", "1"]);
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        error.starts_with("inflightkv-bench: connecting to"),
        "{error}"
    );
}

#[test]
fn the_comparison_runs_with_what_is_there() {
    let output = Command::new(BENCH)
        .args([
            "compare",
            "--servers",
            "bare,redis",
            "--rounds",
            "1",
            "--round",
            "200ms",
            "--json",
        ])
        .args(["--keys", "100", "--connections", "4"])
        .output()
        .expect("the program was built for this test");
    assert!(output.status.success(), "{output:?}");
    let outcome = report(&output);
    for operation in outcome["operations"].as_array().expect("a list") {
        let servers = operation["servers"].as_array().expect("a list");
        assert_eq!(servers[0]["server"], "bare hyper");
        for server in servers {
            assert!(server["throughput"].as_f64() > Some(100.0), "{server}");
            assert!(server["cpu_us"].as_f64() > Some(0.5), "{server}");
            assert!(server["cpu_to_bare"].as_f64() > Some(0.05), "{server}");
        }
    }
}
