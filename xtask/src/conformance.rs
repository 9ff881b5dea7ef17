//! Holds a running server against its own `/openapi.json` with schemathesis, for a bounded time: no 500, no status that
//! the document does not have.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::shell::{self, Failure};

/// The line of releases that the options below are of.
const SCHEMATHESIS: &str = "schemathesis>=4.32,<5";
const CHECKS: &str = "not_a_server_error,status_code_conformance";
/// Answers of these are streams without an end, which schemathesis would wait for.
const ENDLESS: [&str; 2] = ["/v1/watch", "/v1/admin/wal"];
/// After it everything that writes is rightly answered 503.
const ENDS_WRITES: &str = "/v1/admin/demote";
/// Takes a body of a media type that schemathesis cannot make.
const TAKES_A_BACKUP: &str = "/v1/admin/restore";
/// What schemathesis may take beyond its time, to end by itself.
const GRACE: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Seconds of requests
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// A server to build nothing for: the program that is started [default: built in release mode]
    #[arg(long)]
    program: Option<PathBuf>,
}

pub(crate) fn run(root: &Path, options: &Options) -> Result<(), Failure> {
    let Some(schemathesis) = schemathesis(root)? else {
        println!("schemathesis is not there and cannot be installed: nothing was tried");
        return Ok(());
    };
    let program = match &options.program {
        Some(program) => program.clone(),
        None => shell::release_program(root, &["inflightkv-server"], "inflightkv")?,
    };
    let data = root.join("target/conformance-data");
    // Of the time before, if that was cut off.
    let _ = fs::remove_dir_all(&data);
    let server = Server::start(&program, &data)?;
    let mut command = Command::new(schemathesis);
    command
        .current_dir(root)
        .args(["run", &format!("{}/openapi.json", server.url)])
        .args(["--checks", CHECKS, "--phases", "coverage,fuzzing"])
        .args(["--max-time", &options.seconds.to_string()])
        .args(["--request-timeout", "10"]);
    for path in ENDLESS.iter().chain([&ENDS_WRITES, &TAKES_A_BACKUP]) {
        command.args(["--exclude-path", path]);
    }
    let ended = run_for(
        &mut command,
        Duration::from_secs(options.seconds.into()) + GRACE,
    );
    drop(server);
    let _ = fs::remove_dir_all(&data);
    ended
}

/// Runs a command that has to end in time.
fn run_for(command: &mut Command, time: Duration) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure(format!("schemathesis: {error}"));
    let mut child = command.spawn().map_err(failed)?;
    let until = Instant::now() + time;
    loop {
        match child.try_wait().map_err(failed)? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(Failure(format!("schemathesis ended with {status}"))),
            None if Instant::now() >= until => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(Failure(format!(
                    "schemathesis did not end within {} s: an answer without an end, perhaps",
                    time.as_secs()
                )));
            }
            None => thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// The program, installed into `target/conformance` if it is nowhere; `None` when that cannot be.
fn schemathesis(root: &Path) -> Result<Option<PathBuf>, Failure> {
    let on_path = env::var_os("PATH").and_then(|path| {
        env::split_paths(&path)
            .map(|folder| folder.join("schemathesis"))
            .find(|program| program.is_file())
    });
    if on_path.is_some() {
        return Ok(on_path);
    }
    let folder = root.join("target/conformance");
    let program = folder.join("bin/schemathesis");
    if !program.is_file() {
        let mut make = Command::new("python3");
        make.args(["-m", "venv"]).arg(&folder);
        let mut install = Command::new(folder.join("bin/pip"));
        install.args(["install", "--quiet", SCHEMATHESIS]);
        if shell::run(&mut make).is_err() || shell::run(&mut install).is_err() {
            return Ok(None);
        }
    }
    Ok(Some(program))
}

/// A server on a free port; killed when dropped.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start(program: &Path, data: &Path) -> Result<Self, Failure> {
        let failed = |why: &str| Failure(format!("{} {why}", program.display()));
        let mut child = Command::new(program)
            .args([
                "--listen",
                "127.0.0.1:0",
                "--log-level",
                "error",
                "--data-dir",
            ])
            .arg(data)
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| failed(&format!("could not be started: {error}")))?;
        let output = child.stdout.take();
        let mut server = Self {
            child,
            url: String::new(),
        };
        let mut line = String::new();
        if let Some(output) = output {
            BufReader::new(output)
                .read_line(&mut line)
                .map_err(|error| failed(&format!("could not be read: {error}")))?;
        }
        let announced = line.trim().strip_prefix("listening on ");
        server.url = announced
            .ok_or_else(|| failed("did not announce itself"))?
            .to_owned();
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
