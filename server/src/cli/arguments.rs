//! The command line as data: subcommands, their arguments and their help. Flags of the server come from the table of settings.

use clap::builder::{PossibleValuesParser, StyledStr, ValueParser};
use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint};
use std::ffi::OsString;

use crate::config::settings::{Fallback, Kind, SETTINGS, Setting};
use crate::trust::Role;

const ABOUT: &str =
    "An in-memory JSON key-value store with versions behind HTTP, durable when given a directory";

const AFTER_HELP: &str = "\
Without a subcommand the server is run. Every flag of the server can also be a key of the file that --config names, and an \
environment variable INFLIGHTKV_NAME; a flag wins over a variable, a variable over the file.

Exit codes: 0 success, 1 failure or damage, 2 wrong usage or configuration.";

/// The whole command line.
pub(crate) fn command() -> Command {
    Command::new("inflightkv")
        .version(env!("CARGO_PKG_VERSION"))
        .about(ABOUT)
        .after_help(AFTER_HELP)
        .args(settings())
        .args_conflicts_with_subcommands(true)
        .subcommand_precedence_over_arg(true)
        .max_term_width(100)
        .subcommand(
            Command::new("serve")
                .about("Run the server (what inflightkv without a subcommand does too)")
                .args(settings()),
        )
        .subcommand(
            Command::new("config")
                .about("Print the effective configuration, with where each value came from")
                .arg(
                    Arg::new("default")
                        .long("default")
                        .action(ArgAction::SetTrue)
                        .help("Print a commented file of all settings with their defaults instead"),
                )
                .args(settings()),
        )
        .subcommand(check())
        .subcommand(repair())
        .subcommand(inspect())
        .subcommand(check_rules())
        .subcommand(backup())
        .subcommand(token())
        .subcommand(audit())
        .subcommand(restore())
        .subcommand(get())
        .subcommand(put())
        .subcommand(patch())
        .subcommand(del())
        .subcommand(keys())
        .subcommand(watch())
        .subcommand(
            Command::new("completions")
                .about("Print completions for a shell")
                .arg(
                    Arg::new("shell")
                        .value_name("SHELL")
                        .required(true)
                        .value_parser(clap::value_parser!(clap_complete::Shell))
                        .help("The shell to print them for"),
                ),
        )
        .subcommand(Command::new("man").about("Print the manual page, as roff"))
}

/// The settings given as flags, by name. The table is the only list of them.
pub(crate) fn given_settings(matches: &ArgMatches) -> Vec<(&'static str, OsString)> {
    SETTINGS
        .iter()
        .filter_map(|setting| {
            let value = matches.get_one::<OsString>(setting.name)?;
            Some((setting.name, value.clone()))
        })
        .collect()
}

fn settings() -> impl Iterator<Item = Arg> {
    SETTINGS.iter().map(flag)
}

/// Values are taken as they are: the table checks them, so that a wrong one has the same message in every place.
fn flag(setting: &'static Setting) -> Arg {
    let default = match setting.default {
        Fallback::Value(value) => value,
        Fallback::Nothing(words) => words,
    };
    let arg = Arg::new(setting.name)
        .long(setting.name)
        .value_name(setting.placeholder)
        .value_parser(ValueParser::os_string())
        .allow_negative_numbers(true)
        .help_heading(setting.section.title())
        .help(format!("{} [default: {default}]", setting.summary))
        .long_help(StyledStr::from(format!(
            "{}.\n{}\n[default: {default}] [allowed: {}] [env: {}]",
            setting.summary,
            setting.details,
            setting.kind.expected(),
            setting.variable()
        )));
    match setting.kind {
        Kind::Switch => arg
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true"),
        Kind::Path if setting.placeholder == "DIR" => arg.value_hint(ValueHint::DirPath),
        Kind::Path => arg.value_hint(ValueHint::FilePath),
        _ => arg,
    }
}

fn check() -> Command {
    Command::new("check")
        .about("Verify every checksum of a backup, or of a data directory that no server is using")
        .after_help(
            "Exit code 0: sound. 1: damaged; each line names file, offset and what is lost.",
        )
        .arg(directory().help("The directory that the server is given as --data-dir, or a backup"))
}

fn repair() -> Command {
    Command::new("repair")
        .about("Cut a damaged data directory back to what can be proven sound")
        .after_help("Whatever is cut off is kept beside the files it came from. A sound directory is left as it is.")
        .arg(directory())
}

