//! The state of a fence as a whole: when its policy last matched the host's addresses, when its policy was changed, and
//! the marks that its own programs set.

/// The pulse: when the policy was last known to match the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Pulse {
    /// The time at which the policy was last known to match the host, in nanoseconds since boot, suspend included
    /// (`CLOCK_BOOTTIME`). The process that follows the host's addresses writes it once a second.
    pub followed_ns: u64,
}

const _: () = assert!(size_of::<Pulse>() == 8 && align_of::<Pulse>() == 8);

/// The last change of the policy by a user. The process that changes the policy writes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Change {
    /// The time of the change, in nanoseconds since boot, suspend included; 0 if there was none. It is written when no
    /// program uses the former policy any more.
    pub changed_ns: u64,
    /// 1 if each packet of an existing TCP connection that the fence opened is judged, so that a connection that the
    /// policy denies transfers no more data; otherwise 0.
    pub judges_standing: u32,
    /// Zero.
    pub reserved: u32,
}

const _: () = assert!(size_of::<Change>() == 16 && align_of::<Change>() == 8);

/// Marks that the programs set on their fence. Only the programs write them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Marks {
    /// The cookie of the fence's home: the network namespace of its first socket. qfence's own child makes that socket
    /// before it executes anything, in the namespace in which the fence was started. 0 until then.
    pub home: u64,
    /// 1 after a socket of the fence was allowed to broadcast (SO_BROADCAST); otherwise 0.
    pub broadcasts: u32,
    /// 1 after a request of the fence could not be noted, for lack of memory; otherwise 0. From then on no datagram
    /// that arrives in the fence's home makes its sender a peer.
    pub asked_unnoted: u32,
    /// 1 after monitor mode let a socket be created that would be refused; otherwise 0.
    pub monitored_sockets: u32,
    /// 1 after monitor mode let a socket option be set that would be refused; otherwise 0.
    pub monitored_options: u32,
    /// 1 after monitor mode let a device be opened that would be refused; otherwise 0.
    pub monitored_devices: u32,
    /// 1 after a socket was created in a network namespace that was made in the fence; otherwise 0.
    pub inside_sockets: u32,
    /// The root directory of the process that made the fence's proof at Unix sockets, as two addresses in the kernel: its
    /// mount and its directory entry. Each mount namespace has mounts of its own, so they tell processes in other mount
    /// namespaces, and in other root directories, from those of the command. 0 until then.
    pub root: [u64; 2],
}

const _: () = assert!(size_of::<Marks>() == 48 && align_of::<Marks>() == 8);

/// How long after [`Pulse::followed_ns`] the policy counts as matching the host, in nanoseconds.
pub const FOLLOWED_FOR_NS: u64 = 5_000_000_000;

/// Whether a policy that matched the host at `followed_ns` still counts as matching it at `now_ns`, both in nanoseconds
/// of one clock.
#[must_use]
#[inline(always)]
pub const fn is_followed(followed_ns: u64, now_ns: u64) -> bool {
    // A time in the future was just written on another CPU.
    now_ns < followed_ns.saturating_add(FOLLOWED_FOR_NS)
}

// SAFETY: a `repr(C)` struct of integers without padding (asserted above): any bytes are a value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Pulse {}

// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Change {}

// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Marks {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_followed_for_five_seconds() {
        let beat = 7;
        assert!(is_followed(beat, beat));
        assert!(is_followed(beat, beat - 1));
        assert!(is_followed(beat, beat + FOLLOWED_FOR_NS - 1));
        assert!(!is_followed(beat, beat + FOLLOWED_FOR_NS));
        assert!(!is_followed(0, u64::MAX));
    }

    #[test]
    fn what_was_never_followed_is_not_long_after_boot() {
        assert!(!is_followed(0, FOLLOWED_FOR_NS));
    }
}
