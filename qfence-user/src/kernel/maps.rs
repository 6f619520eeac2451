//! The pinned maps of a fence. They outlive the supervisor, and other commands read and change them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow};
use aya::{
    Ebpf,
    maps::{Array, HashMap, Map, MapData, PerCpuArray},
};
use qfence_common::{
    Change, Hits, Marks, Pulse, RuleCounts, Sighting, Tally, abi, tally::more_hits_index,
};

use super::{
    flows::Flows,
    load::possible_cpus,
    slot::{First, Slot, put_together},
    tree::{self, FirstNodes, INNER_MAP, InForce, Tree},
};
use crate::{compile::Compiled, kernel::pins};

/// `BPF_F_NO_PREALLOC`: the map takes memory only for elements that exist.
pub(super) const NO_PREALLOC: u32 = 1;

/// How often reading the policy is tried.
const POLICY_TRIES: usize = 3;

/// The maps that are pinned.
const PINNED: [&str; 23] = [
    abi::POLICY_MAP,
    abi::FRONT_MAP,
    abi::HITS_MAP,
    abi::MORE_HITS_MAP,
    abi::SIGHTINGS_MAP,
    abi::COUNTERS_MAP,
    abi::OWNERS_MAP,
    abi::EVENTS_MAP,
    abi::REPEATS_MAP,
    abi::MORE_REPEATS_MAP,
    abi::TALLIES_MAP,
    abi::FLOWS_MAP,
    abi::FORGOTTEN_MAP,
    abi::RESOLVED_MAP,
    abi::PEERS_MAP,
    abi::PULSE_MAP,
    abi::CHANGE_MAP,
    abi::MARKS_MAP,
    abi::FRAME_DEVICES_MAP,
    abi::GUEST_MACS_MAP,
    abi::LEARNT_MACS_MAP,
    abi::GATEWAYS_MAP,
    abi::HOST_SENT_MAP,
];

pub(super) type MoreHits = Array<MapData, Hits>;
type Sightings = HashMap<MapData, Sighting, u64>;

pub(super) const NO_HITS: &str = "cannot read the counters of the rules";
pub(super) const NO_SIGHTINGS: &str = "cannot read the sightings";

/// The maps of one fence.
pub struct Maps {
    policy: Slot<Tree>,
    /// The first nodes of the policy. It is empty while the policy is replaced, and stays so if that fails.
    front: Slot<FirstNodes>,
    pub(super) hits: PerCpuArray<MapData, RuleCounts>,
    /// Empty as long as all rule numbers fit in `hits`.
    pub(super) more_hits: Slot<MoreHits>,
    /// Empty until a policy is in monitor mode.
    pub(super) sightings: Slot<Sightings>,
    pub(super) counters: PerCpuArray<MapData, u64>,
    pub(super) tallies: PerCpuArray<MapData, Tally>,
    pub(super) flows: Flows,
    pub(super) forgotten: Array<MapData, u64>,
    pub(super) pulse: Array<MapData, Pulse>,
    pub(super) change: Array<MapData, Change>,
    pub(super) marks: Array<MapData, Marks>,
}

/// The directory of the maps of the fence whose links are in `pins`. Checks that it is root's.
///
/// # Errors
/// As [`pins::open`].
pub(super) fn directory(pins: &Path) -> Result<PathBuf> {
    pins::open(pins)?;
    Ok(pins::of_maps(pins))
}

/// Whether the maps are pinned that [`unpin`] removes.
pub(super) fn is_pinned(pins: &Path) -> bool {
    pins::of_maps(pins).join(abi::POLICY_MAP).exists()
}

/// Removes the pins of the maps in the directory of a fence's links, that of the policy first. The maps' own directory remains,
/// because its name has the version.
///
/// # Errors
/// Errors of unlink.
pub(super) fn unpin(pins: &Path) -> Result<()> {
    let directory = directory(pins)?;
    let remove = |pin: &Path| {
        fs::remove_file(pin).with_context(|| format!("cannot remove {}", pin.display()))
    };
    remove(&directory.join(abi::POLICY_MAP))?;
    for pin in fs::read_dir(&directory)? {
        remove(&pin?.path())?;
    }
    Ok(())
}

