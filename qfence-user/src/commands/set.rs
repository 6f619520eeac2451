//! `set`: changes the policy of a running fence, with or without a supervisor.

use std::{os::fd::AsFd, time::Duration};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use qfence_common::Action;

use super::require_root;
use crate::{
    base::{clock::since_boot, console::notify, paths::Paths},
    cli::{Set, resolve},
    compile::shadow,
    fence::registry::Fences,
    kernel,
    policy::{
        Loaded, Policy, given_default,
        rule::{Rule, Source, Until},
    },
    supervise::{
        established::{self, Connection},
        policy_change::{PolicyChange, change_policy},
        timer::Timer,
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
    let until = options.duration.map(end_of).transpose()?;
    let make = |policy: &Policy| {
        let profile = match &profile {
            None if options.reload => Some(reloaded(policy, paths)?),
            given => given.clone(),
        };
        renewed(options, until.as_ref(), profile, policy)
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    let mut changed = runtime.block_on(async {
        // Before the rules are in force, so that nobody can keep them from being taken back.
        let timer = match &until {
            Some(until) => {
                fences.enforced(&options.name)?;
                let timer = Timer::start(&options.name, until.boot_ns).await;
                Some(timer.context("--for: cannot start the process that takes the rules back")?)
            }
            None => None,
        };
        let keeps = options.keep_established;
        let changed = change_policy(&fences, paths, &options.name, keeps, make).await?;
        if let Some(timer) = timer {
            timer.leave();
        }
        anyhow::Ok(changed)
    })?;
    warn_of_what_monitoring_left(&changed);
    if options.keep_established {
        return changed.fail_for_names();
    }
    end_denied(&fences, paths, &options.name, &mut changed)
}

/// The end of rules for a while.
fn end_of(duration: Duration) -> Result<Until> {
    let boot_ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let time = Timestamp::now().checked_add(duration)?;
    Ok(Until {
        boot_ns: since_boot()?.saturating_add(boot_ns),
        time: format!("{time:.0}"),
    })
}

/// Ends the connections that a new policy denies.
///
/// # Errors
/// If they cannot be ended, or addresses of names are left that the policy denies. The policy is in force anyway.
pub(super) fn end_denied(
    fences: &Fences,
    paths: &Paths,
    name: &str,
    changed: &mut PolicyChange,
) -> Result<()> {
    let names = changed.fail_for_names();
    let ended = end_established(fences, paths, name, changed)
        .and_then(|standing| fail_for_standing(&standing, name));
    match (names, ended) {
        (Err(names), Err(ended)) => Err(ended.context(format!("{names:#}"))),
        (names, ended) => names.and(ended),
    }
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
///
/// A rule for a while hides earlier ones only until it ends, so it removes none, except the same rule with another end.
fn renewed(
    options: &Set,
    until: Option<&Until>,
    profile: Option<Loaded>,
    policy: &Policy,
) -> Result<Policy> {
    let mut rules = options.policy.rules.rules(|text| Source::Running {
        text: format!("set {text}"),
        until: None,
    });
    for rule in &mut rules {
        if let Source::Running { until: end, .. } = &mut rule.source {
            *end = until.cloned();
        }
    }
    let is_again = |rule: &Rule| {
        let same = |new: &Rule| new.action == rule.action && new.matches == rule.matches;
        until.is_some() && is_for_a_while(rule) && rules.iter().any(same)
    };
    let policy = policy.changed(|policy| policy.given.retain(|rule| !is_again(rule)))?;
    let new = rules.len();
    let changed = policy.changed(|policy| apply(options, rules, profile, policy))?;
    let mut given_now = shadow::find(&changed)?;
    given_now.retain(|shadowed| shadowed.index < new);
    resolve::warn(&given_now);
    let lasting = changed.changed(|policy| policy.given.retain(|rule| !is_for_a_while(rule)))?;
    let new = if until.is_none() { new } else { 0 };
    let mut earlier = shadow::find(&lasting)?;
    earlier.retain(|shadowed| shadowed.index >= new);
    let mut index = 0;
    let mut is_dead = |rule: &Rule| {
        if is_for_a_while(rule) {
            return false;
        }
        index += 1;
        earlier.iter().any(|shadowed| shadowed.index == index - 1)
    };
    Ok(changed.changed(|policy| policy.given.retain(|rule| !is_dead(rule)))?)
}

fn is_for_a_while(rule: &Rule) -> bool {
    rule.source.end().is_some()
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
    name: &str,
    changed: &PolicyChange,
) -> Result<Vec<Connection>> {
    let place = fences.place(name);
    let owners = kernel::owners(&fences.pins(name))?;
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
