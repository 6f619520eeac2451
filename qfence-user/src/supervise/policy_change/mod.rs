//! Changes the policy of a running fence, with or without a supervisor.

mod members;
mod surroundings;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use anyhow::{Context, Error, Result, ensure};
use qfence_common::{
    Action, LookupPath, Marks, Protocol, Verdict,
    resolved::{Resolved, decide_by_name},
    tree::port_query,
    verdict::{MANY, NAMED, POD},
};

use self::{
    members::{add_begun, sets_of},
    surroundings::Surroundings,
};
use crate::{
    base::{clock::since_boot, console::notify, paths::Paths},
    compile::{Compiled, compile},
    fence::registry::{Condition, Fences},
    kernel::{Maps, has_resolver, resolved::Addresses},
    policy::{Numbered, Policy},
    stored_policy::StoredPolicy,
    supervise::{established::Connection, taken_back::after_change},
};

/// What an error of taking addresses back leaves.
const LEFT: &str = "the new policy is in force, but addresses of names that it denies may be reached until their time is over";

/// A policy that was just published.
pub struct PolicyChange {
    /// The policy.
    pub policy: Policy,
    /// The marks that the programs have set for the fence.
    pub marks: Marks,
    compiled: Compiled,
    resolved: ByName,
    /// Where the fence's resolver of names listens.
    resolver: Vec<SocketAddr>,
    /// Why addresses of names may be in force that the policy denies.
    left: Option<Error>,
}

impl PolicyChange {
    /// Fails if addresses of names may be in force that the policy denies.
    ///
    /// # Errors
    /// That this is so. The policy is in force anyway.
    pub fn fail_for_names(&mut self) -> Result<()> {
        self.left.take().map_or(Ok(()), Err)
    }

    /// Whether the policy refuses packets of an established connection.
    #[must_use]
    pub fn denies(&self, connection: &Connection) -> bool {
        // A query that was led is the fence's as long as the policy has names, whatever nameserver it named.
        let is_led = self.policy.has_names() && self.resolver.contains(&connection.remote);
        !is_led && denies(&self.compiled, &self.policy, &self.resolved, connection)
    }
}

/// The addresses that rules by name allow, at one time.
#[derive(Default)]
pub(super) struct ByName(BTreeMap<IpAddr, Resolved>);

impl ByName {
    /// Reads them. Those that are over allow nothing.
    ///
    /// # Errors
    /// If the map or the clock cannot be read.
    pub(super) fn read(map: &Addresses) -> Result<Self> {
        let now = since_boot()?;
        let all = map.list()?.into_iter();
        Ok(Self(all.filter(|(_, of)| !of.is_over(now)).collect()))
    }

    /// The verdict on a destination for which the tree has this one.
    fn verdict(
        &self,
        compiled: &Compiled,
        verdict: Verdict,
        protocol: Protocol,
        to: SocketAddr,
    ) -> Verdict {
        let is_denied = verdict.action() == Action::Deny && verdict.has(NAMED);
        match self.0.get(&to.ip().to_canonical()) {
            Some(of_names) if is_denied => {
                let port = port_query(protocol, to.port());
                decide_by_name(compiled, verdict, port, &of_names.grants)
            }
            _ => verdict,
        }
    }
}

/// Whether a policy refuses packets of an established connection.
pub(super) fn denies(
    compiled: &Compiled,
    policy: &Policy,
    resolved: &ByName,
    connection: &Connection,
) -> bool {
    // UDP packets are judged anyway, so ending the connection is only needed to inform its owner. But for multicast
    // and broadcast, the host gets its copy before that.
    let to = connection.remote;
    let protocol = connection.protocol;
    let verdict = compiled.decide(LookupPath::Address, protocol, to.ip(), to.port());
    let verdict = resolved.verdict(compiled, verdict, protocol, to);
    let is_tcp = protocol == Protocol::TCP;
    if connection.by_self && verdict.self_rule().is_some() || verdict.has(POD) {
        return false;
    }
    let is_copied = to.is_ipv4() && verdict.has(MANY);
    (is_tcp || is_copied) && verdict.action() == Action::Deny && !policy.monitor
}

