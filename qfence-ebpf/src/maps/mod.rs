//! The maps, and the globals that the loader sets.

pub(crate) mod frame;
pub(crate) mod inner;
pub(crate) mod marks;

use aya_ebpf::{
    Global,
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{Array, ArrayOfMaps, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, SkStorage},
    macros::btf_map,
};
use qfence_common::{
    Change, Event, Flow, FlowKey, Halves, Marks, Peer, Pulse, RefusedSyn, RuleCounts, Tally,
    abi::{self, COUNTER_SLOTS, EVENTS_BYTES, REFUSED_SYNS_BYTES},
    device::DeviceKey,
    listing,
    manager::{self, MAX_NAMES, NAME_BYTES},
    netns::Offsets,
    peer::{self, Room},
    port,
    resolved::{self, Asker, Resolved, Resolver},
    tally,
    unix::{self, Name, NameRule},
    verdict::MAX_RULES,
};

use crate::{
    hooks::lead::Led,
    maps::inner::{FirstNodes, Keys, MoreHits, MoreKeys, Sightings, Tree},
    subject::owner::Owner,
};

/// The policy in force. A change fills a new tree and replaces the whole map in the slot, so that no call is judged by
/// parts of two policies. The inner size is a template; the loader sets it.
#[btf_map]
pub(crate) static POLICY: ArrayOfMaps<Tree, 1> = ArrayOfMaps::new();

/// The first nodes of the policy in force. The slot is empty, or has the same policy as POLICY after each change.
#[btf_map]
pub(crate) static FRONT: ArrayOfMaps<FirstNodes, 1> = ArrayOfMaps::new();

/// The number of decisions of each rule, and a part of the traffic. The loader sets the length to fit the policy with which
/// the fence starts.
#[btf_map]
pub(crate) static HITS: PerCpuArray<RuleCounts, { MAX_RULES as usize }> = PerCpuArray::new();

/// The decisions of rules whose numbers are beyond the end of HITS. Empty until a policy has such rules.
#[btf_map]
pub(crate) static MORE_HITS: ArrayOfMaps<MoreHits, 1> = ArrayOfMaps::new();

/// The sightings of monitor mode. Empty until a policy is monitored, which is never the case for most fences.
#[btf_map]
pub(crate) static SIGHTINGS: ArrayOfMaps<Sightings, 1> = ArrayOfMaps::new();

/// The known attempt keys and their repeats. The reader replaces the map by another one, and then finds all counts in
/// the old one.
#[btf_map]
pub(crate) static REPEATS: ArrayOfMaps<Keys, 1> = ArrayOfMaps::new();

/// Attempt keys that do not fit in REPEATS.
#[btf_map]
pub(crate) static MORE_REPEATS: ArrayOfMaps<MoreKeys, 1> = ArrayOfMaps::new();

/// The calls and packets, counted by outcome and protocol, so far as they are not in HITS.
#[btf_map]
pub(crate) static TALLIES: PerCpuArray<Tally, { tally::TALLIES }> = PerCpuArray::new();

/// The first attempt of each key, for the reader.
#[btf_map]
pub(crate) static EVENTS: RingBuf<Event, { EVENTS_BYTES as usize }> = RingBuf::new();

/// The TCP connections whose SYN was refused, for the supervisor.
#[btf_map]
pub(crate) static REFUSED_SYNS: RingBuf<RefusedSyn, { REFUSED_SYNS_BYTES as usize }> =
    RingBuf::new();

/// The peers on the host that sent first, and the time of the last datagram of each, in nanoseconds since boot.
#[btf_map]
pub(crate) static PEERS: LpmTrie<Peer, u64, { abi::PEERS_ROOM as usize }> = LpmTrie::new();

/// The same peers, by place.
#[btf_map]
pub(crate) static PLACES: LpmTrie<u64, Peer, { abi::PEERS_ROOM as usize }> = LpmTrie::new();

/// The number of places in use, and the place to look at next.
#[btf_map]
pub(crate) static ROOM: Array<Room, 1> = Array::new();

