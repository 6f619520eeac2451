//! The maps of a fence that others than its supervisor may read and change: pinned, they outlive it.

use std::{fs, io, os::unix::fs::DirBuilderExt as _, path::Path};

use anyhow::{Context, Result, anyhow};
use aya::{
    Ebpf,
    maps::{
        Array, ArrayOfMaps, HashMap, IterableMap, LpmTrie, Map, MapData, PerCpuArray, lpm_trie::Key,
    },
};
use qfence_common::{
    Address, Decision, Entry, Hits, Node, Nodes, Path as Way, Protocol, Sighting,
    abi::{self, Counter, HALVES},
    address::{self, KEY_BITS, PATH_BITS},
    decide,
    entry::MAX_RULES,
};

use super::fill::fill;
use crate::compile::Compiled;

/// `BPF_F_NO_PREALLOC`: the kernel has no tries without it.
const NO_PREALLOC: u32 = 1;
/// `BPF_F_INNER_MAP`: such an array can take the place of one of another length (Linux 5.10).
const INNER_MAP: u32 = 1 << 12;

/// The directory of the pins, in that of the fence's links.
const DIRECTORY: &str = "maps";

/// The maps that are pinned.
const PINNED: [&str; 6] = [
    abi::POLICY_MAP,
    abi::TREES_MAP,
    abi::HITS_MAP,
    abi::SIGHTINGS_MAP,
    abi::COUNTERS_MAP,
    abi::OWNERS_MAP,
];

type Trie = LpmTrie<MapData, address::Key, Entry>;
type Tree = Array<MapData, Node>;

/// The maps of one fence.
pub struct Maps {
    policy: ArrayOfMaps<MapData, Trie>,
    trees: ArrayOfMaps<MapData, Tree>,
    hits: PerCpuArray<MapData, Hits>,
    sightings: HashMap<MapData, Sighting, u64>,
    counters: PerCpuArray<MapData, u64>,
}

/// What has been counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All that was refused.
    pub refused: u64,
    /// All that would have been, in monitor mode.
    pub monitored: u64,
    /// What of both found the ring of events full.
    pub lost: u64,
    /// Packets among them that could not be understood.
    pub unparsed: u64,
    /// Those of `monitored` that the map of sightings had no room for.
    pub unlisted: u64,
}

impl Counts {
    /// All that there should be a record of.
    #[must_use]
    pub fn on_record(self) -> u64 {
        self.refused + self.monitored
    }
}

impl Maps {
    /// Those that were made for programs that are being loaded.
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self> {
        Self::from(|name| super::take(ebpf, name))
    }

