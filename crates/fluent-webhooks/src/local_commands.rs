//! Commands that work on this machine only: they refuse `--server` before they do anything, and
//! do not list it in their help.

use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgMatches, Command, CommandFactory, FromArgMatches};

use crate::cli::Cli;
use crate::output;

/// Each of these commands, or a command over all of these, with what it works on. All others
/// work at a server.
const LOCAL: [(&str, &str); 12] = [
    ("serve", "these settings"),
    ("check", "these settings"),
    ("verify", "these settings"),
    ("processes", "the queue of these settings"),
    ("events index", "the index of these settings"),
    ("reconcile", "the queue and the logins of these settings"),
    ("routes test", "these settings"),
    ("salvage", "the queue of these settings"),
    ("backup", "the queue of these settings"),
    ("cluster", "the queue of these settings"),
    ("spool status", "files of this machine"),
    ("spool", "the queue of these settings"),
];

/// The options that say at which server a command works.
const SERVER_OPTIONS: [&str; 5] = ["server", "token", "ca", "certificate", "key"];

/// The command line, in which no command lists options that it refuses.
pub(crate) fn command_line() -> Command {
    let mut command = Cli::command();
    // Options of a command are with its subcommands only once it is built.
    command.build();
    command.mut_subcommands(|sub| without_server(sub, ""))
}

fn without_server(command: Command, above: &str) -> Command {
    let path = joined(above, command.get_name());
    let command = match works_on(&path) {
        None => command,
        Some(_) => command.mut_args(|option| {
            let is_of_server = SERVER_OPTIONS.contains(&option.get_id().as_str());
            if is_of_server {
                option.hide(true)
            } else {
                option
            }
        }),
    };
    command.mut_subcommands(|sub| without_server(sub, &path))
}

fn joined(above: &str, name: &str) -> String {
    if above.is_empty() {
        name.to_owned()
    } else {
        format!("{above} {name}")
    }
}

/// What a command works on, if it works on this machine only.
fn works_on(path: &str) -> Option<&'static str> {
    let is_it = |local: &&(&str, &str)| {
        path.strip_prefix(local.0)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    };
    LOCAL.iter().find(is_it).map(|(_, what)| *what)
}

/// Reads the arguments of this process. A local command with `--server` is refused; where only
/// the environment names a server, it says that it does not go there.
///
/// # Errors
/// The exit code, with everything said.
pub(crate) fn parse() -> Result<Cli, ExitCode> {
    let mut command = command_line();
    let matches = command
        .try_get_matches_from_mut(std::env::args_os())
        .map_err(|error| refused(&error))?;
    let (path, leaf) = leaf_of(&matches);
    if matches!(leaf.try_get_one::<bool>("json"), Ok(Some(true))) {
        process::print_errors_as_json();
    }
    if let Some(what) = works_on(&path) {
        match leaf.value_source("server") {
            Some(ValueSource::CommandLine) => {
                let why = format!("`{path}` works on {what} only: leave out --server\n");
                return Err(said(&command.error(ErrorKind::ArgumentConflict, why)));
            }
            Some(ValueSource::EnvVariable) => output::note(&format!(
                "`{path}` works on {what} only, and not at the server of FLUENT_WEBHOOKS_SERVER"
            )),
            _ => {}
        }
    } else if let Some(option) = without_a_server(leaf) {
        let why = format!("`--{option}` is for a server: say which with --server URL\n");
        return Err(said(
            &command.error(ErrorKind::MissingRequiredArgument, why),
        ));
    }
    Cli::from_arg_matches(&matches).map_err(|error| said(&error.format(&mut command)))
}

/// An option about the way to a server, of a command line without one.
fn without_a_server(leaf: &ArgMatches) -> Option<&'static str> {
    if !matches!(leaf.try_contains_id("server"), Ok(false)) {
        return None;
    }
    SERVER_OPTIONS
        .into_iter()
        .find(|option| leaf.value_source(option) == Some(ValueSource::CommandLine))
}

/// The names of the command that was asked for, and its arguments.
fn leaf_of(matches: &ArgMatches) -> (String, &ArgMatches) {
    let mut path = String::new();
    let mut leaf = matches;
    while let Some((name, below)) = leaf.subcommand() {
        path = joined(&path, name);
        leaf = below;
    }
    (path, leaf)
}

/// Says what is wrong with the arguments. Commands without settings know no `--server` at all.
fn refused(error: &clap::Error) -> ExitCode {
    let is_server = matches!(
        error.get(ContextKind::InvalidArg),
        Some(ContextValue::String(name)) if name.starts_with("--server")
    );
    if is_key_alone(error) {
        let why = "`--key` is the private key of a certificate that is shown to a server, with --certificate. Fluent's public keys are in the settings: fluentcommerce.fluent-webhook-keys\n";
        return said(&command_line().error(ErrorKind::MissingRequiredArgument, why));
    }
    if error.kind() != ErrorKind::UnknownArgument || !is_server {
        return said(error);
    }
    let why = "this command works on files of this machine only: leave out --server\n";
    said(&command_line().error(ErrorKind::UnknownArgument, why))
}

/// True if `--key` was given and `--certificate` was not: who does so means another key.
fn is_key_alone(error: &clap::Error) -> bool {
    let missing = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::Strings(names)) => names.as_slice(),
        _ => return false,
    };
    error.kind() == ErrorKind::MissingRequiredArgument
        && matches!(missing, [name] if name.starts_with("--certificate"))
}

fn said(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every command without commands below it, by its names.
    fn leaves(command: &Command, above: &str, into: &mut Vec<(String, Command)>) {
        for sub in command
            .get_subcommands()
            .filter(|sub| sub.get_name() != "help")
        {
            let path = joined(above, sub.get_name());
            if sub
                .get_subcommands()
                .all(|below| below.get_name() == "help")
            {
                into.push((path, sub.clone()));
            } else {
                leaves(sub, &path, into);
            }
        }
    }

    fn all() -> Vec<(String, Command)> {
        let mut found = Vec::new();
        leaves(&command_line(), "", &mut found);
        found
    }

    #[test]
    fn help_lists_server_exactly_where_it_is_taken() {
        for (path, mut command) in all() {
            let knows = command
                .get_arguments()
                .any(|option| option.get_id() == "server");
            let help = command.render_long_help().to_string();
            let is_taken = knows && works_on(&path).is_none();
            assert_eq!(help.contains("--server"), is_taken, "{path}: {help}");
            assert_eq!(help.contains("--token"), is_taken, "{path}");
        }
    }

    #[test]
    fn a_key_without_its_certificate_is_told_from_fluents() {
        let asked = |args: &[&str]| command_line().try_get_matches_from(args).unwrap_err();
        let verify = ["x", "verify", "--body", "b", "--header", "h"];
        assert!(is_key_alone(&asked(
            &[&verify[..], &["--key", "k"]].concat()
        )));
        assert!(!is_key_alone(&asked(&["x", "verify", "--body", "b"])));
        assert!(!is_key_alone(&asked(
            &[&verify[..], &["--certificate", "c"]].concat()
        )));
    }

    #[test]
    fn every_local_command_is_one() {
        let paths: Vec<_> = all().into_iter().map(|(path, _)| path).collect();
        for (local, _) in LOCAL {
            let is_there = paths
                .iter()
                .any(|path| path == local || path.starts_with(&format!("{local} ")));
            assert!(is_there, "{local} is no command");
        }
    }
}