/// Opens a pinned map.
pub(super) fn pinned(directory: &Path, name: &str) -> Result<Map> {
    let path = directory.join(name);
    MapData::from_pin(&path)
        .and_then(Map::from_map_data)
        .with_context(|| format!("cannot open the map {}", path.display()))
}

impl Maps {
    /// The maps of programs that are being loaded.
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self> {
        Self::from(|name| super::load::take(ebpf, name))
    }

    /// Pins the maps of programs that are being loaded, in the directory of a fence's links.
    pub(super) fn pin(ebpf: &Ebpf, pins: &Path) -> Result<()> {
        let directory = pins::of_maps(pins);
        for name in PINNED {
            let path = directory.join(name);
            let map = ebpf.map(name).ok_or_else(|| super::no_map(name))?;
            map.pin(&path)
                .with_context(|| format!("cannot pin a map at {}", path.display()))?;
        }
        Ok(())
    }

    /// The maps that are pinned in the directory of a fence's links.
    ///
    /// # Errors
    /// If one does not exist or belongs to another version. Type and sizes of each map are checked.
    pub fn open(pins: &Path) -> Result<Self> {
        let directory = directory(pins)?;
        Self::from(|name| pinned(&directory, name)).with_context(|| {
            format!(
                "{} has no maps of this version of qfence",
                directory.display()
            )
        })
    }

    fn from(mut take: impl FnMut(&str) -> Result<Map>) -> Result<Self> {
        Ok(Self {
            policy: Slot::of(take(abi::POLICY_MAP)?)?,
            front: Slot::of(take(abi::FRONT_MAP)?)?,
            hits: take(abi::HITS_MAP)?.try_into()?,
            more_hits: Slot::of(take(abi::MORE_HITS_MAP)?)?,
            sightings: Slot::of(take(abi::SIGHTINGS_MAP)?)?,
            counters: take(abi::COUNTERS_MAP)?.try_into()?,
            tallies: take(abi::TALLIES_MAP)?.try_into()?,
            flows: take(abi::FLOWS_MAP)?.try_into()?,
            forgotten: take(abi::FORGOTTEN_MAP)?.try_into()?,
            pulse: take(abi::PULSE_MAP)?.try_into()?,
            change: take(abi::CHANGE_MAP)?.try_into()?,
            marks: take(abi::MARKS_MAP)?.try_into()?,
        })
    }

    /// Publishes a policy, whole, in place of the current one. When this returns, no program uses the old policy any
    /// more.
    ///
    /// # Errors
    /// If the kernel has no memory for it. The old policy is in force then.
    pub fn publish(&mut self, policy: &Compiled) -> Result<()> {
        self.publish_with(policy, Vec::new())
    }

    /// Publishes a policy, and fills other slots at the same time.
    pub(super) fn publish_with(&mut self, policy: &Compiled, mut others: Vec<First>) -> Result<()> {
        let tree = tree::whole(&policy.nodes)?;
        let front = self.front.first(&tree::front(&policy.nodes)?)?;
        let context = "cannot publish the policy";
        others.extend(self.missing(policy)?);
        // Older kernels free a map that they take out of a slot while programs use it (CVE-2023-52447), unless it is open.
        let old = self.policy.get().context(context)?;
        let _old_front = self.front.get().context(context)?;
        if old.is_none() {
            // A policy that was withdrawn leaves its first nodes, which must not decide beside another one.
            self.front.empty_if_full().context(context)?;
            let first = self.policy.first(&tree)?;
            return put_together([first, front].into_iter().chain(others)).context(context);
        }
        put_together(others)?;
        // In this order, nothing is decided by the old policy after the new one, even if this process is killed.
        let emptying = self.front.empty().context(context)?;
        self.policy.swap(&tree).context(context)?;
        emptying.finish().context(context)?;
        // The policy is in force now. Without its front, programs read it by calls.
        let _ = put_together([front]);
        Ok(())
    }

    /// Publishes a policy, but its first nodes. They are returned.
    #[cfg(test)]
    pub(super) fn publish_half(&mut self, policy: &Compiled) -> Result<First> {
        let front = self.front.first(&tree::front(&policy.nodes)?)?;
        self.front.empty_if_full()?;
        self.policy.swap(&tree::whole(&policy.nodes)?)?;
        Ok(front)
    }

