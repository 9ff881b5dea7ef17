//! What the argument parser has to say, in the manner of every other error: one line, and exit code 2.

use std::process::ExitCode;

use clap::Error;
use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Help and version are answers; the rest is wrong usage.
pub(crate) fn answer(error: &Error) -> ExitCode {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    ) {
        // Whoever closed the output does not want to read it.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    super::complain(&line(error));
    ExitCode::from(2)
}

/// Place, what was found and what would be right.
fn line(error: &Error) -> String {
    let argument = text(error, ContextKind::InvalidArg).unwrap_or_default();
    let value = text(error, ContextKind::InvalidValue).unwrap_or_default();
    let place = "command line";
    match error.kind() {
        ErrorKind::UnknownArgument => {
            let expected = match text(error, ContextKind::SuggestedArg) {
                Some(suggested) => format!("{suggested}, perhaps"),
                None => "an argument that `inflightkv --help` lists".to_owned(),
            };
            format!("{place}: found the unknown argument \"{argument}\"; expected {expected}")
        }
        ErrorKind::InvalidSubcommand => {
            let found = text(error, ContextKind::InvalidSubcommand).unwrap_or_default();
            let expected = match text(error, ContextKind::SuggestedSubcommand) {
                Some(suggested) => format!("{suggested}, perhaps"),
                None => "a subcommand that `inflightkv --help` lists".to_owned(),
            };
            format!("{place}: found the unknown subcommand \"{found}\"; expected {expected}")
        }
        ErrorKind::InvalidValue if value.is_empty() => {
            format!("{place}: {argument}: found no value; expected one")
        }
        ErrorKind::InvalidValue => {
            let expected = text(error, ContextKind::ValidValue).unwrap_or_default();
            format!("{place}: {argument}: found \"{value}\"; expected one of {expected}")
        }
        ErrorKind::MissingRequiredArgument => {
            format!("{place}: found no {argument}; expected it to be given")
        }
        ErrorKind::ArgumentConflict => match text(error, ContextKind::PriorArg) {
            Some(prior) if prior == argument => {
                format!("{place}: {argument}: found more than once; expected at most once")
            }
            Some(prior) => {
                format!("{place}: {argument}: found together with {prior}; expected one of them")
            }
            None => first_sentence(error),
        },
        ErrorKind::ValueValidation => {
            let reason = std::error::Error::source(error)
                .map_or_else(|| "a valid value".to_owned(), ToString::to_string);
            format!("{place}: {argument}: found \"{value}\"; expected a valid value ({reason})")
        }
        _ => first_sentence(error),
    }
}

/// The first line of the parser's own words, for what has no case above.
fn first_sentence(error: &Error) -> String {
    let rendered = error.render().to_string();
    let first = rendered.lines().next().unwrap_or_default();
    format!(
        "command line: {}",
        first.strip_prefix("error: ").unwrap_or(first)
    )
}

fn text(error: &Error, kind: ContextKind) -> Option<String> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text.clone()),
        ContextValue::Strings(texts) => Some(texts.join(", ")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::arguments::command;
    use super::*;

    #[test]
    fn wrong_usage_is_one_line_that_names_what_was_found_and_what_would_be_right() {
        for (arguments, message) in [
            (
                &["--treads", "3"][..],
                "command line: found the unknown argument \"--treads\"; expected --threads, perhaps",
            ),
            (
                &["--frobnicate"],
                "command line: found the unknown argument \"--frobnicate\"; expected an argument that `inflightkv --help` \
                 lists",
            ),
            (
                &["serv"],
                "command line: found the unknown subcommand \"serv\"; expected serve, perhaps",
            ),
            (
                &["--threads"],
                "command line: --threads <N>: found no value; expected one",
            ),
            (
                &["--threads", "1", "--threads", "2"],
                "command line: --threads <N>: found more than once; expected at most once",
            ),
            (
                &["check"],
                "command line: found no <DIR>; expected it to be given",
            ),
            (
                &["put", "a", "1", "--if-version", "-2"],
                "command line: --if-version <N>: found \"-2\"; expected a valid value (-2 is not in -1..",
            ),
        ] {
            let all = std::iter::once(&"inflightkv").chain(arguments);
            let error = command()
                .try_get_matches_from(all)
                .expect_err("wrong usage");
            let line = line(&error);
            assert!(line.starts_with(message), "{arguments:?}: {line}");
            assert!(!line.contains('\n'), "{line}");
        }
    }
}
