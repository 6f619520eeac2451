//! The names by which the two sides find each other's maps, programs and globals, and the version of all that one qfence
//! leaves for another.

/// The version of what a fence leaves for other processes: its pinned maps, its description, its policy file, its kept
/// record, and its locks and marks. A program looks at it before it reads any of them, and uses those of its own version
/// alone.
///
/// Raise it by one in the release that changes
/// - the name, type, key, value, index or meaning of a pinned map;
/// - the name of a hook, by which its link is pinned, or the meaning of a pin;
/// - a field of the description, of the policy file or of a kept line, unless old and new programs read it alike;
/// - which file is locked or marked, and for what.
///
/// A fence without a version, from before there was one, counts as version 0. Two things never change, for programs of
/// all versions go by them: the directory `qfence/NAME` in bpffs, and [`MAPS_DIRECTORY`] followed by the number in it.
pub const VERSION: u32 = 1;

/// What the name of the directory of a fence's pinned maps begins with. The version follows.
pub const MAPS_DIRECTORY: &str = "maps-abi-";

/// The whole name of that directory before there were versions.
pub const UNVERSIONED_MAPS_DIRECTORY: &str = "maps";

/// The one-slot array whose slot holds the policy in force: an array of [`crate::Node`]s.
pub const POLICY_MAP: &str = "POLICY";

/// The per-CPU array of [`crate::Hits`], indexed by a rule's number. It is as long as the policy of the start
/// needs it.
pub const HITS_MAP: &str = "HITS";

/// The one-slot array whose slot holds, once there are rules whose numbers are beyond the end of [`HITS_MAP`], an
/// array of their [`crate::Hits`], indexed by [`crate::tally::more_hits_index`].
pub const MORE_HITS_MAP: &str = "MORE_HITS";

/// The one-slot array whose slot holds, once a policy monitors, a hash map of [`crate::Sighting`]s, to how often
/// each was made.
pub const SIGHTINGS_MAP: &str = "SIGHTINGS";

/// How many sightings there is room for; the first are kept, the others counted.
pub const SIGHTINGS: u32 = 4096;

/// The one-slot array whose slot holds what attempts are counted in now: a hash map of [`crate::Repeats`] by
/// [`crate::AttemptKey`].
pub const REPEATS_MAP: &str = "REPEATS";

/// How many attempt keys there is room for between two summaries, at least.
pub const KEYS: u32 = 4096;

/// How many of them there is room for in [`REPEATS_MAP`] when few are tried.
pub const FEW_KEYS: u32 = 1024;

/// The one-slot array whose slot holds the same for attempt keys that came when [`REPEATS_MAP`] was full: a trie, which takes
/// no memory for what is not in it. Its own keys are attempt keys with all of their bits.
pub const MORE_REPEATS_MAP: &str = "MORE_REPEATS";

/// How many attempt keys there is room for in that.
pub const MORE_KEYS: u32 = KEYS - FEW_KEYS;

/// The per-CPU array of [`crate::Tally`], indexed by [`crate::tally::tally_index`].
pub const TALLIES_MAP: &str = "TALLIES";

/// The ring buffer of [`crate::Event`]s.
pub const EVENTS_MAP: &str = "EVENTS";

/// The hash map of [`crate::Peer`]s that may be answered, to when each was last heard of.
pub const PEERS_MAP: &str = "PEERS";

/// How many peers are remembered, on a host of many CPUs; the one not heard of for longest makes room.
pub const PEERS: u32 = 1024;

/// What was noted of the datagrams that the fence sends to the host: a trie, which takes no memory for what is not in it,
/// of [`crate::peer::Noted::key`]s with all of their bits, to times in nanoseconds since boot.
pub const NOTED_MAP: &str = "NOTED";

/// The one-slot array of the [`crate::Pulse`] of the fence.
pub const PULSE_MAP: &str = "PULSE";

/// The one-slot array of the [`crate::Change`] of the policy.
pub const CHANGE_MAP: &str = "CHANGE";

/// The one-slot array of the fence's [`crate::Marks`].
pub const MARKS_MAP: &str = "MARKS";

/// The storage of each socket for who made it.
pub const OWNERS_MAP: &str = "OWNERS";

/// The per-CPU array of counters, indexed by [`Counter`].
pub const COUNTERS_MAP: &str = "COUNTERS";

/// The global that holds the error a refusal returns: a negative errno, or 0 to leave it to the
/// kernel, which says EPERM.
pub const DENY_RETVAL: &str = "DENY_RETVAL";

/// The global that says whether raw, UDP-Lite and L2TP sockets are let be: 0 or 1.
pub const ALLOW_RAW: &str = "ALLOW_RAW";

/// The global that says whether the devices in [`crate::device`] are let be: 0 or 1.
pub const ALLOW_DEVICES: &str = "ALLOW_DEVICES";

/// The global that says whether the programs for devices and socket options may ask who calls: 0 or 1.
/// Before Linux 6.1 they have no helpers for that (`cgroup_current_func_proto` in
/// kernel/bpf/cgroup.c).
pub const NAMES_CALLER: &str = "NAMES_CALLER";

/// The global that holds the [`crate::proof::Token`] of the fence.
pub const PROOF: &str = "PROOF";

/// The global that holds the id of the fence's cgroup, by which a network namespace that was made in it is known.
pub const FENCE_CGROUP: &str = "FENCE_CGROUP";

/// The global that says whether sockets in network namespaces that were made outside are let be: 0 or 1.
pub const ALLOW_NETNS: &str = "ALLOW_NETNS";

/// The global that holds where in the kernel's own types the maker of a network namespace is found:
/// [`crate::netns::Offsets`]. Zero where the programs cannot look there.
pub const NETNS_OFFSETS: &str = "NETNS_OFFSETS";

/// The global that says whether the programs may ask for the MPTCP connection that a TCP socket is a way of: 0 or 1.
/// Before Linux 5.19 there is no helper for it (`bpf_skc_to_mptcp_sock`).
pub const FINDS_MPTCP: &str = "FINDS_MPTCP";

/// The size of the event ring in bytes, or a page if that is more: 120 attempt keys between two reads. What it
/// has no room for is counted and told of by the next summary.
pub const EVENTS_BYTES: u32 = 16 * 1024;

/// What the kernel side counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Counter {
    /// All that was refused. Counted when it is on record, so that whoever has waited for the programs that
    /// ran finds no less of it than this.
    Refused = 0,
    /// Attempts, refused or monitored, that there was no room to put on record.
    Lost = 1,
    /// Packets refused because they could not be understood.
    Unparsed = 2,
    /// All that monitor mode let through although it would be refused.
    Monitored = 3,
    /// Those among them that there was no room for among the sightings.
    Unlisted = 4,
    /// Attempts, refused or monitored, of which there was an event.
    First = 5,
    /// Attempts that were counted with others of their key. All attempts are one of the first, the
    /// repeated and the lost.
    Repeated = 6,
    /// Calls that were let through although a rule denies them, as answers to a peer on the host that spoke first.
    ReplyCalls = 7,
    /// Packets that were let through likewise.
    ReplyPackets = 8,
}

/// How many counters there are.
pub const COUNTER_SLOTS: usize = 9;
