//! `inflightkv token new`, `inflightkv audit verify`, and the file of `--auth` for the server.

use super::{Failure, print};
use crate::trust::{Role, Tokens, digest, generate, verify};
use clap::ArgMatches;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// The tokens of a file.
///
/// # Errors
/// One sentence with file, line, key, what was found and what could stand there.
pub(crate) fn read(path: &Path) -> Result<Tokens, String> {
    let name = path.display();
    let text = fs::read_to_string(path).map_err(|error| {
        format!("auth: found {name}, which cannot be read ({error}); expected a file of tokens")
    })?;
    Tokens::parse(&text).map_err(|error| format!("{name} {error}"))
}

/// Prints a new token once, and the table that makes it known to a server.
pub(crate) fn new_token(matches: &ArgMatches) -> Result<(), Failure> {
    let name = matches
        .get_one::<String>("name")
        .expect("the argument is required");
    let role = matches
        .get_one::<String>("role")
        .and_then(|role| Role::named(role))
        .expect("the argument is required, and its values are the roles");
    let token = generate()
        .map_err(|error| Failure::Failed(format!("the system gives no random bytes: {error}")))?;
    let mut table = format!(
        "[[token]]\nname = {}\nsha256 = \"{}\"\nrole = \"{}\"\n",
        toml::Value::from(name.as_str()),
        digest(token.as_bytes()),
        role.name()
    );
    if let Some(prefixes) = matches.get_many::<String>("prefix") {
        let prefixes: Vec<toml::Value> = prefixes.map(|prefix| prefix.as_str().into()).collect();
        writeln!(table, "prefixes = {}", toml::Value::Array(prefixes))
            .expect("a string takes whatever is written");
    }
    if let Some(expires) = matches.get_one::<String>("expires") {
        writeln!(table, "expires = {expires}").expect("a string takes whatever is written");
    }
    // What a server would refuse is not handed out.
    Tokens::parse(&table).map_err(|error| Failure::Usage(error.to_string()))?;
    print(
        format!("# The token, shown this once:\n# {token}\n\n# Its table for the file of --auth:\n{table}")
            .as_bytes(),
    )
}

/// Verifies an audit log.
pub(crate) fn verify_audit(matches: &ArgMatches) -> Result<(), Failure> {
    let files: Vec<&PathBuf> = matches
        .get_many::<PathBuf>("file")
        .expect("the argument is required")
        .collect();
    let report = verify(&files)
        .map_err(|(path, fault)| Failure::Failed(format!("{}: {fault}", path.display())))?;
    let names: Vec<String> = files
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let mut text = format!("{}: {} lines, all sound\n", names.join(", "), report.lines);
    if report.first > 1 {
        writeln!(
            text,
            "the first is number {}: those before it are in a file that was not named",
            report.first
        )
        .expect("a string takes whatever is written");
    }
    print(text.as_bytes())
}
