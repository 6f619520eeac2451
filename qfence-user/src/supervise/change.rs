//! Changes the policy of a fence while it is in force, with or without its supervisor.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use qfence_common::{Action, Marks, Path as Way, Protocol, verdict::MANY};

use crate::{
    base::{paths::Paths, say::say},
    compile::{Compiled, compile},
    fence::registry::{Condition, Fences},
    host::{netlink::LocalRoutes, resolv},
    kernel::Maps,
    policy::{
        Numbered, Policy, Sets,
        hostset::{host_set, many_set},
    },
    store::{Stored, netns},
    supervise::established::Connection,
};

/// A policy that has just been put in force.
pub struct Changed {
    /// It.
    pub policy: Policy,
    /// What the programs have noted of the fence.
    pub marks: Marks,
    compiled: Compiled,
}

impl Changed {
    /// Whether it refuses what a connection that stands sends.
    #[must_use]
    pub fn denies(&self, connection: &Connection) -> bool {
        // Of UDP the packets are judged, and nobody needs to be told. But of what goes to many the host gets its copy
        // before.
        let to = connection.remote;
        let verdict = self
            .compiled
            .decide(Way::Address, Protocol::TCP, to.ip(), to.port());
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
pub async fn change(
    fences: &Fences,
    paths: &Paths,
    name: &str,
    keeps_established: bool,
    make: impl FnOnce(&Policy) -> Result<Policy>,
) -> Result<Changed> {
    let condition = fences.enforced(name)?;
    let store = fences.store(name);
    let mut maps = Maps::open(&fences.pins(name))?;
    // Read before the lock is taken: others wait for that.
    let fresh = match condition {
        Condition::Orphaned => Some((netns()?, host_of_this_host().await?)),
        _ => None,
    };

    let _lock = store.lock()?;
    let before = store
        .read()?
        .with_context(|| format!("the fence {name} has no policy yet: it is being started"))?;
    let policy = make(&before.policy)?;
    let begins_dns = policy.names_dns() && !before.policy.names_dns();
    let mut sets = before.sets;
    match fresh {
        // Nobody follows the host's addresses for it any more.
        Some((here, fresh)) if here == before.netns => {
            let last = sets.nameservers;
            sets = fresh;
            sets.nameservers = match resolv::read(&paths.resolv_conf) {
                // The addresses are brought up to date all the same.
                Err(error) if policy.names_dns() && !begins_dns => {
                    let stays = resolv::what_stays(last.len());
                    say(format_args!("warning: {error:#}: {stays}"));
                    last
                }
                Err(_) if !policy.names_dns() => last,
                read => read?,
            };
        }
        // Its addresses are others than those here.
        Some(_) => {}
        // Its supervisor begins to follow them when it sees that.
        None if begins_dns => sets.nameservers = resolv::read(&paths.resolv_conf)?,
        None => {}
    }
    let rules = policy.rules();
    let compiled = compile(&rules, &sets, policy.monitor)?;
    let stored = Stored {
        policy,
        sets,
        netns: before.netns,
        generation: before.generation + 1,
    };
    let pending = store.prepare(&stored)?;
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
        say(
            "warning: connections that an earlier change denied, and could not end, may go on: give the rules without \
             --keep-established to have them end",
        );
    }
    Ok(Changed {
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

/// The members of the sets on this host now.
///
/// # Errors
/// If they cannot be read.
pub async fn sets_of_this_host(paths: &Paths) -> Result<Sets> {
    Ok(Sets {
        nameservers: resolv::read(&paths.resolv_conf)?,
        ..host_of_this_host().await?
    })
}

/// Those of them that the kernel tells.
async fn host_of_this_host() -> Result<Sets> {
    let local = LocalRoutes::subscribe()?.dump().await?;
    Ok(Sets {
        host: host_set(local.all),
        many: many_set(local.broadcast),
        nameservers: BTreeSet::new(),
    })
}