fn check_rules() -> Command {
    Command::new("check-rules")
        .about("Read a file of validation rules, and try it on documents")
        .after_help(
            "Exit code 0: nothing would be refused. 1: something would; each line says which rule refuses what. \
             2: the file has a mistake, which is named by line and key.",
        )
        .arg(
            Arg::new("file")
                .value_name("FILE")
                .required(true)
                .value_parser(ValueParser::path_buf())
                .value_hint(ValueHint::FilePath)
                .help("The rules, as --validation takes them"),
        )
        .arg(
            Arg::new("sample")
                .long("sample")
                .value_name("NDJSON")
                .value_parser(ValueParser::path_buf())
                .value_hint(ValueHint::FilePath)
                .help("A line of JSON a document, with key and value (`-`: standard input)"),
        )
}

fn token() -> Command {
    let roles = Role::ALL.map(Role::name);
    Command::new("token")
        .about("Make tokens for the file of --auth")
        .subcommand_required(true)
        .subcommand(
            Command::new("new")
                .about("Print a new token, once, and the table with its hash that makes a server accept it")
                .arg(
                    Arg::new("name")
                        .long("name")
                        .value_name("NAME")
                        .required(true)
                        .help("What logs call it"),
                )
                .arg(
                    Arg::new("role")
                        .long("role")
                        .value_name("ROLE")
                        .required(true)
                        .value_parser(PossibleValuesParser::new(roles))
                        .help("What it may do; each role includes the ones before it"),
                )
                .arg(
                    Arg::new("prefix")
                        .long("prefix")
                        .value_name("TEXT")
                        .action(ArgAction::Append)
                        .help("Keys it may touch, those that begin with this; may be given again; without: all"),
                )
                .arg(
                    Arg::new("expires")
                        .long("expires")
                        .value_name("INSTANT")
                        .help("When it ends, such as 2027-01-01T00:00:00Z"),
                ),
        )
}

fn audit() -> Command {
    Command::new("audit")
        .about("Work with the file of --audit-log")
        .subcommand_required(true)
        .subcommand(
            Command::new("verify")
                .about("Verify that no line was changed, taken out, put in or cut off")
                .after_help(
                    "Exit code 0: all lines are sound. 1: the first one that is not is named.",
                )
                .arg(
                    Arg::new("file")
                        .value_name("FILE")
                        .required(true)
                        .num_args(1..)
                        .value_parser(ValueParser::path_buf())
                        .value_hint(ValueHint::FilePath)
                        .help(
                            "The log; the file beside it that ends with .head says where it ends. Of a log in several files \
                             all of them, the oldest first",
                        ),
                ),
        )
}

fn inspect() -> Command {
    Command::new("inspect")
        .about("Print a log segment, a snapshot's manifest, one of its parts or a backup as NDJSON, one record a line")
        .after_help(
            "Values that are JSON are printed inline (value), others as base64 (valueBase64). With --key or --prefix, a \
             manifest stands for all its parts, and only blocks that may hold such keys are read.",
        )
        .arg(
            Arg::new("key")
                .long("key")
                .value_name("KEY")
                .conflicts_with("prefix")
                .help("Only this key"),
        )
        .arg(
            Arg::new("prefix")
                .long("prefix")
                .value_name("TEXT")
                .help("Only keys that begin with this"),
        )
        .arg(
            Arg::new("file")
                .value_name("FILE")
                .required(true)
                .value_parser(ValueParser::path_buf())
                .value_hint(ValueHint::FilePath)
                .help("A file of DIR/wal or DIR/snapshots, or a backup"),
        )
}

fn backup() -> Command {
    client(Command::new("backup"))
        .about("Fetch a backup of a running server, verified as it arrives")
        .after_help(
            "The file is there whole or not at all. `inflightkv check FILE` verifies it again.",
        )
        .arg(
            Arg::new("out")
                .long("out")
                .value_name("FILE")
                .required(true)
                .value_parser(ValueParser::path_buf())
                .value_hint(ValueHint::FilePath)
                .help("Where to put it; nothing may be there yet"),
        )
}

