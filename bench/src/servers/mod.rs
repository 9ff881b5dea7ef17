//! The servers that are compared: how each is started, and how it is known to be ready.

mod peers;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::cli::{Persistence, ServerName, Subjects};
use crate::client::Client;
use crate::error::Error;
use crate::process::Process;
use crate::protocol::Protocol;
use crate::protocol::http::{Dialect, NATIVE_PATH, Requests};

/// Recovery of a large store included.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(1);
const REDIS: &str = "redis-server";
/// Another program may take a port between its being found free and being bound.
const PORT_ATTEMPTS: usize = 3;

impl ServerName {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Inflightkv => "inflightkv",
            Self::Bare => "bare hyper",
            Self::Queues => "queues",
            Self::Redis => "redis",
            Self::Memcached => "memcached",
            Self::Webdis => "webdis",
            Self::Etcd => "etcd",
        }
    }

    pub(crate) fn protocol(self, address: SocketAddr) -> Protocol {
        match self {
            Self::Inflightkv | Self::Bare | Self::Queues => {
                let dialect = Dialect::Path(NATIVE_PATH.to_owned());
                Protocol::Http(Requests::new(dialect, address))
            }
            Self::Webdis => Protocol::Http(Requests::new(Dialect::Webdis, address)),
            Self::Etcd => Protocol::Http(Requests::new(Dialect::Etcd, address)),
            Self::Redis => Protocol::Redis,
            Self::Memcached => Protocol::Memcached,
        }
    }

    /// The program of a peer, and how it is installed where it is missing.
    fn program(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Inflightkv | Self::Bare | Self::Queues => None,
            Self::Redis => Some((
                REDIS,
                "`apt-get install redis-server`, `dnf install redis` or `brew install redis`",
            )),
            Self::Memcached => Some((
                "memcached",
                "`apt-get install memcached`, `dnf install memcached` or `brew install memcached`",
            )),
            Self::Webdis => Some((
                "webdis",
                "`apt-get install webdis redis-server`, or build it from its sources",
            )),
            Self::Etcd => Some((
                "etcd",
                "`apt-get install etcd-server`, `dnf install etcd` or `brew install etcd`",
            )),
        }
    }
}

/// A server that answers.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) name: ServerName,
    pub(crate) address: SocketAddr,
    /// From the start of the process to the first sign of readiness.
    pub(crate) ready_after: Duration,
    process: Process,
    /// What it needs beside it; measured with it, and ended after it.
    other: Option<Box<Server>>,
}

impl Server {
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// All processes that do its work.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let other = self.other.iter().map(|other| other.pid());
        std::iter::once(self.pid()).chain(other).collect()
    }

    fn with_another(self, other: Server) -> Self {
        Self {
            other: Some(Box::new(other)),
            ..self
        }
    }

    pub(crate) fn connect(&self) -> Result<Client, Error> {
        Client::connect(self.name.as_str(), self.address)
    }

    /// Ends it at once, as a crash would (SIGKILL).
    pub(crate) fn kill(self) {
        drop(self);
    }

    /// Ends it in order; how long that took.
    pub(crate) fn stop(self) -> Result<Duration, Error> {
        let took = self.process.stop()?;
        match self.other {
            Some(other) => Ok(took + other.stop()?),
            None => Ok(took),
        }
    }

    fn ready(name: ServerName, process: Process, address: SocketAddr) -> Self {
        let ready_after = process.started.elapsed();
        Self {
            name,
            address,
            ready_after,
            process,
            other: None,
        }
    }
}

/// Where the servers' programs are and what all of them are told.
#[derive(Debug)]
pub(crate) struct Launcher<'a> {
    subjects: &'a Subjects,
    inflightkv: PathBuf,
    /// Folder for logs; data directories are named by the caller.
    folder: &'a Path,
}

impl<'a> Launcher<'a> {
    pub(crate) fn new(subjects: &'a Subjects, folder: &'a Path) -> Result<Self, Error> {
        let inflightkv = match &subjects.server {
            Some(path) => path.clone(),
            None => own_program()?.with_file_name("inflightkv"),
        };
        Ok(Self {
            subjects,
            inflightkv,
            folder,
        })
    }

    /// Where the servers' logs are.
    pub(crate) fn folder(&self) -> &Path {
        self.folder
    }

    pub(crate) fn start(
        &self,
        name: ServerName,
        data_dir: &Path,
        persistence: Persistence,
        bytes: usize,
        pipelined: bool,
    ) -> Result<Server, Error> {
        match name {
            ServerName::Inflightkv => {
                let always = match persistence {
                    Persistence::Off => return self.inflightkv(None, &[]),
                    Persistence::Interval => "interval",
                    Persistence::Always => "always",
                };
                self.inflightkv(Some(data_dir), &["--wal-sync", always])
            }
            ServerName::Bare => self.bare(bytes, pipelined),
            ServerName::Redis => {
                let append: &[&str] = match persistence {
                    Persistence::Off => &[],
                    Persistence::Interval => &["--appendonly", "yes", "--appendfsync", "everysec"],
                    Persistence::Always => &["--appendonly", "yes", "--appendfsync", "always"],
                };
                self.redis(data_dir, append)
            }
            ServerName::Queues => self.queues(),
            ServerName::Memcached => self.memcached(),
            ServerName::Webdis => self.webdis(data_dir),
            ServerName::Etcd => self.etcd(data_dir),
        }
    }

