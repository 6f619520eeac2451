//! The names of the maps, programs and globals that kernel side and user side share, and the version of everything that
//! one qfence leaves for another.

/// The version of everything that a fence leaves for other processes: its pinned maps, its description, its policy
/// file, its kept record, and its locks and marks. qfence checks the version before it reads any of them, and uses
/// those of its own version only.
///
/// Raise it by one in the release that changes
/// - the name, type, key, value, index or meaning of a pinned map;
/// - the name of a hook, under which its link is pinned, or the meaning of a pin;
/// - a field of the description, of the policy file or of a kept line, unless old and new versions read it alike;
/// - the choice of locked or marked files, or the purpose of a lock or mark.
///
/// A fence from before the first version counts as version 0. Two things never change, because every version of qfence
/// depends on them: the directory `qfence/NAME` in bpffs, and the name [`MAPS_DIRECTORY`] followed by the version
/// number.
pub const VERSION: u32 = 4;

/// The number in the instructions of an object that call a function of the kernel's own, until the loader has turned them into
/// calls of it. No helper has this number.
pub const KERNEL_FUNCTION: i32 = 0x7166_6361;

/// The section of an object that has a byte for each of these instructions.
pub const KERNEL_FUNCTION_CALLS: &str = "qfence_calls";

/// The name of the directory of a fence's pinned maps, without the version number at its end.
pub const MAPS_DIRECTORY: &str = "maps-abi-";

/// The whole name of that directory in fences from before the first version.
pub const UNVERSIONED_MAPS_DIRECTORY: &str = "maps";

/// The one-slot array of maps for the policy in force: an array of [`crate::Node`]s.
pub const POLICY_MAP: &str = "POLICY";

/// The one-slot array of maps for the first nodes of the policy in force: an array with one value, the [`crate::tree::Front`],
/// which programs read faster. The slot is empty while a policy is replaced.
pub const FRONT_MAP: &str = "FRONT";

/// The per-CPU array of [`crate::RuleCounts`], indexed by rule number. Its length fits the policy with which the fence
/// started.
pub const HITS_MAP: &str = "HITS";

/// The one-slot array of maps for rules whose numbers are beyond the end of [`HITS_MAP`]: an array of their
/// [`crate::Hits`], indexed by [`crate::tally::more_hits_index`]. The slot is empty until there are such rules.
pub const MORE_HITS_MAP: &str = "MORE_HITS";

/// The one-slot array of maps for sightings: a hash map from each [`crate::Sighting`] to the number of times it was
/// made. The slot is empty until a policy is monitored.
pub const SIGHTINGS_MAP: &str = "SIGHTINGS";

/// The maximum number of sightings. Further ones are counted only.
pub const SIGHTINGS: u32 = 4096;

/// The one-slot array of maps in which attempts are currently counted: a hash map from [`crate::AttemptKey`] to
/// [`crate::Repeats`].
pub const REPEATS_MAP: &str = "REPEATS";

/// The minimum number of attempt keys that fit between two summaries.
pub const KEYS: u32 = 4096;

/// The minimum number of attempt keys that fit in the map of [`REPEATS_MAP`]: its capacity while attempts are few.
pub const FEW_KEYS: u32 = 1024;

/// The one-slot array of maps for attempt keys that do not fit in [`REPEATS_MAP`]: a trie, because a trie allocates
/// memory only for its entries. Its keys are attempt keys with full prefix length.
pub const MORE_REPEATS_MAP: &str = "MORE_REPEATS";

/// The number of attempt keys that fit in [`MORE_REPEATS_MAP`].
pub const MORE_KEYS: u32 = KEYS - FEW_KEYS;

/// The per-CPU array of [`crate::Tally`], indexed by [`crate::tally::tally_index`].
pub const TALLIES_MAP: &str = "TALLIES";

/// The ring buffer of [`crate::Event`]s.
pub const EVENTS_MAP: &str = "EVENTS";

