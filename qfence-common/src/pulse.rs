//! What is known of a fence as a whole: whether somebody follows the host's addresses for it, when its policy was
//! changed, and what its own programs have noted.

/// What the programs know of who follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Pulse {
    /// When the policy was last known to be true to the host, in nanoseconds since boot, suspend included
    /// (`CLOCK_BOOTTIME`). Who follows the host's addresses writes it once a second.
    pub followed_ns: u64,
}

const _: () = assert!(size_of::<Pulse>() == 8 && align_of::<Pulse>() == 8);

/// What the programs know of the last change of their policy by a user. Who changes it writes this.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Change {
    /// When it was, in nanoseconds since boot, as above; 0 if it never was. Written when nothing is judged by the
    /// former policy any more.
    pub changed_ns: u64,
    /// Whether each packet of a TCP connection that the fence opened is judged: 1 if one that the policy denies is to
    /// carry nothing on; otherwise 0.
    pub judges_standing: u32,
    /// Zero.
    pub reserved: u32,
}

const _: () = assert!(size_of::<Change>() == 16 && align_of::<Change>() == 8);

/// What the programs have noted of their fence. They alone write it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Marks {
    /// The cookie of the fence's home: the network namespace in which its first socket was made. qfence's own child
    /// makes that, before it executes anything, in the namespace that the fence was started in. 0 until then.
    pub home: u64,
    /// 1 once a socket of the fence was let broadcast (SO_BROADCAST); otherwise 0.
    pub broadcasts: u32,
    /// 1 once a port that the fence has asked could not be noted, for want of memory; otherwise 0. From then on nobody
    /// counts as having spoken first.
    pub asked_unnoted: u32,
    /// 1 once monitor mode let a socket be made that is refused otherwise; otherwise 0.
    pub monitored_sockets: u32,
    /// 1 once monitor mode let a socket option be set that is refused otherwise; otherwise 0.
    pub monitored_options: u32,
    /// 1 once monitor mode let a device be opened that is refused otherwise; otherwise 0.
    pub monitored_devices: u32,
    /// Zero.
    pub reserved: u32,
}

const _: () = assert!(size_of::<Marks>() == 32 && align_of::<Marks>() == 8);

/// How long after [`Pulse::followed_ns`] the policy is taken for true, in nanoseconds.
pub const FOLLOWED_FOR_NS: u64 = 5_000_000_000;

/// Whether a policy that was true to the host at `followed_ns` may be taken for it at `now_ns`, both in nanoseconds of
/// one clock.
#[must_use]
#[inline(always)]
pub const fn is_followed(followed_ns: u64, now_ns: u64) -> bool {
    // A time that is yet to come is that of a beat on another CPU, just now.
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