    /// InFlightKv, ready: recovered and accepting writes.
    pub(crate) fn inflightkv(
        &self,
        data_dir: Option<&Path>,
        arguments: &[&str],
    ) -> Result<Server, Error> {
        if !self.inflightkv.is_file() {
            return Err(Error::NoServer {
                program: self.inflightkv.clone(),
            });
        }
        let mut command = Command::new(&self.inflightkv);
        command.args(["serve", "--listen", "127.0.0.1:0", "--log-format", "json"]);
        self.add_threads(&mut command);
        if let Some(data_dir) = data_dir {
            command.arg("--data-dir").arg(data_dir);
        }
        command.args(arguments).args(&self.subjects.server_args);
        let name = ServerName::Inflightkv;
        let log = self.folder.join("inflightkv.log");
        let (process, address) =
            Process::start_listening(name.as_str(), &mut command, &log, PATIENCE)?;
        // It listens while it recovers, to say so.
        let deadline = Instant::now() + PATIENCE;
        let mut client = Client::connect(name.as_str(), address)?;
        while client
            .http("GET", "/health/ready", "application/json", b"")?
            .0
            != 200
        {
            process.check_alive()?;
            if Instant::now() >= deadline {
                return Err(process.not_ready(PATIENCE));
            }
            thread::sleep(POLL);
        }
        Ok(Server::ready(name, process, address))
    }

    fn bare(&self, bytes: usize, pipelined: bool) -> Result<Server, Error> {
        let mut command = Command::new(own_program()?);
        command.args([
            "bare",
            "--listen",
            "127.0.0.1:0",
            "--bytes",
            &bytes.to_string(),
        ]);
        if pipelined {
            command.arg("--pipeline-flush");
        }
        self.add_threads(&mut command);
        let name = ServerName::Bare;
        let log = self.folder.join("bare.log");
        let (process, address) =
            Process::start_listening(name.as_str(), &mut command, &log, PATIENCE)?;
        Ok(Server::ready(name, process, address))
    }

    fn queues(&self) -> Result<Server, Error> {
        let mut command = Command::new(own_program()?);
        command.arg("queues");
        self.add_threads(&mut command);
        let name = ServerName::Queues;
        let log = self.folder.join("queues.log");
        let (process, address) =
            Process::start_listening(name.as_str(), &mut command, &log, PATIENCE)?;
        Ok(Server::ready(name, process, address))
    }

    /// Redis, ready: it answers PING, which it refuses while it loads. It saves nothing by itself unless `arguments`
    /// say so.
    pub(crate) fn redis(&self, data_dir: &Path, arguments: &[&str]) -> Result<Server, Error> {
        let mut attempt = 1;
        loop {
            match self.redis_once(data_dir, arguments) {
                Err(Error::Ended { .. }) if attempt < PORT_ATTEMPTS => attempt += 1,
                result => return result,
            }
        }
    }

    fn redis_once(&self, data_dir: &Path, arguments: &[&str]) -> Result<Server, Error> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        std::fs::create_dir_all(data_dir)
            .map_err(Error::io(format!("creating {}", data_dir.display())))?;
        let mut command = Command::new(REDIS);
        command.args([
            "--port",
            &address.port().to_string(),
            "--bind",
            "127.0.0.1",
            "--daemonize",
            "no",
        ]);
        // Rewriting the log in between would mix two measurements.
        command.args([
            "--save",
            "",
            "--loglevel",
            "warning",
            "--auto-aof-rewrite-percentage",
            "0",
        ]);
        command.arg("--dir").arg(data_dir).args(arguments);
        let name = ServerName::Redis;
        let process =
            Process::start_quiet(name.as_str(), &mut command, &self.folder.join("redis.log"))?;
        let deadline = Instant::now() + PATIENCE;
        let mut ping = Vec::new();
        crate::protocol::resp::append_command(&[b"PING"], &mut ping);
        loop {
            let answer = Client::connect(name.as_str(), address)
                .and_then(|mut client| client.redis(&ping, 1));
            process.check_alive()?;
            if answer.is_ok() {
                return Ok(Server::ready(name, process, address));
            }
            if Instant::now() >= deadline {
                return Err(process.not_ready(PATIENCE));
            }
            thread::sleep(POLL);
        }
    }

    /// Whether this build of the server takes these arguments: what a build does not know cannot be measured.
    pub(crate) fn takes(&self, arguments: &[&str]) -> bool {
        Command::new(&self.inflightkv)
            .args(["serve", "--check-config"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }

    fn add_threads(&self, command: &mut Command) {
        if let Some(threads) = self.subjects.server_threads {
            command.args(["--threads", &threads.to_string()]);
        }
    }
}

/// Those of the servers that can be compared here; what is missing is said on standard error. An error if nothing is left.
pub(crate) fn available(names: &[ServerName]) -> Result<Vec<ServerName>, Error> {
    let mut there = Vec::new();
    for &name in names {
        match name.program() {
            Some((program, install)) if !on_path(program) => {
                eprintln!(
                    "{program} is not installed, so it is left out; to have it compared: {install}"
                );
            }
            _ => there.push(name),
        }
    }
    if there.contains(&ServerName::Webdis) && !on_path(REDIS) {
        eprintln!("{REDIS} is not installed, and webdis is nothing without it, so it is left out");
        there.retain(|&name| name != ServerName::Webdis);
    }
    if there.is_empty() {
        return Err(Error::Usage(
            "none of the servers that were asked for is installed; --servers inflightkv,bare needs nothing else"
                .to_owned(),
        ));
    }
    Ok(there)
}

fn on_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

fn own_program() -> Result<PathBuf, Error> {
    std::env::current_exe().map_err(Error::io("finding this program"))
}

fn free_port() -> Result<u16, Error> {
    let find = || {
        Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
            .local_addr()?
            .port())
    };
    find().map_err(Error::io("looking for a free port"))
}