/// The peers of the reply exception: a trie, because a trie allocates memory only for its entries. It maps each
/// [`crate::Peer`], with full prefix length, to its [`crate::peer::Heard`]. Only the programs use it; it is pinned so that
/// it can be looked at.
pub const PEERS_MAP: &str = "PEERS";

/// The maximum number of peers. Beyond it, the one that was silent for longest of a few gives up its place.
pub const PEERS: u32 = 1 << 16;

/// The capacity of the maps of peers. Before Linux 6.13 a trie that is full rejects a new value of a key that it has
/// (`trie_update_elem` in kernel/bpf/lpm_trie.c), so it is never full.
pub const PEERS_ROOM: u32 = PEERS + 1024;

/// The peers by place, so that those that are silent are found: a trie as well, from the number of a place to a
/// [`crate::Peer`].
pub const PLACES_MAP: &str = "PLACES";

/// The one-slot array of the [`crate::peer::Room`] of the fence.
pub const ROOM_MAP: &str = "ROOM";

/// Notes on the datagrams that the fence sends to the host: a trie, because a trie allocates memory only for its
/// entries. It maps each [`crate::peer::Noted::key`], with full prefix length, to a time in nanoseconds since boot.
pub const NOTED_MAP: &str = "NOTED";

/// The one-slot array of the [`crate::Pulse`] of the fence.
pub const PULSE_MAP: &str = "PULSE";

/// The one-slot array of the [`crate::Change`] of the policy.
pub const CHANGE_MAP: &str = "CHANGE";

/// The one-slot array of the fence's [`crate::Marks`].
pub const MARKS_MAP: &str = "MARKS";

/// The rules for names of Unix sockets: a trie, so that a rule applies to a name or to all names that begin alike. It
/// maps bytes of a name, with their number of bits, to [`crate::unix::NameRule`]s.
pub const NAMES_MAP: &str = "NAMES";

/// The maximum number of rules for names.
pub const NAMES: u32 = 1024;

/// The array of bits of the local ports that may be bound, by [`crate::port::word_index`].
pub const PORTS_MAP: &str = "PORTS";

/// The hash map of the devices that may be opened where a closure refuses all others: from
/// [`crate::device::DeviceKey`] to the accesses, in the bits of [`crate::device::ACCESSES`].
pub const DEVICES_MAP: &str = "DEVICES";

/// The maximum number of those devices.
pub const DEVICES: u32 = 1024;

/// The hash map of what was let through to each destination: from [`crate::FlowKey`] to [`crate::Flow`]. It has room for
/// one entry, and no entry, in a fence that does not log it.
pub const FLOWS_MAP: &str = "FLOWS";

/// The maximum number of those destinations, with [`crate::flow::OTHERS`] for all that do not fit.
pub const FLOWS: u32 = 4096;

/// The array for destinations that have no entry in [`FLOWS_MAP`] although the fence reached them: their entries were removed,
/// or had no room. The first value is the number of removed ones. The others are flags, indexed by
/// [`crate::FlowKey::slot`]: 1 for such a destination. It has one value in a fence that does not log what is let through.
pub const FORGOTTEN_MAP: &str = "FORGOTTEN";

/// The number of its values.
pub const FORGOTTEN: u32 = 1 + (1 << crate::flow::SLOT_BITS);

/// The global that logs what is let through: 0, [`crate::flow::TOGETHER`] or [`crate::flow::BY_CGROUP`].
pub const LOG_ALLOWED: &str = "LOG_ALLOWED";

/// The hash map of the addresses that rules by name allow: from [`crate::Halves`] to [`crate::resolved::Resolved`]. It has
/// room for one entry in a fence without a resolver.
pub const RESOLVED_MAP: &str = "RESOLVED";

/// The LRU hash map of those who ask for names: from [`crate::resolved::Asker`] to nanoseconds since boot.
pub const ASKERS_MAP: &str = "ASKERS";

/// The global for the [`crate::resolved::Resolver`] of the fence.
pub const RESOLVER: &str = "RESOLVER";

