//! What is asked for and cannot be done: one line that says what is wrong and what to do, before anything is built.

use std::path::Path;
use std::process::{Command, Output};

const XTASK: &str = env!("CARGO_BIN_EXE_inflightkv-xtask");

/// A clone as far as a release looks at one: two files and a commit.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Self {
        let tree = Self(tempfile::tempdir().expect("a folder"));
        tree.write(
            "Cargo.toml",
            "[workspace.package]\nversion = \"0.3.0\"\n\n[workspace.dependencies]\n",
        );
        tree.write(
            "CHANGELOG.md",
            "# Changelog\n\n## Unreleased\n\n- Something new.\n",
        );
        tree.git(&["init", "--quiet"]);
        tree.git(&["add", "."]);
        tree.git(&["commit", "--quiet", "--message", "Begin"]);
        tree
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).expect("the folder takes files");
    }

    fn git(&self, arguments: &[&str]) {
        let identity = ["-c", "user.name=A person", "-c", "user.email=a@localhost"];
        let output = Command::new("git")
            .current_dir(self.path())
            .args(identity)
            .args(arguments)
            .output()
            .expect("git is there");
        assert!(output.status.success(), "{output:?}");
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(XTASK)
            .args(arguments)
            // Cargo says so where this package is; the workspace is the folder above.
            .env("CARGO_MANIFEST_DIR", self.path().join("xtask"))
            .output()
            .expect("the program was built for this test")
    }

    /// What it says when it refuses: one line.
    fn refusal(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8(output.stderr).expect("text");
        assert!(!output.status.success(), "{arguments:?} passed");
        assert_eq!(said.lines().count(), 1, "{arguments:?}: {said}");
        said
    }
}

#[test]
fn a_release_is_made_of_a_clean_tree_a_newer_version_and_notes() {
    let tree = Tree::new();
    let rehearsal = tree.run(&["release", "0.4.0", "--dry-run"]);
    let said = String::from_utf8_lossy(&rehearsal.stdout);
    assert!(rehearsal.status.success(), "{rehearsal:?}");
    for step in [
        "release 0.4.0 (the tree is at 0.3.0)",
        "Begin",
        "would run .ci/run",
        "would set 0.4.0 in Cargo.toml",
        "would tag v0.4.0",
    ] {
        assert!(said.contains(step), "{step:?} is not in {said}");
    }

    // Without --dry-run the same sentence ends it, and nothing has been changed.
    for dry in [&["--dry-run"][..], &[]] {
        let refusal = |version| tree.refusal(&[&["release", version], dry].concat());
        assert!(refusal("0.2.9").contains("0.2.9 is older than 0.3.0"));
        tree.write("new.txt", "not committed");
        assert!(refusal("0.4.0").contains("the tree has 1 changed files; commit or stash"));
        std::fs::remove_file(tree.path().join("new.txt")).expect("it is there");
    }

    tree.git(&["tag", "v0.4.0"]);
    let refusal = tree.refusal(&["release", "0.4.0", "--dry-run"]);
    assert!(
        refusal.contains("v0.4.0 has been tagged already; name a newer version"),
        "{refusal}"
    );
    tree.write("CHANGELOG.md", "# Changelog\n\n## Unreleased\n");
    tree.git(&["commit", "--quiet", "--all", "--message", "Say nothing"]);
    let refusal = tree.refusal(&["release", "0.5.0", "--dry-run"]);
    assert!(
        refusal.contains("says nothing under \"## Unreleased\""),
        "{refusal}"
    );
    std::fs::remove_dir_all(tree.path().join(".git")).expect("it is there");
    let refusal = tree.refusal(&["release", "0.5.0", "--dry-run"]);
    assert!(refusal.contains("2 in the way"), "{refusal}");
    assert!(refusal.contains("this is no git tree"), "{refusal}");
    let wrong = tree.run(&["release", "v1"]);
    let said = String::from_utf8_lossy(&wrong.stderr);
    assert!(
        said.contains("\"v1\" is no version such as 1.2.3"),
        "{said}"
    );
}

#[test]
fn a_gate_says_what_it_cannot_compare_with() {
    let tree = Tree::new();
    let refusal = tree.refusal(&["bench", "--check", "--against", "nothing"]);
    assert!(
        refusal.contains("there is no commit \"nothing\"; `git log --oneline` lists them"),
        "{refusal}"
    );
    let refusal = tree.refusal(&["bench", "--check"]);
    assert!(
        refusal.contains("bench/counts.toml") && refusal.contains("--update-baseline"),
        "{refusal}"
    );
    std::fs::create_dir(tree.path().join("bench")).expect("a folder");
    tree.write("bench/counts.toml", "format = 7\n");
    let refusal = tree.refusal(&["bench", "--check"]);
    assert!(
        refusal.contains("bench/counts.toml has format 7, this program knows 1"),
        "{refusal}"
    );
    let vague = tree.run(&["bench", "--update-baseline", "--reason", "because"]);
    let said = String::from_utf8_lossy(&vague.stderr);
    assert!(said.contains("say it in a sentence"), "{said}");
}
