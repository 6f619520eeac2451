//! `set`: changes the policy of a fence that runs, or of one that has lost its supervisor.

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

/// How many of the connections that cannot be ended are named.
const NAMED: usize = 20;

/// Runs `set`.
///
/// # Errors
/// If there is no such fence, or the new policy is no good: then nothing is changed. Or if connections
/// that it denies cannot be ended: then it is in force all the same.
pub fn run(options: &Set, paths: &Paths) -> Result<()> {
    require_root()?;
    // All that can be wrong with what is asked for, before the fence is looked at.
    let profile = match &options.policy.profile {
        Some(name) => Some(resolve::profile(name, &paths.profiles)?),
        None => None,
    };
    if !options.keep_established {
        established::check(&paths.program)
            .context("give --keep-established to change the policy all the same")?;
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

/// Says what a fence keeps that monitor mode let it have, once it is not only monitored any more.
fn warn_of_what_monitoring_left(changed: &PolicyChange) {
    if changed.policy.monitor {
        return;
    }
    let marks = changed.marks;
    let left: Vec<_> = [
        (marks.monitored_devices, "devices for networks"),
        (
            marks.monitored_options,
            "options by which sockets broadcast or join groups",
        ),
        (
            marks.monitored_sockets,
            "sockets that are refused from now on (their packets are dropped, but the host gets its copies of what they \
             broadcast or send to IPv4 groups)",
        ),
    ]
    .into_iter()
    .filter_map(|(is_left, what)| (is_left != 0).then_some(what))
    .collect();
    if !left.is_empty() {
        notify(format_args!(
            "warning: processes of the fence may keep what they got while it was monitored: {}; start it anew to take \
             that away",
            left.join(", ")
        ));
    }
}

/// The policy that comes of the options. Rules given earlier that can never match any more go, so that a
/// fence whose policy is changed all day does not pile them up.
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
    // What is said last counts first: a rule that an older one went before would change nothing.
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

/// The profile of a policy, read anew from where it came from.
fn reloaded(policy: &Policy, paths: &Paths) -> Result<Loaded> {
    let Loaded { name, path, .. } = &policy.profile;
    let from = match path {
        Some(path) => path.as_os_str(),
        // There may be a file of that name by now.
        None => name.as_ref(),
    };
    resolve::profile(from, &paths.profiles)
}

/// Ends the connections that the new policy denies. Returns those that stand all the same.
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
            "the new policy is in force, and nothing that it denies leaves the fence, but connections could not be ended",
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

/// Fails if connections stand that were to be ended.
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
        "the new policy is in force, but these connections could not be ended, as processes of the fence keep the \
         kernel from sockets: {}. What they send is dropped from now on; end all that runs there with \
         `qfence-user rm {name}`",
        named.join(", ")
    )
}
