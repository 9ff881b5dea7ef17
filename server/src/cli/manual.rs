//! Completions and the manual page, made from the command line itself.

use clap::{ArgMatches, Command};
use clap_complete::Shell;
use clap_mangen::Man;

use super::{Failure, arguments, print};

const ENVIRONMENT: &str = r#".SH ENVIRONMENT
Every flag of the server has a variable: INFLIGHTKV_ and the name in capitals with _ for \-, such as INFLIGHTKV_DATA_DIR for \-\-data\-dir.
An unknown variable with that prefix is an error.
.TP
INFLIGHTKV_URL
where the client subcommands find the server
.TP
INFLIGHTKV_TOKEN
the token that the client subcommands send; \-\-token\-file comes before it
.SH FILES
.TP
DIR/LOCK
held while a server uses the data directory
.TP
DIR/wal
segments of the write\-ahead log
.TP
DIR/snapshots
manifests and parts of snapshots
.SH EXIT STATUS
.TP
0
success
.TP
1
failure, or damage found
.TP
2
wrong usage or configuration
.SH SIGNALS
SIGTERM and SIGINT end the server: it accepts no more connections, finishes requests in flight, syncs the log and exits with 0.
"#;

/// `inflightkv completions SHELL`
pub(crate) fn completions(matches: &ArgMatches) -> Result<(), Failure> {
    let shell = *matches
        .get_one::<Shell>("shell")
        .expect("the argument is required");
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut arguments::command(), "inflightkv", &mut script);
    print(&script)
}

/// `inflightkv man`: one page with every subcommand in it.
pub(crate) fn man() -> Result<(), Failure> {
    let mut command = arguments::command();
    command.build();
    let mut page = Vec::new();
    let man = Man::new(command.clone());
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    for subcommand in command.get_subcommands() {
        // Their flags are those above.
        let same = matches!(subcommand.get_name(), "serve" | "help");
        if !same {
            section(subcommand, &mut page)?;
        }
    }
    page.extend_from_slice(ENVIRONMENT.as_bytes());
    man.render_version_section(&mut page)?;
    print(&page)
}

fn section(subcommand: &Command, page: &mut Vec<u8>) -> Result<(), Failure> {
    let name = subcommand.get_name();
    page.extend_from_slice(format!(".SH \"inflightkv {name}\"\n").as_bytes());
    let subcommand = if name == "config" {
        without_settings(subcommand)
    } else {
        subcommand.clone()
    };
    let man = Man::new(subcommand);
    let mut parts = Vec::new();
    man.render_synopsis_section(&mut parts)?;
    man.render_description_section(&mut parts)?;
    man.render_options_section(&mut parts)?;
    let parts = String::from_utf8_lossy(&parts);
    for line in parts.lines() {
        // The subcommand has the heading; its parts are below it.
        let line = line.replacen(".SH ", ".SS ", 1);
        page.extend_from_slice(line.as_bytes());
        page.push(b'\n');
    }
    Ok(())
}

/// `config` takes the server's flags too; the page has them already.
fn without_settings(subcommand: &Command) -> Command {
    subcommand.clone().mut_args(|argument| {
        let setting = crate::config::settings::find(argument.get_id().as_str()).is_some();
        argument.hide(setting)
    })
}
