//! `oci-hook`: the runtime calls it when the first process of the container is in its cgroup, and nothing of the image
//! was executed yet. If it fails, the runtime does not start the container.

use std::{fs, io::stdin, time::Duration};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;

use super::super::{attach, require_root};
use crate::{
    base::{console::notify, name::check_name, paths::Paths, printable::printable, system_log},
    cli::{Attach, OciHook, Stage},
    fence::registry::Fences,
    workload::{
        Target,
        oci::{
            annotations,
            attach::{name, words},
            giver::Giver,
            state::State,
        },
        uplink::IN_A_FENCE,
        words_of_started,
    },
};

/// Runs `oci-hook`.
///
/// # Errors
/// If the container cannot be fenced, or its fence cannot be removed.
pub(in crate::commands) fn run(options: &OciHook, paths: &Paths) -> Result<()> {
    let done = hook(options, paths);
    if let Err(error) = &done {
        // crun does not pass on what a hook writes to standard error. There need not be a system's log.
        let _ = system_log::write(&printable(format!("error: {error:#}").as_bytes()));
    }
    done
}

fn hook(options: &OciHook, paths: &Paths) -> Result<()> {
    require_root()?;
    check_namespace(&fs::read_to_string(USERS).unwrap_or_default())?;
    let state = State::read(stdin())?;
    // A container that has run was trusted.
    let is_trusted = options.trust_annotations || options.stage == Stage::Poststop;
    let giver = Giver::of(&state.annotations, is_trusted);
    let asked = annotations::options(&state.annotations, giver)?;
    match options.stage {
        Stage::CreateRuntime => {
            let attach = to_attach(&state, &options.options, &asked)?;
            let target = Target::Starting {
                id: state.id.clone(),
                pid: state.first()?,
                bundle: state.bundle.clone(),
            };
            attach::run_on(&attach, Some(&target), &[], None, paths)
                .map(|_| ())
                .with_context(|| format!("the container {} is not fenced", state.id))
        }
        Stage::Poststop => remove(&state, name(&state.id, &asked), paths),
    }
}

/// The user ids of the user namespace of this process. The file does not exist if the kernel has no user namespaces.
const USERS: &str = "/proc/self/uid_map";

/// Checks that this process is root of the host, by the text of [`USERS`]. The hooks of a user's container run as root of a
/// user namespace, where the kernel allows no eBPF programs.
fn check_namespace(users: &str) -> Result<()> {
    ensure!(
        users.is_empty() || users.split_whitespace().eq(["0", "0", "4294967295"]),
        "a hook cannot fence the container of a user other than root: leave out its annotations, and start it in a fence \
         ({IN_A_FENCE})"
    );
    Ok(())
}

/// The command line of `attach` for a container.
fn to_attach(state: &State, options: &[String], asked: &[String]) -> Result<Attach> {
    let pid = state.first()?.to_string();
    check_name(name(&state.id, asked))?;
    parse(words(["--pid", &pid], &state.id, options, asked))
        .context("cannot understand the options of the hook and the annotations")
}

/// Parses the words after `attach`.
pub(in crate::commands) fn parse(words: Vec<String>) -> Result<Attach, clap::Error> {
    let program = "qfence-user".to_owned();
    let line = Line::try_parse_from([program].into_iter().chain(words));
    line.map(|line| line.attach)
}

/// The options of `attach` as a command line of their own.
#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    attach: Attach,
}

/// Removes the fence of a container that has ended. There is none if the container was never fenced, and a fence of this
/// name may be another's.
fn remove(state: &State, name: &str, paths: &Paths) -> Result<()> {
    let fences = Fences::open(paths)?;
    let attached = fences.description(name).and_then(|fence| fence.attached);
    let words = printable(words_of_started(&state.id).as_bytes());
    if attached.is_none_or(|attached| attached.workload != words) {
        return Ok(());
    }
    fences.remove(name, Duration::ZERO, &mut |note| notify(note))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::rule::Source;

    fn state(annotations: &str) -> State {
        let id = "ab".repeat(32);
        let text = format!(r#"{{"id":"{id}","pid":7,"annotations":{annotations}}}"#);
        State::read(text.as_bytes()).unwrap()
    }

    fn asked(state: &State) -> Vec<String> {
        annotations::options(&state.annotations, Giver::Trusted).unwrap()
    }

    fn rules(attach: &Attach) -> Vec<String> {
        let rules = attach.policy.rules.rules(|text| Source::Flag { text });
        rules.iter().map(|rule| rule.source.to_string()).collect()
    }

    #[test]
    fn a_container_is_attached_to_and_left() {
        let state = state("{}");
        let options = ["--profile".to_owned(), "internet-only".to_owned()];
        let attach = to_attach(&state, &options, &asked(&state)).unwrap();
        assert!(attach.detach);
        assert_eq!(attach.name.as_deref(), Some("abababababab"));
        assert_eq!(attach.policy.profile.unwrap(), "internet-only");
    }

    #[test]
    fn an_annotation_does_not_override_a_rule_of_the_hook_that_denies() {
        let state = state(r#"{"qfence.allow":"any","qfence.deny":"lan","qfence.name":"web"}"#);
        let options = ["--deny".to_owned(), "192.0.2.0/24".to_owned()];
        let attach = to_attach(&state, &options, &asked(&state)).unwrap();
        assert_eq!(attach.name.as_deref(), Some("web"));
        assert_eq!(
            rules(&attach),
            ["--deny lan", "--deny 192.0.2.0/24", "--allow any"]
        );
    }

    #[test]
    fn root_of_a_user_namespace_is_not_root_of_the_host() {
        for users in ["         0          0 4294967295\n", ""] {
            check_namespace(users).unwrap();
        }
        for users in [
            "         0      59123          1\n         1     100000      65536\n",
            "         0          0      65536\n",
        ] {
            let refused = check_namespace(users).unwrap_err().to_string();
            assert!(refused.contains("user other than root"), "{refused}");
        }
    }

    #[test]
    fn what_cannot_be_done_is_an_error() {
        let plain = state("{}");
        let named = ["--name=a/b".to_owned()];
        assert!(to_attach(&plain, &[], &named).is_err());
        for option in [
            "--pid=8",
            "--cgroup=/",
            "--metrics=127.0.0.1:1",
            "--nonsense",
        ] {
            let options = [option.to_owned()];
            assert!(to_attach(&plain, &options, &[]).is_err(), "{option}");
        }
        let none = State::read(r#"{"id":"a","pid":0}"#.as_bytes()).unwrap();
        assert!(to_attach(&none, &[], &[]).is_err());
    }
}
