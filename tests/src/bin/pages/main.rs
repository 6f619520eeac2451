//! `pages DIRECTORY SECONDS`: writes the man pages and the completions of qfence-user and qfence-verify, made from the
//! definition of their command lines, to `man` and `completions` in the directory. SECONDS, since 1970, is the date in the
//! pages. Run by `cargo xtask package` and `cargo xtask install`.

mod completions;
mod extra;
mod man;

use std::{env, fs, path::PathBuf, process::ExitCode};

use ::tests::exit::exit_code;
use anyhow::{Context as _, Result};
use clap::{Command, CommandFactory as _};
use jiff::{Timestamp, tz::TimeZone};
use qfence_user::cli::{Cli, Verifier};

fn main() -> ExitCode {
    exit_code("error", run())
}

fn run() -> Result<()> {
    let mut args = env::args_os().skip(1);
    let directory = PathBuf::from(args.next().context("pages DIRECTORY SECONDS")?);
    let seconds = args.next().and_then(|seconds| seconds.into_string().ok());
    let seconds = seconds
        .and_then(|text| text.parse().ok())
        .context("pages DIRECTORY SECONDS")?;
    let date = Timestamp::from_second(seconds)?
        .to_zoned(TimeZone::UTC)
        .date();
    let date = date.to_string();
    let mut files = Vec::from(man::written(&date));
    for program in programs() {
        files.extend(man::pages(&program, &date)?);
        files.extend(completions::files(&program)?);
    }
    for (name, text) in files {
        let path = directory.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
        }
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

/// The command lines, without what is hidden.
fn programs() -> [Command; 2] {
    [
        shown("qfence-user", &Cli::command()),
        shown("qfence-verify", &Verifier::command()),
    ]
}

/// A copy of a command without its hidden subcommands, which are qfence's own processes: a completion would offer them.
/// clap has no way to remove a subcommand, so the command is put together again.
fn shown(name: &'static str, command: &Command) -> Command {
    let verbs = command.get_subcommands().filter(|verb| !verb.is_hide_set());
    let options = command
        .get_arguments()
        .filter(|option| !option.is_hide_set());
    let mut shown = Command::new(name)
        .version(env!("CARGO_PKG_VERSION"))
        .about(command.get_about().cloned().unwrap_or_default())
        .args(options.cloned())
        .groups(command.get_groups().cloned())
        .subcommands(verbs.cloned())
        .subcommand_required(command.is_subcommand_required_set())
        .disable_help_subcommand(true);
    if let Some(text) = command.get_long_about() {
        shown = shown.long_about(text.clone());
    }
    if let Some(text) = command.get_after_help() {
        shown = shown.after_help(text.clone());
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_verbs_are_left_out_and_the_others_are_whole() {
        let [user, verify] = programs();
        let verbs: Vec<_> = user.get_subcommands().map(Command::get_name).collect();
        assert!(
            verbs.contains(&"exec") && verbs.contains(&"policy"),
            "{verbs:?}"
        );
        assert!(
            !verbs.contains(&"stand-in") && !verbs.contains(&"timer"),
            "{verbs:?}"
        );
        let all = Cli::command();
        let exec = |command: &Command| {
            let exec = command.find_subcommand("exec").unwrap();
            exec.get_arguments().count()
        };
        assert_eq!(exec(&user), exec(&all));
        assert_eq!(
            user.get_after_help().map(ToString::to_string),
            all.get_after_help().map(ToString::to_string)
        );
        let has = |option: &str| verify.get_arguments().any(|own| own.get_id() == option);
        assert!(has("json") && !has("build"));
    }
}
