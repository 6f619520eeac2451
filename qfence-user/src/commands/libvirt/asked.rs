//! What a domain asks for, as options of `attach`, and what its QEMU is given beside libvirt's own arguments.

use std::ffi::OsString;

use anyhow::{Context as _, Result};
use clap::Parser;

use crate::{
    base::name::check_name,
    cli::Attach,
    qemu::{self, executables, taps::Tap},
};

/// The networks that no fence sees among arguments of a QEMU, in words.
pub(super) fn unseen_of(arguments: &[String]) -> Vec<String> {
    let mut command = vec![OsString::from("qemu")];
    command.extend(arguments.iter().map(OsString::from));
    let found = qemu::inspect(&command, |_| None, executables::read_again_later);
    let doors = found.doors.into_iter();
    // The fence refuses to open the device: only libvirt's own interfaces are opened before.
    let taps = found.taps.iter().map(Tap::door);
    doors
        .chain(taps)
        .map(|door| format!("in <qemu:commandline>, {}", door.warning()))
        .collect()
}

/// The command line of `attach`: the options for the domain, and then those of the hook.
///
/// # Errors
/// If the options are not those of `attach`, or the domain has a name that no fence can have.
pub(super) fn to_attach(domain: &str, asked: &[String], options: &[String]) -> Result<Attach> {
    // The target is replaced by the partition.
    let target = format!("--domain={domain}");
    let mut words = vec!["qfence-user".to_owned(), target, "--detach".into()];
    if !asked.iter().any(|word| word.starts_with("--name=")) {
        words.push(format!("--name={domain}"));
    }
    words.extend_from_slice(asked);
    let gives = |option: &str| {
        let with_value = format!("{option}=");
        asked.iter().any(|word| word.starts_with(&with_value))
    };
    let mut rest = options.iter();
    while let Some(word) = rest.next() {
        let (key, value) = match word.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (word.as_str(), None),
        };
        // The domain's own comes before that of the hook.
        if matches!(key, "--profile" | "--default") && gives(key) {
            if value.is_none() {
                rest.next();
            }
            continue;
        }
        words.push(word.clone());
    }
    let line = Line::try_parse_from(words);
    let line = line.context("cannot understand the options for the domain and of the hook")?;
    let name = line.attach.name.as_deref().unwrap_or_default();
    check_name(name).context("give the fence of the domain another name (name)")?;
    Ok(line.attach)
}

/// The options of `attach` as a command line of their own.
#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    attach: Attach,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::rule::Source;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn attach(asked: &str, options: &str) -> Result<Attach> {
        to_attach("vm 1", &words(asked), &words(options))
    }

    #[test]
    fn what_the_domain_asks_for_comes_before_the_options_of_the_hook() {
        let given = attach(
            "--profile=internet-only --deny=lan",
            "--profile host --deny any",
        );
        let given = given.unwrap();
        assert!(given.detach);
        assert_eq!(given.name.as_deref(), Some("vm 1"));
        assert_eq!(given.policy.profile.unwrap(), "internet-only");
        let rules = given.policy.rules.rules(|text| Source::Flag { text });
        let rules: Vec<_> = rules.iter().map(|rule| rule.source.to_string()).collect();
        assert_eq!(rules, ["--deny lan", "--deny any"]);
        let given = attach("--name=web", "--profile=host").unwrap();
        assert_eq!(given.name.as_deref(), Some("web"));
        assert_eq!(given.policy.profile.unwrap(), "host");
    }

    #[test]
    fn networks_among_the_arguments_of_qemu_are_looked_at() {
        let unseen = |text: &str| unseen_of(&words(text));
        for text in [
            "-netdev tap,id=n,ifname=tap7,script=no,downscript=no",
            "-netdev tap,id=n",
            "-nic bridge,br=virbr0",
            "-device vhost-vsock-pci,guest-cid=3",
            "-readconfig /nonexistent/file",
        ] {
            let found = unseen(text);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert!(found[0].starts_with("in <qemu:commandline>, "), "{found:?}");
        }
        for text in ["", "-netdev user,id=n -device virtio-net,netdev=n", "-S"] {
            assert!(unseen(text).is_empty(), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_done_is_an_error() {
        for (asked, options) in [
            ("--name=a/b", ""),
            ("", "--pid=8"),
            ("", "--cgroup=/"),
            ("", "--metrics=127.0.0.1:1"),
            ("", "--nonsense"),
        ] {
            assert!(attach(asked, options).is_err(), "{asked} {options}");
        }
    }
}
