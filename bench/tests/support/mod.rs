//! The real server, for tests of what drives it.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

pub(crate) const BENCH: &str = env!("CARGO_BIN_EXE_inflightkv-bench");

/// The server's program. A test of the whole workspace has built it; one of this package alone builds it here.
pub(crate) fn server_program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let program = Path::new(BENCH).with_file_name("inflightkv");
        if !program.is_file() {
            let mut build = Command::new(env!("CARGO"));
            build.args(["build", "--quiet", "--package", "inflightkv-server"]);
            if program
                .parent()
                .is_some_and(|folder| folder.ends_with("release"))
            {
                build.arg("--release");
            }
            let status = build.status().expect("cargo runs these tests");
            assert!(status.success(), "the server could not be built: {status}");
        }
        program
    })
}

/// A server in memory that ends with the test.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: String,
}

impl Server {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(server_program())
            .args(["serve", "--listen", "127.0.0.1:0", "--threads", "1"])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program is there");
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

    pub(crate) fn pid(&self) -> String {
        self.child.id().to_string()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