    /// Removes the policy. From then on everything is refused, until another one is published.
    ///
    /// # Errors
    /// If the kernel fails to. The policy is in force then.
    pub(super) fn withdraw(&mut self) -> Result<()> {
        // As in `publish_with`. It is removed in any case.
        let _old = self.policy.get();
        self.policy.clear().context("cannot remove the policy")
    }

    /// Has everything refused permanently: no process can publish a policy any more, and the one in force, if there is one,
    /// refuses everything, as by [`Maps::refuse_all`].
    ///
    /// # Errors
    /// If the maps cannot be frozen, read or written.
    pub(super) fn seal(&mut self) -> Result<()> {
        let frozen = self.front.freeze().and_then(|()| self.policy.freeze());
        self.refuse_all()?;
        frozen.context("cannot freeze the policy")
    }

    /// Has the policy in force refuse everything, like [`Maps::withdraw`], but without waiting for the kernel.
    /// Programs that run meanwhile may see parts of both policies.
    ///
    /// # Errors
    /// If the maps cannot be read or written.
    pub(super) fn refuse_all(&mut self) -> Result<()> {
        let context = "cannot change the policy";
        if let Some(front) = self.front.get().context(context)? {
            tree::refuse_in_front(front).context(context)?;
        }
        match self.policy.get().context(context)? {
            Some(policy) => tree::refuse(policy).context(context),
            // Then everything is refused.
            None => Ok(()),
        }
    }

    /// The maps for counters that this policy needs and earlier ones did not. They remain, since their counts are
    /// read later.
    fn missing(&self, policy: &Compiled) -> Result<Vec<First>> {
        let mut missing = Vec::new();
        if policy.monitors() && self.sightings.get().context(NO_SIGHTINGS)?.is_none() {
            let fresh = Sightings::create(abi::SIGHTINGS, NO_PREALLOC)
                .context("cannot make a map of sightings")?;
            missing.push(self.sightings.first(&fresh)?);
        }
        let is_beyond = policy.numbers_end > self.hits.len();
        if is_beyond && self.more_hits.get().context(NO_HITS)?.is_none() {
            // Large enough for all rule numbers, so that it never has to be replaced by a longer one.
            let fresh = MoreHits::create(more_hits_index(0, possible_cpus()?), INNER_MAP)
                .context("cannot make a map of counters of rules")?;
            missing.push(self.more_hits.first(&fresh)?);
        }
        Ok(missing)
    }

    /// The policy in force.
    ///
    /// # Errors
    /// If there is none, in which case everything is refused.
    pub fn in_force(&self) -> Result<InForce> {
        let tree = self.policy.get().context("cannot read the policy")?;
        tree.map(InForce::new).context("no policy is in force")
    }

    /// Whether programs have the first nodes of the policy where they read them faster.
    #[cfg(test)]
    pub(super) fn has_front(&self) -> bool {
        self.front.get().unwrap().is_some()
    }

    /// Whether a complete policy is in force.
    ///
    /// # Errors
    /// If that cannot be read.
    pub fn has_policy(&self) -> Result<bool> {
        // The policy can be replaced between the reading of its id and the opening of the map.
        let mut tries = (0..POLICY_TRIES).map(|_| self.policy.get());
        let policy = tries
            .find(Result::is_ok)
            .unwrap_or_else(|| self.policy.get());
        let policy = policy.context("cannot read the policy")?;
        Ok(policy.is_some_and(|tree| InForce::new(tree).is_whole()))
    }
}

impl AsMut<Self> for Maps {
    fn as_mut(&mut self) -> &mut Self {
        self
    }
}

/// The map of the owner of each socket, for the fence whose links are in `pins`.
///
/// # Errors
/// If it does not exist.
pub fn owners(pins: &Path) -> Result<MapData> {
    let path = directory(pins)?.join(abi::OWNERS_MAP);
    MapData::from_pin(&path)
        .map_err(|error| anyhow!(error).context(format!("cannot open the map {}", path.display())))
}

/// Whether the fence whose links are in `pins` has a resolver of names: only then there is room for the addresses of names.
///
/// # Errors
/// If its maps cannot be opened.
pub fn has_resolver(pins: &Path) -> Result<bool> {
    let path = directory(pins)?.join(abi::RESOLVED_MAP);
    let map = MapData::from_pin(&path).and_then(|map| map.info());
    let map = map.with_context(|| format!("cannot open the map {}", path.display()))?;
    Ok(map.max_entries() > 1)
}
