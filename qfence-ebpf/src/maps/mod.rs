//! The maps, and the globals that the loader sets.

pub(crate) mod inner;
pub(crate) mod marks;

use aya_ebpf::{
    Global,
    btf_maps::{Array, ArrayOfMaps, LpmTrie, LruHashMap, PerCpuArray, RingBuf, SkStorage},
    macros::btf_map,
};
use qfence_common::{
    Change, Event, Hits, Marks, Peer, Pulse, Tally,
    abi::{self, COUNTER_SLOTS, EVENTS_BYTES},
    netns::Offsets,
    peer, tally,
    verdict::MAX_RULES,
};

use crate::{
    maps::inner::{Keys, MoreHits, MoreKeys, Sightings, Tree},
    subject::owner::Owner,
};

/// The policy in force. A change fills a fresh tree and swaps it in, so that no call is ever judged
/// by half of an old and half of a new policy. The inner size is a template; the loader sets it.
#[btf_map]
pub(crate) static POLICY: ArrayOfMaps<Tree, 1> = ArrayOfMaps::new();

/// How often each rule has decided. The loader makes it as long as the policy of the start needs it.
#[btf_map]
pub(crate) static HITS: PerCpuArray<Hits, { MAX_RULES as usize }> = PerCpuArray::new();

/// The same of rules whose numbers are beyond its end. Empty until a policy has such.
#[btf_map]
pub(crate) static MORE_HITS: ArrayOfMaps<MoreHits, 1> = ArrayOfMaps::new();

/// What monitor mode let through. Empty until a policy monitors: most fences never do.
#[btf_map]
pub(crate) static SIGHTINGS: ArrayOfMaps<Sightings, 1> = ArrayOfMaps::new();

/// The attempt keys that are known, and how often each was repeated. Whoever tells of them swaps
/// another one in, and finds in this all that was counted.
#[btf_map]
pub(crate) static REPEATS: ArrayOfMaps<Keys, 1> = ArrayOfMaps::new();

/// The same of keys that came when that was full.
#[btf_map]
pub(crate) static MORE_REPEATS: ArrayOfMaps<MoreKeys, 1> = ArrayOfMaps::new();

/// What became of calls and packets, by outcome and protocol.
#[btf_map]
pub(crate) static TALLIES: PerCpuArray<Tally, { tally::TALLIES }> = PerCpuArray::new();

/// The first attempts of their keys, for the supervisor to log.
#[btf_map]
pub(crate) static EVENTS: RingBuf<Event, { EVENTS_BYTES as usize }> = RingBuf::new();

/// The peers on the host that spoke first, and when each was last heard of, in nanoseconds since boot. The loader
/// sets for how many there is room.
#[btf_map]
pub(crate) static PEERS: LruHashMap<Peer, u64, { abi::PEERS as usize }> = LruHashMap::new();

/// What was noted of the datagrams that the fence sends to the host, and when, in nanoseconds since boot.
#[btf_map]
pub(crate) static NOTED: LpmTrie<u64, u64, { peer::NOTED }> = LpmTrie::new();

/// When the policy was last known to be true to the host.
#[btf_map]
pub(crate) static PULSE: Array<Pulse, 1> = Array::new();

/// When the policy was last changed, and what stands since.
#[btf_map]
pub(crate) static CHANGE: Array<Change, 1> = Array::new();

/// What the programs have noted of the fence.
#[btf_map]
pub(crate) static MARKS: Array<Marks, 1> = Array::new();

/// Who made each socket.
#[btf_map]
pub(crate) static OWNERS: SkStorage<Owner> = SkStorage::new();

/// What was refused and what the ring had no room for.
#[btf_map]
pub(crate) static COUNTERS: PerCpuArray<u64, COUNTER_SLOTS> = PerCpuArray::new();

/// The error of a refused call, as a negative errno; 0 where the kernel has no `bpf_set_retval`.
#[unsafe(no_mangle)]
pub(crate) static DENY_RETVAL: Global<i32> = Global::new(0);

/// The number of which the destinations are made where a start proves that the fence holds.
#[unsafe(no_mangle)]
pub(crate) static PROOF: Global<u64> = Global::new(0);

/// Whether raw, UDP-Lite and L2TP sockets are let be.
#[unsafe(no_mangle)]
pub(crate) static ALLOW_RAW: Global<u32> = Global::new(0);

/// Whether devices for networks beside QEMU's own sockets are let be.
#[unsafe(no_mangle)]
pub(crate) static ALLOW_DEVICES: Global<u32> = Global::new(0);

/// The id of the fence's cgroup.
#[unsafe(no_mangle)]
pub(crate) static FENCE_CGROUP: Global<u64> = Global::new(0);

/// Whether sockets in network namespaces that were made outside are let be.
#[unsafe(no_mangle)]
pub(crate) static ALLOW_NETNS: Global<u32> = Global::new(0);

/// Where the kernel notes who made a network namespace.
#[unsafe(no_mangle)]
pub(crate) static NETNS_OFFSETS: Global<Offsets> = Global::new(Offsets {
    sock_net: 0,
    net_rtnl: 0,
    sock_cgroup: 0,
    cgroup_parent: 0,
    cgroup_self: 0,
    cgroup_node: 0,
    node_id: 0,
    are_known: 0,
});

/// Whether the kernel tells which MPTCP connection a TCP socket is a way of.
#[unsafe(no_mangle)]
pub(crate) static FINDS_MPTCP: Global<u32> = Global::new(0);

/// Whether the kernel tells every program who is running.
#[unsafe(no_mangle)]
pub(crate) static NAMES_CALLER: Global<u32> = Global::new(0);
