//! The configuration as the shell meets it: the real binary, its messages and its exit codes.
#![cfg(feature = "cli")]

use std::fs;
use std::process::{Command, Output};

/// Runs the binary with these variables of ours and no others.
fn inflightkv(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_inflightkv"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("INFLIGHTKV_") {
            command.env_remove(name);
        }
    }
    command.args(arguments).envs(variables.iter().copied());
    command.output().expect("the binary runs")
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The one line that a refusal says, with exit code 2 and nothing on standard output.
fn refusal(arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let output = inflightkv(arguments, variables);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        output.status.code(),
        Some(2),
        "{arguments:?} {variables:?}: {message}"
    );
    assert!(output.stdout.is_empty(), "{arguments:?}: {}", out(&output));
    assert_eq!(message.lines().count(), 1, "{message}");
    message
}

#[test]
fn a_wrong_setting_ends_every_way_of_starting_with_code_2_and_one_line() {
    for arguments in [
        &["--threads", "none"][..],
        &["--threads=none"],
        &["serve", "--threads", "none"],
        &["config", "--threads", "none"],
        &["serve", "--check-config", "--threads", "none"],
    ] {
        let message = refusal(arguments, &[]);
        assert_eq!(
            message,
            "error: flag --threads: threads: found \"none\"; expected a whole number from 1 to 1024\n"
        );
    }
    let message = refusal(&[], &[("INFLIGHTKV_MAX_KEY_SIZE", "1GB")]);
    assert!(
        message.contains("INFLIGHTKV_MAX_KEY_SIZE: max-key-size: found \"1GB\""),
        "{message}"
    );
    let message = refusal(&[], &[("INFLIGHTKV_MAXKEYSIZE", "1")]);
    assert!(
        message.contains("expected INFLIGHTKV_MAX_KEY_SIZE, perhaps"),
        "{message}"
    );
}

#[test]
fn the_flags_of_what_is_not_there_are_unknown() {
    for flag in ["--no-such-flag", "--compressions"] {
        let message = refusal(&["serve", flag, "x"], &[]);
        assert!(message.contains(&format!("\"{flag}\"")), "{message}");
    }
}

#[test]
fn a_wrong_line_of_the_file_is_named_by_file_and_line() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("kv.toml");
    let path = file.to_str().expect("a path of text");
    for (text, expected) in [
        (
            "threads = 2\nwal-sync = \"often\"\n",
            "line 2: wal-sync: found \"often\"; expected one of always, interval, os",
        ),
        ("threads = \n", "line 1: found what is not TOML"),
        (
            "thread = 2\n",
            "line 1: found the unknown key \"thread\"; expected threads, perhaps",
        ),
        (
            "partitions = 3\n",
            "line 1: partitions: found 3; expected a power of two from 1 to 65536",
        ),
        (
            "threads = \"2\"\n",
            "line 1: threads: found \"2\"; expected a whole number",
        ),
    ] {
        fs::write(&file, text).expect("writing a file");
        for message in [
            refusal(&["serve", "--config", path], &[]),
            refusal(&[], &[("INFLIGHTKV_CONFIG", path)]),
        ] {
            assert!(message.contains(path), "{message}");
            assert!(message.contains(expected), "{message}");
        }
    }
}

#[test]
fn an_open_address_without_authentication_is_refused() {
    let message = refusal(&["--listen", "0.0.0.0:0"], &[]);
    assert!(
        message.contains("not loopback") && message.contains("--insecure-no-auth"),
        "{message}"
    );
    let allowed = inflightkv(
        &[
            "--listen",
            "0.0.0.0:0",
            "--insecure-no-auth",
            "--check-config",
        ],
        &[],
    );
    assert_eq!(allowed.status.code(), Some(0));
}

#[test]
fn check_config_says_yes_by_its_exit_code_and_touches_nothing() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let data = directory.path().join("data");
    let output = inflightkv(
        &[
            "--check-config",
            "--data-dir",
            data.to_str().expect("a path of text"),
        ],
        &[],
    );
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(out(&output), "");
    assert!(!data.exists());
}

#[test]
fn config_shows_where_each_value_came_from() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("kv.toml");
    fs::write(&file, "threads = 2\nnode-id = 'a'\nlog-level = 'warn'\n").expect("writing a file");
    let path = file.to_str().expect("a path of text");
    let output = inflightkv(
        &["config", "--config", path, "--node-id", "c"],
        &[
            ("INFLIGHTKV_NODE_ID", "b"),
            ("INFLIGHTKV_LOG_LEVEL", "debug"),
        ],
    );
    assert_eq!(output.status.code(), Some(0));
    let text = out(&output);
    for (start, end) in [
        ("threads = 2 ", format!("# {path} line 1")),
        ("node-id = \"c\" ", "# flag --node-id".to_owned()),
        (
            "log-level = \"debug\" ",
            "# environment variable INFLIGHTKV_LOG_LEVEL".to_owned(),
        ),
        ("partitions = 128 ", "# default".to_owned()),
    ] {
        let line = text.lines().find(|line| line.starts_with(start));
        assert!(
            line.is_some_and(|line| line.ends_with(&end)),
            "{start}{end} in\n{text}"
        );
    }
}

#[test]
fn the_default_file_is_accepted_and_changes_nothing() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("default.toml");
    fs::write(&file, inflightkv(&["config", "--default"], &[]).stdout).expect("writing a file");
    let values = |output: &Output| -> Vec<String> {
        let text = out(output);
        text.lines()
            .map(|line| line.split("  #").next().unwrap_or_default().to_owned())
            .collect()
    };
    let with = inflightkv(
        &["config", "--config", file.to_str().expect("a path of text")],
        &[],
    );
    assert_eq!(
        with.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&with.stderr)
    );
    assert_eq!(values(&with), values(&inflightkv(&["config"], &[])));
}
