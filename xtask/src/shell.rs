//! Running programs from the root of the workspace.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Why a task did not pass, for a person to read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Failure(pub(crate) String);

/// The workspace. Cargo says at run time where this package is; a program started without cargo works where it
/// stands.
pub(crate) fn root() -> PathBuf {
    let package = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    package
        .as_deref()
        .and_then(Path::parent)
        .map_or_else(|| PathBuf::from("."), Path::to_owned)
}

/// The cargo that runs this program.
pub(crate) fn cargo(root: &Path) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    command
}

/// Runs a program to its end, its output shown.
pub(crate) fn run(command: &mut Command) -> Result<(), Failure> {
    let line = line(command);
    match command.stdin(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure(format!("`{line}` failed ({status})"))),
        Err(error) => Err(Failure(format!("`{line}` could not be started: {error}"))),
    }
}

/// Runs a program to its end; its standard output. What it says on standard error is shown.
pub(crate) fn output(command: &mut Command) -> Result<Vec<u8>, Failure> {
    let line = line(command);
    match command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
    {
        Ok(output) if output.status.success() => Ok(output.stdout),
        Ok(output) => Err(Failure(format!("`{line}` failed ({})", output.status))),
        Err(error) => Err(Failure(format!("`{line}` could not be started: {error}"))),
    }
}

/// A program that cargo builds in release mode, by package and name.
pub(crate) fn release_program(
    root: &Path,
    packages: &[&str],
    name: &str,
) -> Result<PathBuf, Failure> {
    let mut build = cargo(root);
    build.args(["build", "--release"]);
    for package in packages {
        build.args(["--package", package]);
    }
    run(&mut build)?;
    Ok(target()?.join("release").join(name))
}

/// The target folder that this program was built in.
pub(crate) fn target() -> Result<PathBuf, Failure> {
    // This program is `<target>/<profile>/inflightkv-xtask`, whichever profile it was built with.
    let own = env::current_exe()
        .map_err(|error| Failure(format!("this program was not found: {error}")))?;
    let target = own.parent().and_then(Path::parent);
    target
        .map(Path::to_owned)
        .ok_or_else(|| Failure(format!("{} is not in a target folder", own.display())))
}

/// What a program prints, if it is there and succeeds.
pub(crate) fn asked(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// The command as a person would type it.
fn line(command: &Command) -> String {
    let program = Path::new(command.get_program())
        .file_name()
        .unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}