/// The hash map of the devices of the fence: from the index of a network device to its [`crate::frame::Device`]. Like the
/// four maps below, it has room for one entry in a fence without devices.
pub const FRAME_DEVICES_MAP: &str = "FRAME_DEVICES";

/// The hash map of the MAC addresses that the guests may use: from [`crate::frame::GuestMac`] to a number without meaning.
pub const GUEST_MACS_MAP: &str = "GUEST_MACS";

/// The hash map of the MAC addresses that the first frame determined: from the index of a device to the address.
pub const LEARNT_MACS_MAP: &str = "LEARNT_MACS";

/// The hash map of the host's addresses in the guests' networks: from [`crate::frame::Gateway`] to a number without
/// meaning.
pub const GATEWAYS_MAP: &str = "GATEWAYS";

/// The LRU hash map of what the host sent to guests: from [`crate::frame::Sent`] to nanoseconds since boot.
pub const HOST_SENT_MAP: &str = "HOST_SENT";

/// The global for refused frames: [`crate::frame::ANSWER_PROHIBITED`], [`crate::frame::DROP_SILENTLY`] or
/// [`crate::frame::ANSWER_UNREACHABLE`].
pub const DENY_FRAMES_WITH: &str = "DENY_FRAMES_WITH";

/// The global for the offsets in the kernel's `sk_buff` at which a checksum is found that a guest leaves to a device:
/// [`crate::frame::checksum::Offsets`]. If they are all zero, every frame of a guest is refused.
pub const FRAME_OFFSETS: &str = "FRAME_OFFSETS";

/// The maximum number of devices of a fence.
pub const FRAME_DEVICES: u32 = 64;

/// The maximum number of MAC addresses of the guests of a fence.
pub const GUEST_MACS: u32 = 1024;

/// The maximum number of the host's addresses in the guests' networks.
pub const GATEWAYS: u32 = 1024;

/// The maximum number of answers that are awaited from guests.
pub const HOST_SENT: u32 = 16384;

/// The socket storage for the owner of each socket.
pub const OWNERS_MAP: &str = "OWNERS";

/// The per-CPU array of counters, indexed by [`Counter`].
pub const COUNTERS_MAP: &str = "COUNTERS";

/// The global for the error of a denied call: a negative errno, or 0 for the kernel's own choice, which is EPERM.
pub const DENY_RETVAL: &str = "DENY_RETVAL";

/// The global that allows raw, UDP-Lite and L2TP sockets: 0 or 1.
pub const ALLOW_RAW: &str = "ALLOW_RAW";

/// The global that allows devices in [`crate::device`]: 0, [`crate::device::ALLOW_ALL`],
/// [`crate::device::ALLOW_VHOST_NET`] or [`crate::device::ALLOW_TAPS`].
pub const ALLOW_DEVICES: &str = "ALLOW_DEVICES";

/// The global for the offsets in the kernel's types at which the names of Unix sockets are found:
/// [`crate::unix::Offsets`]. All zero if there is no program for them.
pub const UNIX_OFFSETS: &str = "UNIX_OFFSETS";

/// The global that refuses sockets whose local port no program judges: 0 or 1.
pub const CLOSES_LISTENERS: &str = "CLOSES_LISTENERS";

/// The global for whether processes can set socket options that no program sees: 0 or 1.
pub const OPTIONS_UNSEEN: &str = "OPTIONS_UNSEEN";

/// The global that refuses all devices except those in [`DEVICES_MAP`]: 0 or 1.
pub const CLOSES_DEVICES: &str = "CLOSES_DEVICES";

/// The global that enables the helpers for the calling process in the programs for devices and socket options: 0 or 1.
/// Before Linux 6.1 these programs do not have the helpers (`cgroup_current_func_proto` in kernel/bpf/cgroup.c).
pub const NAMES_CALLER: &str = "NAMES_CALLER";

/// The global for the [`crate::proof::Token`] of the fence.
pub const PROOF: &str = "PROOF";

