//! The server of this tree against that of another commit, in turn, on this machine, now.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bench::PACKAGES;
use crate::shell::{self, Failure};

/// `commit` is the full name of one, as [`commit`] finds it.
pub(super) fn check(root: &Path, commit: &str) -> Result<(), Failure> {
    let program = shell::release_program(root, &PACKAGES, "inflightkv-bench")?;
    let new = program.with_file_name("inflightkv");
    let old = build(root, &program, commit)?;
    println!(
        "taking turns with the server of {}",
        &commit[..12.min(commit.len())]
    );
    let mut compare = Command::new(program);
    compare.args(["compare", "builds", "--new"]).arg(new);
    shell::run(compare.arg("--old").arg(old))
}

/// What a person calls a commit, as its full name.
pub(super) fn commit(root: &Path, revision: &str) -> Result<String, Failure> {
    let root = root.display().to_string();
    let name = format!("{revision}^{{commit}}");
    shell::asked(
        "git",
        &["-C", &root, "rev-parse", "--verify", "--quiet", &name],
    )
    .ok_or_else(|| {
        Failure(format!(
            "there is no commit {revision:?}; `git log --oneline` lists them"
        ))
    })
}

/// Builds the server of a commit in a tree of its own, which is removed again; what was built stays, for the next time.
fn build(root: &Path, program: &Path, commit: &str) -> Result<PathBuf, Failure> {
    let target = program.ancestors().nth(2);
    let target = target
        .ok_or_else(|| Failure(format!("{} is not in a target folder", program.display())))?;
    let short = &commit[..12.min(commit.len())];
    let kept = target.join("against").join(format!("inflightkv-{short}"));
    if kept.is_file() {
        return Ok(kept);
    }
    let tree = target.join("against").join(short);
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.current_dir(root).args(arguments);
        shell::run(&mut command)
    };
    let path = tree.display().to_string();
    git(&[
        "worktree", "add", "--quiet", "--force", "--detach", &path, commit,
    ])?;
    let built = target.join("against").join("target");
    let mut cargo = shell::cargo(&tree);
    // As the new one is built: with the features that both packages ask of what they share.
    cargo.args(["build", "--release", "--quiet", "--bin", "inflightkv"]);
    for package in PACKAGES {
        cargo.args(["--package", package]);
    }
    let result = shell::run(cargo.arg("--target-dir").arg(&built));
    git(&["worktree", "remove", "--force", &path])?;
    result?;
    std::fs::copy(built.join("release/inflightkv"), &kept)
        .map_err(|error| Failure(format!("{}: {error}", kept.display())))?;
    Ok(kept)
}
