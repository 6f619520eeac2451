//! Changes the policy of a fence while it is in force, with or without its supervisor.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use qfence_common::{Action, LookupPath, Marks, Protocol, verdict::MANY};

use crate::{
    base::{console::notify, paths::Paths},
    compile::{Compiled, compile},
    fence::registry::{Condition, Fences},
    host::{addresses, nameservers},
    kernel::Maps,
    policy::{Numbered, Policy},
    stored_policy::{StoredPolicy, netns},
    supervise::established::Connection,
};

/// A policy that has just been put in force.
pub struct PolicyChange {
    /// It.
    pub policy: Policy,
    /// What the programs have noted of the fence.
    pub marks: Marks,
    compiled: Compiled,
}

impl PolicyChange {
    /// Whether it refuses what a connection that stands sends.
    #[must_use]
    pub fn denies(&self, connection: &Connection) -> bool {
        // Of UDP the packets are judged, and nobody needs to be told. But of what goes to many the host gets its copy
        // before.
        let to = connection.remote;
        let verdict = self
            .compiled
            .decide(LookupPath::Address, Protocol::TCP, to.ip(), to.port());
        let is_tcp = connection.protocol == Protocol::TCP;
        let is_copied = to.is_ipv4() && verdict.has(MANY);
        (is_tcp || is_copied) && verdict.action() == Action::Deny && !self.policy.monitor
    }
}

/// Makes of the policy of the fence `name` another one, and puts it in force: from when this returns,
/// everything is judged by it; of TCP connections that stand too, unless `keeps_established`. Must be called within a
/// tokio runtime.
///
/// # Errors
/// If there is no such fence, `make` fails, or the policy cannot be compiled or published: then nothing
/// is changed.
pub async fn change_policy(
    fences: &Fences,
    paths: &Paths,
    name: &str,
    keeps_established: bool,
    make: impl FnOnce(&Policy) -> Result<Policy>,
) -> Result<PolicyChange> {
    let condition = fences.enforced(name)?;
    let policy_file = fences.policy_file(name);
    let mut maps = Maps::open(&fences.pins(name))?;
    // Read before the lock is taken: others wait for that.
    let fresh = match condition {
        Condition::Orphaned => Some((netns()?, addresses::read().await?)),
        _ => None,
    };

    let _lock = policy_file.lock()?;
    let before = policy_file
        .read()?
        .with_context(|| format!("the fence {name} has no policy yet: it is being started"))?;
    let policy = make(&before.policy)?;
    let begins_dns = policy.names_dns() && !before.policy.names_dns();
    let mut sets = before.sets;
    match fresh {
        // Nobody follows the host's addresses for it any more.
        Some((here, fresh)) if here == before.netns => {
            (sets.host, sets.many) = (fresh.host, fresh.many);
            sets.nameservers = match nameservers::read(&paths.resolv_conf) {
                Ok(found) => found.addresses,
                Err(error) if begins_dns => return Err(error.into()),
                Err(error) => {
                    // The addresses are brought up to date all the same.
                    if policy.names_dns() {
                        let error = anyhow::Error::from(error);
                        notify(format_args!(
                            "warning: {error:#}: no nameserver is excepted from now on"
                        ));
                    }
                    BTreeSet::new()
                }
            };
        }
        // Its addresses are others than those here.
        Some(_) => {}
        // Its supervisor begins to follow them when it sees that.
        None if begins_dns => {
            sets.nameservers = nameservers::read(&paths.resolv_conf)?.addresses;
        }
        None => {}
    }
    let rules = policy.rules();
    let compiled = compile(&rules, &sets, policy.monitor)?;
    let stored = StoredPolicy {
        policy,
        sets,
        netns: before.netns,
        generation: before.generation + 1,
    };
    let pending = policy_file.prepare(&stored)?;
    for number in new_numbers(&before.policy, &rules) {
        maps.forget_hits(number)?;
    }
    // In monitor mode all goes on.
    let lets_stand = keeps_established || stored.policy.monitor;
    let may_go_on = keeps_established && !stored.policy.monitor && maps.judges_standing()?;
    // Before the policy is published: whatever becomes of this process, no connection carries on what it denies.
    maps.judge_standing(!lets_stand)?;
    maps.publish(&compiled)?;
    if takes_back(&before.policy, &stored.policy) {
        // After the policy is published: datagrams that are let go by now are let go by it.
        maps.note_change()?;
    }
    pending.keep()?;
    let marks = maps.marks()?;
    if may_go_on {
        notify(
            "warning: connections that an earlier change denied, and could not end, may go on: give the rules without \
             --keep-established to have them end",
        );
    }
    Ok(PolicyChange {
        policy: stored.policy,
        marks,
        compiled,
    })
}

/// Whether a policy may refuse what the one before allowed: it does more than to allow more by new rules.
fn takes_back(before: &Policy, after: &Policy) -> bool {
    let same = before.profile == after.profile
        && before.default == after.default
        && before.dns == after.dns
        && before.monitor == after.monitor;
    let mut new = after
        .given
        .iter()
        .filter(|rule| !before.given.contains(rule));
    !same || new.any(|rule| rule.action == Action::Deny)
}

/// The numbers that had no rule, or another one.
fn new_numbers(before: &Policy, rules: &[Numbered]) -> Vec<u32> {
    let before = before.rules();
    rules
        .iter()
        .filter(|numbered| !before.contains(numbered))
        .map(|numbered| numbered.number)
        .collect()
}
