//! A release: checks, version and changelog, artefacts that are the same bytes each time, a tag.
//!
//! Nothing is published from here. What is left to a person is printed at the end.

mod archive;
mod artefacts;
mod notes;
mod sbom;
mod version;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::release::artefacts::Artefacts;
use crate::release::notes::Notes;
use crate::release::version::Version;
use crate::shell::{self, Failure};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// What is released, as X.Y.Z
    version: Version,
    /// Check everything and say what would be done; change nothing in the tree
    #[arg(long)]
    dry_run: bool,
    /// With --dry-run: build the artefacts all the same, from the tree as it is
    #[arg(long, requires = "dry_run")]
    build: bool,
    /// With --dry-run: pack this program instead of building one
    #[arg(long, value_name = "FILE", requires = "dry_run")]
    program: Option<PathBuf>,
    /// Build once, and do not prove that it can be repeated
    #[arg(long)]
    once: bool,
}

pub(crate) fn run(root: &Path, options: &Options) -> Result<(), Failure> {
    let Options { version, .. } = options;
    let manifest = read(root, "Cargo.toml")?;
    let current = version::current(&manifest)?;
    let notes = Notes::read(&read(root, "CHANGELOG.md")?, *version);
    let wrong = problems(root, *version, current, &notes);
    println!("release {version} (the tree is at {current})");
    for commit in commits(root) {
        println!("  {commit}");
    }
    if options.dry_run {
        return rehearse(root, options, &wrong);
    }
    if let Some(first) = wrong.first() {
        return Err(Failure(first.clone()));
    }
    println!("running .ci/run");
    shell::run(Command::new("bash").arg(".ci/run").current_dir(root))?;
    write(root, "Cargo.toml", &version::changed(&manifest, *version))?;
    let mut update = shell::cargo(root);
    shell::run(update.args(["update", "--workspace", "--offline", "--quiet"]))?;
    let dated = notes.dated(&read(root, "CHANGELOG.md")?, &today()?);
    write(root, "CHANGELOG.md", &dated)?;
    let git =
        |arguments: &[&str]| shell::run(Command::new("git").args(arguments).current_dir(root));
    git(&["add", "Cargo.toml", "Cargo.lock", "CHANGELOG.md"])?;
    git(&[
        "commit",
        "--quiet",
        "--message",
        &format!("Release {version}"),
    ])?;
    let folder = artefacts(root, options)?;
    git(&[
        "tag",
        "--annotate",
        &version.tag(),
        "--message",
        &format!("InFlightKv {version}"),
    ])?;
    println!(
        "{} is committed and tagged; what is left: look at {}, then `git push --follow-tags`, and `cargo publish --workspace`",
        version.tag(),
        folder.display()
    );
    Ok(())
}

/// Says what would be done, and what stands in its way.
fn rehearse(root: &Path, options: &Options, wrong: &[String]) -> Result<(), Failure> {
    let version = options.version;
    for problem in wrong {
        println!("in the way: {problem}");
    }
    println!("would run .ci/run");
    println!(
        "would set {version} in Cargo.toml and Cargo.lock, and date the notes in CHANGELOG.md"
    );
    println!("would commit \"Release {version}\"");
    for step in artefacts::steps(version, options.once) {
        println!("would {step}");
    }
    println!("would tag {}", version.tag());
    if options.build || options.program.is_some() {
        artefacts(root, options)?;
    }
    match wrong.first() {
        None => Ok(()),
        Some(first) => Err(Failure(format!(
            "{} in the way, the first is: {first}",
            wrong.len()
        ))),
    }
}

fn artefacts(root: &Path, options: &Options) -> Result<PathBuf, Failure> {
    let artefacts = Artefacts {
        root,
        version: options.version,
        epoch: commit_time(root)?,
        program: options.program.as_deref(),
    };
    let folder = artefacts.make("one")?;
    if !options.once {
        artefacts.demand_same(&folder, &artefacts.make("two")?)?;
        let done = if options.program.is_some() {
            "packed"
        } else {
            "built"
        };
        println!("{done} twice, in two folders: the same bytes");
    }
    artefacts.publish(&folder)
}

/// Everything that stands in the way, so that it can be mended at once.
fn problems(root: &Path, version: Version, current: Version, notes: &Notes) -> Vec<String> {
    let git = |arguments: &[&str]| {
        let root = root.display().to_string();
        shell::asked("git", &[&["-C", &root][..], arguments].concat())
    };
    let mut wrong = Vec::new();
    match git(&["status", "--porcelain"]) {
        None => wrong.push("this is no git tree; a release is made from a clone".to_owned()),
        Some(changes) if !changes.is_empty() => wrong.push(format!(
            "the tree has {} changed files; commit or stash them first",
            changes.lines().count()
        )),
        Some(_) => {}
    }
    if version < current {
        wrong.push(format!(
            "{version} is older than {current}, which the tree is at; name a newer one"
        ));
    }
    let tag = version.tag();
    if git(&[
        "rev-parse",
        "--verify",
        "--quiet",
        &format!("refs/tags/{tag}"),
    ])
    .is_some()
    {
        wrong.push(format!(
            "{tag} has been tagged already; name a newer version"
        ));
    }
    if notes.is_empty() {
        wrong.push(
            "CHANGELOG.md says nothing under \"## Unreleased\"; say there what changes for users"
                .to_owned(),
        );
    }
    wrong
}

/// What has happened since the last tag, for whoever reads the changelog against it.
fn commits(root: &Path) -> Vec<String> {
    let path = root.display().to_string();
    let git = |arguments: &[&str]| shell::asked("git", &[&["-C", &path][..], arguments].concat());
    let range = git(&["describe", "--tags", "--abbrev=0"])
        .map_or_else(|| "HEAD".to_owned(), |tag| format!("{tag}..HEAD"));
    let log = git(&["log", "--no-merges", "--pretty=format:%h %s", &range]).unwrap_or_default();
    log.lines().map(str::to_owned).collect()
}

/// Seconds since 1970, of the commit that is built: what every file in an archive is dated.
fn commit_time(root: &Path) -> Result<u64, Failure> {
    let path = root.display().to_string();
    shell::asked("git", &["-C", &path, "log", "-1", "--pretty=%ct"])
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Failure("git does not say when the commit was made".to_owned()))
}

fn today() -> Result<String, Failure> {
    shell::asked("date", &["-u", "+%Y-%m-%d"])
        .ok_or_else(|| Failure("`date` does not say which day it is".to_owned()))
}

fn read(root: &Path, name: &str) -> Result<String, Failure> {
    std::fs::read_to_string(root.join(name)).map_err(|error| Failure(format!("{name}: {error}")))
}

fn write(root: &Path, name: &str, text: &str) -> Result<(), Failure> {
    std::fs::write(root.join(name), text).map_err(|error| Failure(format!("{name}: {error}")))
}
