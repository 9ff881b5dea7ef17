//! Child processes: started with their output kept, ended by their own id, whatever happens.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::error::Error;
use crate::interrupt;

/// How long a child may take to end after it was asked to.
const GRACE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(1);
/// How much of a failed child's log is shown.
const LOG_LINES: usize = 10;

/// Children that have not been waited for. Ids in here cannot have been given to another process.
static CHILDREN: Mutex<Vec<Arc<Mutex<Child>>>> = Mutex::new(Vec::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere is no reason to leave children behind.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends every child at once, from any thread.
pub(crate) fn kill_all() {
    for child in lock(&CHILDREN).iter() {
        // An error says that it has ended already.
        let _ = lock(child).kill();
    }
}

/// A running child. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Arc<Mutex<Child>>,
    pid: u32,
    log: PathBuf,
    pub(crate) started: Instant,
}

impl Process {
    /// Starts a program; what it says on standard error goes to the file `log`.
    fn start(name: &str, command: &mut Command, stdout: Stdio, log: &Path) -> Result<Self, Error> {
        let doing = || Error::io(format!("starting {}", command.get_program().display()));
        let (doing_log, doing_spawn) = (doing(), doing());
        let errors = File::create(log).map_err(doing_log)?;
        let mut children = lock(&CHILDREN);
        interrupt::check()?;
        let started = Instant::now();
        let child = command
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(errors)
            .spawn()
            .map_err(doing_spawn)?;
        let pid = child.id();
        let child = Arc::new(Mutex::new(child));
        children.push(Arc::clone(&child));
        Ok(Self {
            name: name.to_owned(),
            child,
            pid,
            log: log.to_owned(),
            started,
        })
    }

    /// Starts a program that keeps its standard output and standard error in the file `log`.
    pub(crate) fn start_quiet(
        name: &str,
        command: &mut Command,
        log: &Path,
    ) -> Result<Self, Error> {
        let out = log.with_extension("out");
        let stdout =
            File::create(&out).map_err(Error::io(format!("creating {}", out.display())))?;
        Self::start(name, command, stdout.into(), log)
    }

    /// Starts a program and waits until it says `listening on http://ADDRESS` on standard output.
    pub(crate) fn start_listening(
        name: &str,
        command: &mut Command,
        log: &Path,
        patience: Duration,
    ) -> Result<(Self, SocketAddr), Error> {
        let process = Self::start(name, command, Stdio::piped(), log)?;
        let stdout = lock(&process.child)
            .stdout
            .take()
            .expect("standard output is piped");
        let (sender, receiver) = mpsc::channel();
        // Reads to the end, so that a child which says more is not blocked by a full pipe.
        thread::Builder::new()
            .name("output".to_owned())
            .spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    if let Some(address) = line.strip_prefix("listening on http://") {
                        // Nobody waits any more after the first.
                        let _ = sender.send(address.trim_end_matches('/').parse::<SocketAddr>());
                    }
                }
            })
            .map_err(Error::io("reading a child's output"))?;
        let deadline = Instant::now() + patience;
        loop {
            match receiver.recv_timeout(Duration::from_millis(20)) {
                Ok(Ok(address)) => return Ok((process, address)),
                Ok(Err(error)) => {
                    return Err(Error::Answer {
                        name: process.name.clone(),
                        what: "where it listens".to_owned(),
                        found: error.to_string(),
                        expected: "an address".to_owned(),
                    });
                }
                Err(_) => process.check_alive()?,
            }
            if Instant::now() >= deadline {
                return Err(process.not_ready(patience));
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// An error if the child has ended, or if this program is to end.
    pub(crate) fn check_alive(&self) -> Result<(), Error> {
        interrupt::check()?;
        match self.status() {
            None => Ok(()),
            Some(status) => Err(Error::Ended {
                name: self.name.clone(),
                status: status.to_string(),
                log: self.log_tail(),
            }),
        }
    }

    pub(crate) fn not_ready(&self, patience: Duration) -> Error {
        Error::NotReady {
            name: self.name.clone(),
            seconds: patience.as_secs(),
            log: self.log_tail(),
        }
    }

    /// Asks the child to end (SIGTERM) and waits for it; how long that took.
    pub(crate) fn stop(self) -> Result<Duration, Error> {
        let start = Instant::now();
        {
            let mut child = lock(&self.child);
            if matches!(child.try_wait(), Ok(None)) {
                kill_process(Pid::from_child(&child), Signal::TERM)
                    .map_err(|errno| Error::io(format!("stopping {}", self.name))(errno.into()))?;
            }
        }
        while start.elapsed() < GRACE {
            if let Some(status) = self.status() {
                // The bare server and the like have no handler: ended by the signal is as asked, too.
                let asked = status.success()
                    || std::os::unix::process::ExitStatusExt::signal(&status) == Some(15);
                return if asked {
                    Ok(start.elapsed())
                } else {
                    self.check_alive().map(|()| start.elapsed())
                };
            }
            thread::sleep(POLL);
        }
        Err(self.not_ready(GRACE))
    }

    fn status(&self) -> Option<ExitStatus> {
        lock(&self.child).try_wait().ok().flatten()
    }

    /// The last lines of its log, to be put behind a sentence.
    fn log_tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .collect();
        let tail = &lines[lines.len().saturating_sub(LOG_LINES)..];
        if tail.is_empty() {
            String::new()
        } else {
            format!("; it said:\n  {}", tail.join("\n  "))
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let mut child = lock(&self.child);
        // Both fail only for a child that has been waited for.
        let _ = child.kill();
        let _ = child.wait();
        drop(child);
        lock(&CHILDREN).retain(|other| !Arc::ptr_eq(other, &self.child));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    fn is_there(pid: u32) -> bool {
        Path::new(&format!("/proc/{pid}")).exists()
    }

    #[test]
    fn a_child_is_found_by_its_line_and_ended_by_its_drop() {
        let folder = tempfile::tempdir().unwrap();
        let mut command =
            shell("echo hello; echo listening on http://127.0.0.1:1234; exec sleep 60");
        let log = folder.path().join("log");
        let (process, address) =
            Process::start_listening("child", &mut command, &log, Duration::from_secs(10)).unwrap();
        assert_eq!(address, ([127, 0, 0, 1], 1234).into());
        let pid = process.pid();
        assert!(is_there(pid));
        drop(process);
        assert!(!is_there(pid), "the child outlived its owner");
    }

    #[test]
    fn a_child_that_ends_early_is_reported_with_its_last_words() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let result = Process::start_listening(
            "child",
            &mut shell("echo no luck >&2; exit 3"),
            &log,
            Duration::from_secs(10),
        );
        let error = result.expect_err("it never listened").to_string();
        assert!(error.contains("no luck") && error.contains('3'), "{error}");
    }

    #[test]
    fn a_child_is_stopped_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut command = shell("exec sleep 60");
        let process = Process::start_quiet("child", &mut command, &log).unwrap();
        let pid = process.pid();
        process.stop().unwrap();
        assert!(!is_there(pid));
    }
}