/// Changes the policy of the fence `name` with `make`, and publishes the result. When this returns, everything is
/// judged by the new policy, and so are established TCP connections, unless `keeps_established`. Must be called within
/// a tokio runtime.
///
/// # Errors
/// If the fence does not exist, `make` fails, or the policy cannot be compiled or published. Then nothing is changed. An error
/// after that is one of [`PolicyChange::fail_for_names`].
pub async fn change_policy(
    fences: &Fences,
    paths: &Paths,
    name: &str,
    keeps_established: bool,
    make: impl FnOnce(&Policy) -> Result<Policy>,
) -> Result<PolicyChange> {
    let condition = fences.enforced(name)?;
    let policy_file = fences.policy_file(name);
    let unlocked = policy_file.unlocked()?;
    let mut maps = Maps::open(&fences.pins(name))?;
    let no_policy = || format!("the fence {name} has no policy yet, because it is still starting");
    let surroundings = {
        let stored = policy_file.read()?.with_context(no_policy)?;
        Surroundings::of(fences, paths, name, &stored)?
    };
    let has_supervisor = !matches!(condition, Condition::Orphaned | Condition::Detached);
    // Read before the lock is taken, so that other commands do not wait for it.
    let fresh = match has_supervisor {
        true => None,
        false => surroundings.read(true).await?,
    };

    let lock = policy_file.lock_on(unlocked)?;
    let before = policy_file.read()?.with_context(no_policy)?;
    ensure!(
        surroundings.are_of(&before),
        "the fence {name} has another network namespace since a moment ago: try again"
    );
    let policy = make(&before.policy)?;
    let resolved = Addresses::open(&fences.pins(name))?;
    ensure!(
        !policy.has_names() || has_resolver(&fences.pins(name))?,
        "the fence {name} has no resolver, because it was started without a rule by name: start it with one, such as \
         --allow tcp:example.org:443, and `set` can add others"
    );
    let sets = match fresh {
        // The fence has no supervisor, so the host's addresses are read here.
        Some(facts) => sets_of(facts, &before, &policy)?,
        None => {
            let mut sets = before.sets.clone();
            add_begun(&mut sets, &before, &policy, &surroundings, name).await?;
            sets
        }
    };
    let rules = policy.rules();
    let compiled = compile(&rules, &sets, policy.monitor)?;
    let stored = StoredPolicy {
        policy,
        sets,
        netns: before.netns,
        resolv_conf: before.resolv_conf,
        generation: before.generation + 1,
        devices: before.devices,
        workload: before.workload,
    };
    let pending = policy_file.prepare(&stored)?;
    for number in new_numbers(&before.policy, &rules) {
        maps.forget_hits(number)?;
    }
    // In monitor mode, established connections continue.
    let lets_stand = keeps_established || stored.policy.monitor;
    let may_go_on = keeps_established && !stored.policy.monitor && maps.judges_standing()?;
    // Before the policy is published: then no established connection can continue against the new policy, even if this
    // process is killed.
    maps.judge_standing(!lets_stand)?;
    maps.publish(&compiled)?;
    if takes_back(&before.policy, &stored.policy) {
        // After the policy was published: datagrams that are allowed from now on are allowed by the new policy.
        maps.note_change()?;
    }
    pending.keep()?;
    // Others may change the policy from now on.
    drop(lock);
    let names = after_change(fences, name, &before.policy, &stored, has_supervisor).await;
    let (resolver, left) = match names.context(LEFT) {
        Ok(names) => (names.resolver, None),
        Err(error) => (Vec::new(), Some(error)),
    };
    let marks = maps.marks()?;
    if may_go_on {
        notify(
            "warning: connections that an earlier change denied and could not end may continue: repeat the rules without \
             --keep-established to end them",
        );
    }
    Ok(PolicyChange {
        policy: stored.policy,
        marks,
        compiled,
        resolved: ByName::read(&resolved)?,
        resolver,
        left,
    })
}

/// Whether the new policy may refuse something that the previous one allowed. This is not the case if it only adds
/// rules that allow.
pub(super) fn takes_back(before: &Policy, after: &Policy) -> bool {
    let same = before.profile == after.profile
        && before.default == after.default
        && before.dns == after.dns
        && before.monitor == after.monitor;
    let mut new = after
        .given
        .iter()
        .filter(|rule| !before.given.contains(rule));
    // Other rules that are removed could never match.
    let mut ended = before
        .given
        .iter()
        .filter(|rule| rule.source.end().is_some() && !after.given.contains(rule));
    !same
        || new.any(|rule| rule.action == Action::Deny)
        || ended.any(|rule| rule.action == Action::Allow)
}

/// The rule numbers that are new, or have another rule than before.
fn new_numbers(before: &Policy, rules: &[Numbered]) -> Vec<u32> {
    let before = before.rules();
    rules
        .iter()
        .filter(|numbered| !before.contains(numbered))
        .map(|numbered| numbered.number)
        .collect()
}
