//! Other people's servers: how each is started on a free port of this machine, with its data in a folder of ours.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::cli::ServerName;
use crate::environment;
use crate::error::Error;
use crate::process::Process;
use crate::servers::{Launcher, PATIENCE, POLL, PORT_ATTEMPTS, Server, free_port};

const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

impl Launcher<'_> {
    /// memcached, with as many threads as the others have event loops.
    pub(crate) fn memcached(&self) -> Result<Server, Error> {
        retried(|| {
            let address = free_address()?;
            let mut command = Command::new("memcached");
            command.args(["-l", "127.0.0.1", "-p", &address.port().to_string()]);
            command.args([
                "-m",
                "4096",
                "-c",
                "12000",
                "-t",
                &self.threads().to_string(),
            ]);
            // It will not run for root without being told as whom.
            command.args(["-u", "root"]);
            let process = self.process(ServerName::Memcached, &mut command)?;
            wait(&process, address, b"version\r\n", b"VERSION")?;
            Ok(Server::ready(ServerName::Memcached, process, address))
        })
    }

    /// webdis, and a redis-server of its own behind it.
    pub(super) fn webdis(&self, data_dir: &Path) -> Result<Server, Error> {
        let redis = self.redis(data_dir, &[])?;
        let server = retried(|| {
            let address = free_address()?;
            let settings = serde_json::json!({
                "redis_host": "127.0.0.1",
                "redis_port": redis.address.port(),
                "http_host": "127.0.0.1",
                "http_port": address.port(),
                "threads": self.threads(),
                "pool_size": 20,
                "http_max_request_size": 128 << 20,
                "daemonize": false,
                "websockets": false,
                "database": 0,
                "acl": [{ "disabled": [] }],
                "verbosity": 0,
                "logfile": self.folder.join("webdis.txt"),
            });
            let file = self.folder.join("webdis.json");
            std::fs::write(&file, settings.to_string())
                .map_err(Error::io(format!("writing {}", file.display())))?;
            let mut command = Command::new("webdis");
            command.arg(&file);
            let process = self.process(ServerName::Webdis, &mut command)?;
            let ping = b"GET /PING HTTP/1.1\r\nHost: x\r\n\r\n";
            wait(&process, address, ping, b"HTTP/1.1 200")?;
            Ok(Server::ready(ServerName::Webdis, process, address))
        })?;
        Ok(server.with_another(redis))
    }

    /// etcd as a cluster of one; it syncs every write to disk and cannot be told not to.
    pub(super) fn etcd(&self, data_dir: &Path) -> Result<Server, Error> {
        retried(|| {
            let (address, peer) = (free_address()?, free_address()?);
            let (url, peer) = (format!("http://{address}"), format!("http://{peer}"));
            let mut command = Command::new("etcd");
            command.args(["--name", "one", "--data-dir"]).arg(data_dir);
            command.args([
                "--listen-client-urls",
                &url,
                "--advertise-client-urls",
                &url,
            ]);
            command.args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ]);
            command.args([
                "--initial-cluster",
                &format!("one={peer}"),
                "--log-level",
                "error",
            ]);
            let process = self.process(ServerName::Etcd, &mut command)?;
            let health = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n";
            wait(&process, address, health, b"HTTP/1.1 200")?;
            Ok(Server::ready(ServerName::Etcd, process, address))
        })
    }

    fn process(&self, name: ServerName, command: &mut Command) -> Result<Process, Error> {
        let log = self.folder.join(format!("{}.log", name.as_str()));
        Process::start_quiet(name.as_str(), command, &log)
    }

    fn threads(&self) -> usize {
        self.subjects
            .server_threads
            .map_or_else(environment::cores, usize::from)
    }
}

/// Tries again with another port where the one found free was taken meanwhile.
fn retried(start: impl Fn() -> Result<Server, Error>) -> Result<Server, Error> {
    let mut attempt = 1;
    loop {
        match start() {
            Err(Error::Ended { .. }) if attempt < PORT_ATTEMPTS => attempt += 1,
            result => return result,
        }
    }
}

fn free_address() -> Result<SocketAddr, Error> {
    Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?)))
}

/// Asks until the answer begins as it should.
fn wait(process: &Process, address: SocketAddr, ask: &[u8], expected: &[u8]) -> Result<(), Error> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answered = probe(address, ask, expected.len());
        process.check_alive()?;
        if answered.is_ok_and(|answer| answer == expected) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(process.not_ready(PATIENCE));
        }
        thread::sleep(POLL);
    }
}

fn probe(address: SocketAddr, ask: &[u8], len: usize) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, PROBE_TIMEOUT)?;
    stream.set_read_timeout(Some(PROBE_TIMEOUT))?;
    stream.write_all(ask)?;
    let mut answer = vec![0; len];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}