    /// Pins the maps of programs that are being loaded, in the directory of a fence's links.
    pub(super) fn pin(ebpf: &Ebpf, pins: &Path) -> Result<()> {
        let directory = pins.join(DIRECTORY);
        match fs::DirBuilder::new().mode(0o700).create(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("cannot make {}", directory.display()));
            }
            _ => {}
        }
        for name in PINNED {
            let path = directory.join(name);
            let map = ebpf.map(name).ok_or_else(|| super::no_map(name))?;
            map.pin(&path)
                .with_context(|| format!("cannot pin a map at {}", path.display()))?;
        }
        Ok(())
    }

    /// Those that are pinned in the directory of a fence's links.
    ///
    /// # Errors
    /// If any is not there, or is none of this version's: its type and the sizes of what it holds are
    /// looked at before it is used.
    pub fn open(pins: &Path) -> Result<Self> {
        let directory = pins.join(DIRECTORY);
        Self::from(|name| {
            let path = directory.join(name);
            MapData::from_pin(&path)
                .and_then(Map::from_map_data)
                .with_context(|| format!("cannot open the map {}", path.display()))
        })
        .with_context(|| {
            format!(
                "{} holds no maps of this version of qfence",
                directory.display()
            )
        })
    }

    fn from(mut take: impl FnMut(&str) -> Result<Map>) -> Result<Self> {
        Ok(Self {
            policy: take(abi::POLICY_MAP)?.try_into()?,
            trees: take(abi::TREES_MAP)?.try_into()?,
            hits: take(abi::HITS_MAP)?.try_into()?,
            sightings: take(abi::SIGHTINGS_MAP)?.try_into()?,
            counters: take(abi::COUNTERS_MAP)?.try_into()?,
        })
    }

    /// Puts a policy in force, whole, in place of the one before. When this returns no program judges by
    /// that any more: the kernel waits for those that run (`maybe_wait_bpf_programs` in
    /// kernel/bpf/syscall.c). So the half that its trees are in is free for the next policy.
    ///
    /// # Errors
    /// If the kernel has no room for it; the one before is in force then.
    pub fn publish(&mut self, policy: &Compiled) -> Result<()> {
        let half = self.half().map_or(0, |half| (half + 1) % HALVES);
        let nodes = u32::try_from(policy.nodes.len()).context("the policy has too many ports")?;
        let tree = Tree::create(nodes.max(1), INNER_MAP)
            .context("cannot make a map for the ports of a policy")?;
        let indices: Vec<u32> = (0..nodes).collect();
        fill(IterableMap::map(&tree), &indices, &policy.nodes)
            .context("cannot fill the map for the ports of a policy")?;
        let size =
            u32::try_from(policy.entries.len()).context("the policy has too many prefixes")?;
        let trie = Trie::create(size.max(1), NO_PREALLOC).context("cannot make a policy map")?;
        let (keys, entries): (Vec<_>, Vec<_>) = policy
            .entries
            .iter()
            .map(|((path, prefix), entry)| {
                let bits = PATH_BITS + u32::from(prefix.prefix_len());
                let key = Key::new(bits, address::key(*path, prefix.addr().octets()));
                (key, Entry { half, ..*entry })
            })
            .unzip();
        fill(IterableMap::map(&trie), &keys, &entries).context("cannot fill the policy map")?;
        self.trees
            .set(half, &tree, 0)
            .and_then(|()| self.policy.set(0, &trie, 0))
            .context("cannot publish the policy")
    }

    /// The half that the trees of the policy in force are in.
    fn half(&self) -> Option<u32> {
        let trie = self.policy.get(&0, 0).ok()?;
        let everything = Key::new(PATH_BITS, address::key(Way::Address, [0; 16]));
        Some(trie.get(&everything, 0).ok()?.half)
    }

    /// Whether a policy is in force that has an answer for every address.
    #[must_use]
    pub fn has_policy(&self) -> bool {
        self.policy.get(&0, 0).is_ok_and(|trie| {
            Way::ALL.into_iter().all(|path| {
                let everything = Key::new(PATH_BITS, address::key(path, [0; 16]));
                trie.get(&everything, 0).is_ok()
            })
        })
    }

    /// What the programs decide on destinations of a path, by what is in the maps now; and the entry by
    /// which they do, if there is one.
    ///
    /// # Errors
    /// If there is no policy, which refuses everything.
    pub fn judge(
        &self,
        path: Way,
        address: Address,
        protocol: Protocol,
        port: u16,
    ) -> Result<(Decision, Option<Entry>)> {
        let entry = self.entry(path, address)?;
        Ok((decide(entry.as_ref(), self, protocol, port), entry))
    }

    /// The entry by which the programs decide on an address.
    ///
    /// # Errors
    /// If there is no policy, which refuses everything.
    pub fn entry(&self, path: Way, address: Address) -> Result<Option<Entry>> {
        let trie = self.policy.get(&0, 0).context("no policy is in force")?;
        let key = Key::new(KEY_BITS, address::key(path, address));
        Ok(trie.get(&key, 0).ok())
    }

    /// How often a rule has decided, on all CPUs.
    ///
    /// # Errors
    /// If the counters cannot be read.
    pub fn hits(&self, rule: u32) -> Result<Hits> {
        let values = self
            .hits
            .get(&rule, 0)
            .context("cannot read the counters of the rules")?;
        Ok(values.iter().fold(Hits::default(), |sum, of| Hits {
            calls: sum.calls + of.calls,
            packets: sum.packets + of.packets,
        }))
    }

    /// Begins to count anew for a rule's number that another rule had.
    ///
    /// # Errors
    /// If the counters cannot be written.
    pub fn forget_hits(&mut self, rule: u32) -> Result<()> {
        debug_assert!(rule < MAX_RULES);
        let cpus = self
            .hits
            .get(&rule, 0)
            .context("cannot read the counters of the rules")?;
        let zeros = vec![Hits::default(); cpus.len()];
        self.hits
            .set(rule, zeros.try_into()?, 0)
            .context("cannot reset the counters of a rule")
    }

    /// What monitor mode has let through, and how often.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn sightings(&self) -> Result<Vec<(Sighting, u64)>> {
        self.sightings
            .iter()
            .collect::<Result<_, _>>()
            .context("cannot read what was seen")
    }

    /// What has been counted since the start, on all CPUs.
    ///
    /// # Errors
    /// If the counters cannot be read.
    pub fn counts(&self) -> Result<Counts> {
        let total = |counter: Counter| -> Result<u64> {
            let values = self
                .counters
                .get(&(counter as u32), 0)
                .context("cannot read the counters")?;
            Ok(values.iter().sum())
        };
        Ok(Counts {
            refused: total(Counter::Refused)?,
            monitored: total(Counter::Monitored)?,
            lost: total(Counter::Lost)?,
            unparsed: total(Counter::Unparsed)?,
            unlisted: total(Counter::Unlisted)?,
        })
    }
}

/// Those of the trees in force, and of those before.
impl Nodes for Maps {
    fn node(&self, half: u32, index: u32) -> Option<Node> {
        self.trees.get(&half, 0).ok()?.get(&index, 0).ok()
    }
}

/// The map of who made each socket, of the fence whose links are in `pins`.
///
/// # Errors
/// If it is not there.
pub fn owners(pins: &Path) -> Result<MapData> {
    let path = pins.join(DIRECTORY).join(abi::OWNERS_MAP);
    MapData::from_pin(&path)
        .map_err(|error| anyhow!(error).context(format!("cannot open the map {}", path.display())))
}