/// Notes on the datagrams that the fence sends to the host, with their times in nanoseconds since boot.
#[btf_map]
pub(crate) static NOTED: LpmTrie<u64, u64, { peer::NOTED }> = LpmTrie::new();

/// The time at which the policy was last known to match the host.
#[btf_map]
pub(crate) static PULSE: Array<Pulse, 1> = Array::new();

/// The time of the last change of the policy, and whether existing connections are judged since.
#[btf_map]
pub(crate) static CHANGE: Array<Change, 1> = Array::new();

/// The marks of the fence.
#[btf_map]
pub(crate) static MARKS: Array<Marks, 1> = Array::new();

/// The rules for names of Unix sockets.
#[btf_map]
pub(crate) static NAMES: LpmTrie<Name, NameRule, { abi::NAMES as usize }> = LpmTrie::new();

/// The bits of the local ports that may be bound. The loader makes it short for a fence that does not need it.
#[btf_map]
pub(crate) static PORTS: Array<u64, { port::WORDS as usize }> = Array::new();

/// The devices that may be opened if all others are refused, with the accesses. The loader makes it as long as there are.
#[btf_map]
pub(crate) static DEVICES: HashMap<
    DeviceKey,
    u32,
    { abi::DEVICES as usize },
    { BPF_F_NO_PREALLOC as usize },
> = HashMap::new();

/// What was let through, by destination, in a fence that logs it. The loader makes it short for other fences.
#[btf_map]
pub(crate) static FLOWS: HashMap<
    FlowKey,
    Flow,
    { abi::FLOWS as usize },
    { BPF_F_NO_PREALLOC as usize },
> = HashMap::new();

/// The destinations that have no entry in FLOWS although the fence reached them. The loader makes it short for fences that do
/// not log what is let through.
#[btf_map]
pub(crate) static FORGOTTEN: Array<u64, { abi::FORGOTTEN as usize }> = Array::new();

/// The addresses that rules by name allow. The loader makes it short for a fence without a resolver.
///
/// Since Linux 6.1, the memory of an entry that is removed or replaced can become another entry of this map at once, while a
/// program still has the address of the first (`htab_elem_free` in kernel/bpf/hashtab.c; a preallocated map does so on all
/// kernels). The memory belongs to the map as long as a program runs. So what was read of an entry counts only if the key
/// still has that entry afterwards.
#[btf_map]
pub(crate) static RESOLVED: HashMap<
    Halves,
    Resolved,
    { resolved::RESOLVED as usize },
    { BPF_F_NO_PREALLOC as usize },
> = HashMap::new();

/// Those who ask the resolver, with the times in nanoseconds since boot. The loader makes it short as well.
#[btf_map]
pub(crate) static ASKERS: LruHashMap<Asker, u64, { resolved::ASKERS as usize }> = LruHashMap::new();

/// The nameserver that each socket asked last, if the query was led to the resolver.
#[btf_map]
pub(crate) static LED: SkStorage<Led> = SkStorage::new();

/// The owner of each socket.
#[btf_map]
pub(crate) static OWNERS: SkStorage<Owner> = SkStorage::new();

/// The counters, for instance of refusals and of events for which the ring had no room.
#[btf_map]
pub(crate) static COUNTERS: PerCpuArray<u64, COUNTER_SLOTS> = PerCpuArray::new();

/// The names by which the sockets of managers are recognised, and their classes. The loader sets the capacity.
#[btf_map]
pub(crate) static MANAGER_NAMES: LpmTrie<[u8; NAME_BYTES], u32, { MAX_NAMES as usize }> =
    LpmTrie::new();

// The globals. Each names its section, `.rodata`. Without the attribute LLVM merges it with any constant of the programs
// that has the same bytes (`isUnmergeableGlobal` in ConstantMerge.cpp), such as a key of zeros. The constant would then have
// the value that the loader gives to the global.

