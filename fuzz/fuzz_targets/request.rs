//! Whatever a client sends on a connection: afterwards the server answers the next client.
#![no_main]

use inflightkv_server::engine::{self, Progress};
use inflightkv_server::http;
use inflightkv_server::runtime::server::{self, Observer, ServerOptions};
use libfuzzer_sys::fuzz_target;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

struct Announce(Mutex<Sender<SocketAddr>>);

impl Observer for Announce {
    fn recovering(&self, _: &Progress) {}

    fn recovered(&self) {}

    fn listening(&self, address: SocketAddr) {
        let _ = self.0.lock().expect("one thread announces").send(address);
    }
}

fn address() -> SocketAddr {
    static ADDRESS: OnceLock<SocketAddr> = OnceLock::new();
    *ADDRESS.get_or_init(|| {
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            let options = ServerOptions {
                listen: SocketAddr::from(([127, 0, 0, 1], 0)),
                engine: engine::Options::default(),
                prepare: None,
                http: http::Settings {
                    header_timeout: Duration::from_millis(200),
                    body_timeout: Duration::from_millis(200),
                    ..http::Settings::default()
                },
            };
            let observer: Arc<dyn Observer> = Arc::new(Announce(Mutex::new(sender)));
            server::run(options, &observer).expect("the server runs");
        });
        receiver.recv().expect("an address")
    })
}

fn exchange(bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address()).expect("the server accepts");
    let patience = Some(Duration::from_secs(5));
    stream.set_read_timeout(patience).expect("a timeout");
    // It may be closed in the middle of what it does not take.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

fuzz_target!(|input: &[u8]| {
    exchange(input);
    let answer = exchange(b"GET /health/live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(
        answer.starts_with(b"HTTP/1.1 200"),
        "the server does not answer"
    );
});