/// The global for the id of the fence's cgroup. By it the programs recognise a network namespace that was made in the
/// fence.
pub const FENCE_CGROUP: &str = "FENCE_CGROUP";

/// The global that allows sockets in network namespaces that were made outside the fence: 0 or 1.
pub const ALLOW_NETNS: &str = "ALLOW_NETNS";

/// The global for the cookie of the network namespace that has the host's addresses, in a fence that is attached to a
/// workload: its own may be another. 0 in other fences, and if the kernel does not show cookies.
pub const NODE_NETNS: &str = "NODE_NETNS";

/// The global for the offsets in the kernel's types at which the maker of a network namespace is found:
/// [`crate::netns::Offsets`]. All zero if the programs cannot read them.
pub const NETNS_OFFSETS: &str = "NETNS_OFFSETS";

/// The global that enables the lookup of the MPTCP connection of a TCP subflow: 0 or 1. Before Linux 5.19 there is no
/// helper for it (`bpf_skc_to_mptcp_sock`).
pub const FINDS_MPTCP: &str = "FINDS_MPTCP";

/// The trie of the names by which the programs of [`crate::hook::LSM_HOOKS`] recognise managers: prefixes of names, in bits,
/// to a class of [`crate::manager`].
pub const MANAGER_NAMES_MAP: &str = "MANAGER_NAMES";

/// The global for the offsets in the kernel's types at which Unix sockets have their makers and names:
/// [`crate::manager::Offsets`].
pub const MANAGER_OFFSETS: &str = "MANAGER_OFFSETS";

/// The global for the offsets in the kernel's types at which tasks and sockets are described:
/// [`crate::listing::Offsets`].
pub const LISTING_OFFSETS: &str = "LISTING_OFFSETS";

/// The global for the offset of `socket.sk`. It is a number of its own, so that the verifier knows its value.
pub const SOCKET_SOCK: &str = "SOCKET_SOCK";

/// The program that notes the owners of the open sockets of the fence's processes, and lists those that no program judges.
pub const LIST_SOCKETS: &str = "list_sockets";

/// The program that notes the owner of a TCP socket which has no descriptor, given a [`crate::listing::Question`].
pub const NOTE_OPENED: &str = "note_opened";

/// The size of the event ring in bytes; the kernel needs at least a page. 16 KiB are enough for 120 attempt keys
/// between two reads. Events that do not fit are counted, and reported by the next summary.
pub const EVENTS_BYTES: u32 = 16 * 1024;

/// The ring buffer of [`crate::RefusedSyn`]s. Only the supervisor reads it.
pub const REFUSED_SYNS_MAP: &str = "REFUSED_SYNS";

/// The size of that ring in bytes: room for 85 connections between two reads, on pages of 4 KiB. A SYN that does not fit is
/// sent again by TCP, and refused again.
pub const REFUSED_SYNS_BYTES: u32 = 4096;

/// The counters of the kernel side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Counter {
    /// Everything that was refused. An attempt is counted only after it was recorded. So a reader that waited for all
    /// running programs finds at least this many attempts in the record.
    Refused = 0,
    /// Attempts, refused or monitored, that could not be recorded for lack of room.
    Lost = 1,
    /// Packets refused because they could not be parsed.
    Unparsed = 2,
    /// Everything that the policy denies and monitor mode let through.
    Monitored = 3,
    /// The attempts in `Monitored` that did not fit among the sightings.
    Unlisted = 4,
    /// Attempts, refused or monitored, for which an event was sent.
    First = 5,
    /// Attempts that were counted as repeats of their key. `First`, `Repeated` and `Lost` together are all attempts.
    Repeated = 6,
    /// Calls that a rule denies and the reply exception allows.
    ReplyCalls = 7,
    /// Packets that a rule denies and the reply exception allows.
    ReplyPackets = 8,
    /// Peers on the host that were forgotten too early, or not remembered, for lack of room.
    PeersForgotten = 9,
}

/// The number of counters.
pub const COUNTER_SLOTS: usize = 10;