/// The error of a denied call, as a negative errno; 0 if the kernel has no `bpf_set_retval`.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata")]
pub(crate) static DENY_RETVAL: Global<i32> = Global::new(0);

/// The random number from which the destinations of the proof are derived.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata")]
pub(crate) static PROOF: Global<u64> = Global::new(0);

/// Whether raw, UDP-Lite and L2TP sockets are allowed.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata")]
pub(crate) static ALLOW_RAW: Global<u32> = Global::new(0);

/// Whether devices for networks other than QEMU's own sockets are allowed.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata")]
pub(crate) static ALLOW_DEVICES: Global<u32> = Global::new(0);

/// The id of the fence's cgroup.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata")]
pub(crate) static FENCE_CGROUP: Global<u64> = Global::new(0);

/// Whether sockets in network namespaces that were made outside the fence are allowed.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata")]
pub(crate) static ALLOW_NETNS: Global<u32> = Global::new(0);

/// The cookie of the network namespace with the host's addresses, in a fence of a workload; otherwise 0.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata")]
pub(crate) static NODE_NETNS: Global<u64> = Global::new(0);

/// The offsets in the kernel's types at which the maker of a network namespace is found.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata")]
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

/// The offsets in the kernel's types at which Unix sockets have their makers and names.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata")]
pub(crate) static MANAGER_OFFSETS: Global<manager::Offsets> = Global::new(manager::Offsets {
    socket_sock: 0,
    sock_type: 0,
    unix_address: 0,
    address_length: 0,
    address_name: 0,
    node_name: 0,
});

/// The offsets in the kernel's types at which tasks and sockets are described.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata")]
pub(crate) static LISTING_OFFSETS: Global<listing::Offsets> = Global::new(listing::Offsets {
    task_cgroups: 0,
    default_cgroup: 0,
    task_process: 0,
    task_thread: 0,
    task_name: 0,
    task_credentials: 0,
    user: 0,
    family: 0,
    state: 0,
    port: 0,
    kind: 0,
    protocol: 0,
    netns_cookie: 0,
    flags: 0,
    broadcast: 0,
    cookie: 0,
    device: 0,
    v6: 0,
    v6_device: 0,
    next: 0,
    unacknowledged: 0,
    end: 0,
    acknowledged: 0,
    sent: 0,
    again: 0,
    subflow: 0,
    inode: 0,
    mode: 0,
    numbers: 0,
    taps: [0; 2],
});

/// The offset of `socket.sk`.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata")]
pub(crate) static SOCKET_SOCK: Global<u32> = Global::new(0);

/// Whether the kernel can look up the MPTCP connection of a TCP subflow.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata")]
pub(crate) static FINDS_MPTCP: Global<u32> = Global::new(0);

/// Whether every program has helpers for the calling process.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata")]
pub(crate) static NAMES_CALLER: Global<u32> = Global::new(0);

/// The offsets in the kernel's types at which the names of Unix sockets are found.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata")]
pub(crate) static UNIX_OFFSETS: Global<unix::Offsets> = Global::new(unix::Offsets {
    address: 0,
    length: 0,
    task_fs: 0,
    root_mount: 0,
    root_entry: 0,
    are_known: 0,
});

/// Whether sockets are refused whose local port no program judges.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata")]
pub(crate) static CLOSES_LISTENERS: Global<u32> = Global::new(0);

/// Whether processes can set socket options that no program sees.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata")]
pub(crate) static OPTIONS_UNSEEN: Global<u32> = Global::new(0);

/// Whether what is let through is logged.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata")]
pub(crate) static LOG_ALLOWED: Global<u32> = Global::new(0);

/// The resolver to which queries for names are led.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata")]
pub(crate) static RESOLVER: Global<Resolver> = Global::new(Resolver {
    netns: 0,
    v4: 0,
    port: 0,
    has_v6: 0,
});

/// Whether all devices are refused except those in DEVICES.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata")]
pub(crate) static CLOSES_DEVICES: Global<u32> = Global::new(0);