fn restore() -> Command {
    let path = |name: &'static str, placeholder: &'static str| {
        Arg::new(name)
            .value_name(placeholder)
            .value_parser(ValueParser::path_buf())
    };
    Command::new("restore")
        .about("Restore a backup into an empty data directory")
        .after_help(
            "The directory becomes that of a new store with the backup's entries. A backup that is damaged or cut off is \
             refused before anything is made. To restore into a running server, send the file to POST /v1/admin/restore.",
        )
        .arg(
            path("data-dir", "DIR")
                .long("data-dir")
                .required(true)
                .value_hint(ValueHint::DirPath)
                .help("Where to restore to: empty, or not there yet"),
        )
        .arg(
            path("file", "FILE")
                .required(true)
                .value_hint(ValueHint::FilePath)
                .help("The backup"),
        )
        .arg(
            Arg::new("prefix")
                .long("prefix")
                .value_name("TEXT")
                .help("Only keys that begin with this"),
        )
        .arg(
            path("wal", "DIR")
                .long("wal")
                .value_hint(ValueHint::DirPath)
                .help("Carry on with the segments in this directory, the wal of the backed up server or a copy of it"),
        )
        .arg(
            Arg::new("until")
                .long("until")
                .value_name("MOMENT")
                .requires("wal")
                .help("Follow the log up to this sequence, or to this time (2026-01-31T12:00:00Z); without, to its end"),
        )
        .arg(
            path("validation", "FILE")
                .long("validation")
                .value_hint(ValueHint::FilePath)
                .help("Hold every entry against the rules in this file, and say what breaks them"),
        )
        .arg(
            Arg::new("rules-on-load")
                .long("rules-on-load")
                .value_name("WHAT")
                .requires("validation")
                .value_parser(["report", "refuse"])
                .default_value("report")
                .help("Restore entries that break a rule, or restore nothing then"),
        )
}

fn directory() -> Arg {
    Arg::new("directory")
        .value_name("DIR")
        .required(true)
        .value_parser(ValueParser::path_buf())
        .value_hint(ValueHint::DirPath)
        .help("The directory that the server is given as --data-dir")
}

fn get() -> Command {
    client(Command::new("get"))
        .about("Print the value of a key")
        .arg(key(true))
        .arg(
            Arg::new("include")
                .long("include")
                .short('i')
                .action(ArgAction::SetTrue)
                .help(
                    "Print version, etag, media type and remaining time to standard error as well",
                ),
        )
}

fn put() -> Command {
    let command = client(Command::new("put"))
        .about("Store a value, or with --ndjson many")
        .after_help(
            "Prints what came of it as one line of JSON. With --ndjson every line of the file is an object with key, value \
             and if wanted ttl, as `inflightkv keys --values` prints them; they are sent in batches.",
        )
        .arg(key(false).required_unless_present("ndjson"))
        .arg(value("The value as JSON; `-` or none: standard input; `@FILE`: the content of a file"))
        .arg(
            Arg::new("ndjson")
                .long("ndjson")
                .value_name("FILE")
                .value_parser(ValueParser::path_buf())
                .value_hint(ValueHint::FilePath)
                .conflicts_with_all([
                    "key", "value", "ttl", "keep-ttl", "if-version", "if-match", "if-none-match", "content-type",
                ])
                .help("Store every line of a file (`-`: standard input)"),
        )
        .arg(ttl("Let it expire after this time (90, 1500ms, 90s, 15m, 12h, 7d)"))
        .arg(
            Arg::new("keep-ttl")
                .long("keep-ttl")
                .action(ArgAction::SetTrue)
                .conflicts_with("ttl")
                .help("Keep the expiry that the key has; without, a put clears it"),
        )
        .arg(
            Arg::new("if-none-match")
                .long("if-none-match")
                .value_name("ETAG")
                .help("Only if the key has none of these etags; `*`: only if it does not exist"),
        );
    conditions(command)
        .arg(content_type("Media type of the value, if it is not JSON"))
        .arg(durability())
}

fn patch() -> Command {
    let command = client(Command::new("patch"))
        .about("Change a stored document by a JSON Merge Patch (RFC 7396), or with --json-patch by a JSON Patch (RFC 6902)")
        .after_help("Prints what came of it as one line of JSON.")
        .arg(key(true))
        .arg(value("The patch; `-` or none: standard input; `@FILE`: the content of a file"))
        .arg(
            Arg::new("json-patch")
                .long("json-patch")
                .action(ArgAction::SetTrue)
                .conflicts_with("content-type")
                .help("The patch is a list of operations (RFC 6902)"),
        )
        .arg(ttl("Let the key expire after this time; `none`: never"));
    conditions(command)
        .arg(content_type("Media type of the patch"))
        .arg(durability())
}

fn del() -> Command {
    let command = client(Command::new("del"))
        .about("Delete a key")
        .arg(key(true));
    conditions(command).arg(durability())
}

