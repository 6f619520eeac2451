//! `set`: changes the policy of a running fence, with or without a supervisor.

use std::os::fd::AsFd;

use anyhow::{Context, Result, bail};
use qfence_common::Action;

use super::require_root;
use crate::{
    base::{console::notify, paths::Paths},
    cli::{Set, resolve},
    compile::shadow,
    fence::registry::Fences,
    kernel,
    policy::{
        Loaded, Policy, given_default,
        rule::{Rule, Source},
    },
    supervise::{
        established::{self, Connection},
        policy_change::{PolicyChange, change_policy},
    },
};

/// The maximum number of remaining connections that are named.
const NAMED: usize = 20;

/// Runs `set`.
///
/// # Errors
/// If the fence does not exist, or the new policy is invalid; then nothing is changed. Also if connections that the new
/// policy denies cannot be ended; then the policy is in force anyway.
pub fn run(options: &Set, paths: &Paths) -> Result<()> {
    require_root()?;
    // All options are checked before the fence is opened.
    let profile = match &options.policy.profile {
        Some(name) => Some(resolve::profile(name, &paths.profiles)?),
        None => None,
    };
    if !options.keep_established {
        established::check(&paths.program)
            .context("give --keep-established to change the policy anyway")?;
    }
    let fences = Fences::look(paths)?;
    let make = |policy: &Policy| {
        let profile = match &profile {
            None if options.reload => Some(reloaded(policy, paths)?),
            given => given.clone(),
        };
        renewed(options, profile, policy)
    };
    let changed = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?
        .block_on(change_policy(
            &fences,
            paths,
            &options.name,
            options.keep_established,
            make,
        ))?;
    warn_of_what_monitoring_left(&changed);
    if options.keep_established {
        return Ok(());
    }
    let standing = end_established(&fences, paths, options, &changed)?;
    fail_for_standing(&standing, &options.name)
}

/// After monitor mode ends, warns of things that processes got in monitor mode and can keep.
fn warn_of_what_monitoring_left(changed: &PolicyChange) {
    if changed.policy.monitor {
        return;
    }
    let marks = changed.marks;
    let left: Vec<_> = [
        (marks.monitored_devices, "network devices such as /dev/net/tun"),
        (
            marks.monitored_options,
            "socket options for broadcast or multicast groups",
        ),
        (
            marks.monitored_sockets,
            "sockets that are refused from now on (their packets are dropped, but the host gets copies of packets that they \
             broadcast or send to IPv4 groups)",
        ),
    ]
    .into_iter()
    .filter_map(|(is_left, what)| (is_left != 0).then_some(what))
    .collect();
    if !left.is_empty() {
        notify(format_args!(
            "warning: processes of the fence may still have what they got in monitor mode: {}; restart the fence to remove \
             them",
            left.join(", ")
        ));
    }
}

/// The policy with the changes of the options. Earlier rules that can never match any more are removed, so that
/// repeated changes do not accumulate rules.
fn renewed(options: &Set, profile: Option<Loaded>, policy: &Policy) -> Result<Policy> {
    let rules = options.policy.rules.rules(|text| Source::Running {
        text: format!("set {text}"),
    });
    let new = rules.len();
    let changed = policy.changed(|policy| apply(options, rules, profile, policy))?;
    let (given_now, earlier): (Vec<_>, Vec<_>) = shadow::find(&changed)?
        .into_iter()
        .partition(|shadowed| shadowed.index < new);
    resolve::warn(&given_now);
    let mut index = 0;
    let mut is_dead = |_: &Rule| {
        index += 1;
        earlier.iter().any(|shadowed| shadowed.index == index - 1)
    };
    Ok(changed.changed(|policy| policy.given.retain(|rule| !is_dead(rule)))?)
}

fn apply(options: &Set, rules: Vec<Rule>, profile: Option<Loaded>, policy: &mut Policy) {
    // The newest rules come first. After an older rule, a new one might have no effect.
    policy.given.splice(0..0, rules);
    if let Some(profile) = profile {
        policy.profile = profile;
    }
    if let Some(default) = options.policy.default {
        policy.default = Some(given_default(Action::from(default)));
    }
    if let Some(dns) = options.dns {
        policy.dns = dns;
    }
    policy.monitor = (policy.monitor || options.monitor) && !options.enforce;
}

/// The profile of a policy, read again from its source.
fn reloaded(policy: &Policy, paths: &Paths) -> Result<Loaded> {
    let Loaded { name, path, .. } = &policy.profile;
    let from = match path {
        Some(path) => path.as_os_str(),
        // By now there may be a file with this name.
        None => name.as_ref(),
    };
    resolve::profile(from, &paths.profiles)
}

/// Ends the connections that the new policy denies. Returns those that remain.
fn end_established(
    fences: &Fences,
    paths: &Paths,
    options: &Set,
    changed: &PolicyChange,
) -> Result<Vec<Connection>> {
    let place = fences.place(&options.name);
    let owners = kernel::owners(&fences.pins(&options.name))?;
    let denied = |connection: &Connection| changed.denies(connection);
    let ended = established::end(&paths.program, place.cgroup(), owners.fd().as_fd(), denied)
        .context(
            "the new policy is in force, and the fence sends nothing that it denies, but connections could not be ended",
        )?;
    match ended.connections.as_slice() {
        [] => {}
        [one] => notify(format_args!("ended {one}, which the new policy denies")),
        many => notify(format_args!(
            "ended {} connections that the new policy denies",
            many.len()
        )),
    }
    Ok(ended.standing)
}

/// Fails if connections remain that were to be ended.
fn fail_for_standing(standing: &[Connection], name: &str) -> Result<()> {
    if standing.is_empty() {
        return Ok(());
    }
    let mut named: Vec<String> = standing
        .iter()
        .take(NAMED)
        .map(Connection::to_string)
        .collect();
    if standing.len() > named.len() {
        named.push(format!("{} more", standing.len() - named.len()));
    }
    bail!(
        "the new policy is in force, but these connections could not be ended, because processes of the fence keep their \
         sockets locked: {}. Their packets are dropped from now on; end all processes of the fence with \
         `qfence-user rm {name}`",
        named.join(", ")
    )
}