fn keys() -> Command {
    client(Command::new("keys"))
        .about("Print the keys, one a line, in no particular order")
        .arg(
            Arg::new("prefix")
                .long("prefix")
                .value_name("TEXT")
                .help("Only keys that begin with this"),
        )
        .arg(
            Arg::new("limit")
                .long("limit")
                .value_name("N")
                .value_parser(clap::value_parser!(u64).range(1..))
                .help("At most this many"),
        )
        .arg(
            Arg::new("values")
                .long("values")
                .action(ArgAction::SetTrue)
                .help("A line of JSON a key, with key, version, etag and value"),
        )
}

fn watch() -> Command {
    client(Command::new("watch"))
        .about("Print changes as they happen, a line of JSON each, in order")
        .long_about(
            "Print changes as they happen, a line of JSON each, in order.\n\nEvery line has the sequence of its change; \
             a watch that ended goes on after it with --from SEQUENCE+1. A line with \"op\":\"gap\" says that \
             changes asked for are kept no longer.",
        )
        .arg(
            Arg::new("prefix")
                .long("prefix")
                .value_name("TEXT")
                .help("Only keys that begin with this"),
        )
        .arg(
            Arg::new("from")
                .long("from")
                .value_name("SEQUENCE")
                .value_parser(clap::value_parser!(u64))
                .help("The changes from this one on; without it those that are still to come"),
        )
        .arg(
            Arg::new("values")
                .long("values")
                .action(ArgAction::SetTrue)
                .help("With the value that each change gave its key"),
        )
        .arg(
            Arg::new("limit")
                .long("limit")
                .value_name("N")
                .value_parser(clap::value_parser!(u64).range(1..))
                .help("End after this many changes"),
        )
}

/// Arguments that every subcommand has that talks to a server.
fn client(command: Command) -> Command {
    command
        .arg(
            Arg::new("url")
                .long("url")
                .value_name("URL")
                .help("Where the server is [default: http://127.0.0.1:8080, env: INFLIGHTKV_URL]"),
        )
        .arg(
            Arg::new("tls-ca")
                .long("tls-ca")
                .value_name("FILE")
                .value_parser(ValueParser::path_buf())
                .value_hint(ValueHint::FilePath)
                .help("Certificates in PEM of the authorities that are trusted; https takes it"),
        )
        .arg(
            Arg::new("token-file")
                .long("token-file")
                .value_name("FILE")
                .value_parser(ValueParser::path_buf())
                .value_hint(ValueHint::FilePath)
                .help(
                    "A file that holds the token to send [env: INFLIGHTKV_TOKEN, the token itself]",
                ),
        )
        .arg(
            Arg::new("timeout")
                .long("timeout")
                .value_name("D")
                .default_value("30s")
                .help("How long to wait for the server to go on"),
        )
}

fn key(required: bool) -> Arg {
    Arg::new("key")
        .value_name("KEY")
        .required(required)
        .help("The key, as it is")
}

fn value(help: &'static str) -> Arg {
    Arg::new("value")
        .value_name("VALUE")
        .value_parser(ValueParser::os_string())
        .allow_negative_numbers(true)
        .help(help)
}

fn ttl(help: &'static str) -> Arg {
    Arg::new("ttl").long("ttl").value_name("D").help(help)
}

fn content_type(help: &'static str) -> Arg {
    Arg::new("content-type")
        .long("content-type")
        .value_name("TYPE")
        .help(help)
}

fn conditions(command: Command) -> Command {
    command
        .arg(
            Arg::new("if-version")
                .long("if-version")
                .value_name("N")
                .allow_negative_numbers(true)
                .value_parser(clap::value_parser!(i64).range(-1..))
                .help("Only if the key has this version; -1: only if it does not exist"),
        )
        .arg(
            Arg::new("if-match")
                .long("if-match")
                .value_name("ETAG")
                .help("Only if the key has this etag; `*`: only if it exists"),
        )
}

fn durability() -> Arg {
    Arg::new("durability")
        .long("durability")
        .value_name("MODE")
        .value_parser(PossibleValuesParser::new(["sync", "async"]))
        .help("Answer when it is on stable storage, or when it is applied [default: as the server is configured]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn every_setting_is_a_flag_of_serve_and_of_the_bare_command() {
        for setting in SETTINGS {
            let flag = format!("--{}=x", setting.name);
            let bare = command().try_get_matches_from(["inflightkv", &flag]);
            let bare = given_settings(&bare.expect("a flag of the bare command"));
            assert_eq!(bare, [(setting.name, OsString::from("x"))]);
            let serve = command().try_get_matches_from(["inflightkv", "serve", &flag]);
            let serve = serve.expect("a flag of serve");
            let (_, serve) = serve.subcommand().expect("a subcommand");
            assert_eq!(given_settings(serve), bare);
        }
    }
}
