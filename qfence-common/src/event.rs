//! The record of a denied attempt. The first attempt of a key is sent through the ring buffer; repeats are counted.

use crate::{
    Halves,
    unix::{Name, WORDS},
};

/// The attempt key: the fields in which equal attempts agree. It is the key of a map of [`Repeats`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct AttemptKey {
    /// The destination; at ingress, the sender. [`crate::hook::Subject`] has its meaning at the hooks for sockets and
    /// devices.
    pub address: Halves,
    /// The process (thread group) id, in the initial pid namespace; 0 if unknown. At egress it is the process that
    /// created the socket, because packets also leave in interrupts of other processes.
    pub pid: u32,
    /// The destination port, in host order. For a socket, its type (`SOCK_*`); for a device, its
    /// minor number.
    pub port: u32,
    /// The IP protocol number. For a device, its major number.
    pub protocol: u32,
    /// A [`crate::Hook`].
    pub hook: u32,
    /// The number of the rule that decided, or one of the special numbers in [`crate::verdict`].
    pub rule: u32,
    /// 1 if the attempt was let through because the policy is only monitored; otherwise 0.
    pub monitored: u32,
}

const _: () = assert!(size_of::<AttemptKey>() == 40 && align_of::<AttemptKey>() == 8);

/// The user id of an unknown user. The kernel uses the same number for invalid ids.
pub const NO_UID: u32 = u32::MAX;

/// The name of a thread, padded with zeros. The alignment lets the compiler copy it by words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Comm(pub [u8; 16]);

impl Comm {
    /// The name of an unknown thread.
    pub const NONE: Self = Self([0; 16]);
}

/// The origin of the first attempt of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Origin {
    /// Nanoseconds since boot, suspend included (`CLOCK_BOOTTIME`).
    pub boot_ns: u64,
    /// The id of the process's cgroup (the inode of its directory).
    pub cgroup: u64,
    /// The cookie of the socket's network namespace; 0 if unknown.
    pub netns: u64,
    /// The address to which the socket is bound, or the source address of the packet; all zero if there is none yet.
    pub source: Halves,
    /// The name of the thread (`comm`), padded with zeros; all zero if unknown.
    pub comm: Comm,
    /// The thread id, in the initial pid namespace; 0 if unknown.
    pub tid: u32,
    /// The user id, in the initial user namespace; [`NO_UID`] if unknown.
    pub uid: u32,
    /// The source port, in host order; 0 if there is none yet.
    pub source_port: u32,
    /// [`GUEST`] and [`OWN_LISTENER`], or 0.
    pub flags: u32,
}

/// In [`Origin::flags`]: `SO_OOBINLINE` was set on the TCP socket. libslirp sets it on each socket that it opens for a
/// guest, before it connects the socket (`tcp_fconnect` in its tcp_subr.c). QEMU never sets it on its own sockets.
pub const GUEST: u32 = 1;

/// In [`Origin::flags`]: a rule for the set `self` would allow the attempt, because the listener is of the fence's own.
pub const OWN_LISTENER: u32 = 2;

const _: () = assert!(size_of::<Origin>() == 72 && align_of::<Origin>() == 8);

/// The counts of a key after its first attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Repeats {
    /// The number of attempts for which no event was sent.
    pub count: u64,
    /// The time of the last attempt, in nanoseconds since boot.
    pub last_ns: u64,
    /// The origin of the first attempt.
    pub origin: Origin,
}

const _: () = assert!(size_of::<Repeats>() == 88 && align_of::<Repeats>() == 8);

/// The first attempt of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Event {
    /// The initial counts of the key. They are part of the event so that the program's small stack contains them only
    /// once, for the map and for the ring.
    pub repeats: Repeats,
    /// The key of the attempt.
    pub key: AttemptKey,
}

const _: () = assert!(size_of::<Event>() == 128 && align_of::<Event>() == 8);

/// The first attempt of a key whose subject is the name of a Unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct NamedEvent {
    /// The event.
    pub event: Event,
    /// The name; [`AttemptKey::port`] is its length.
    pub name: Name,
}

const _: () = assert!(size_of::<NamedEvent>() == 256 && align_of::<NamedEvent>() == 8);

impl NamedEvent {
    /// Reads an event with a name from a record of the ring buffer; `None` if the record has another size.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != size_of::<Self>() {
            return None;
        }
        let (event, words) = bytes.split_at_checked(size_of::<Event>())?;
        let mut name = [0; WORDS];
        for (word, bytes) in name.iter_mut().zip(words.chunks_exact(8)) {
            *word = u64::from_ne_bytes(bytes.try_into().ok()?);
        }
        Some(Self {
            event: Event::from_bytes(event)?,
            name,
        })
    }
}

impl Event {
    /// Reads an event from a record of the ring buffer; `None` if the record has another size.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let u64_at = |at: usize| Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let u32_at = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        if bytes.len() != size_of::<Self>() {
            return None;
        }
        let halves_at = |at: usize| {
            Some(Halves {
                upper: u64_at(at)?,
                lower: u64_at(at + 8)?,
            })
        };
        let origin = Origin {
            boot_ns: u64_at(16)?,
            cgroup: u64_at(24)?,
            netns: u64_at(32)?,
            source: halves_at(40)?,
            comm: Comm(bytes.get(56..72)?.try_into().ok()?),
            tid: u32_at(72)?,
            uid: u32_at(76)?,
            source_port: u32_at(80)?,
            flags: u32_at(84)?,
        };
        let key = AttemptKey {
            address: halves_at(88)?,
            pid: u32_at(104)?,
            port: u32_at(108)?,
            protocol: u32_at(112)?,
            hook: u32_at(116)?,
            rule: u32_at(120)?,
            monitored: u32_at(124)?,
        };
        let repeats = Repeats {
            count: u64_at(0)?,
            last_ns: u64_at(8)?,
            origin,
        };
        Some(Self { repeats, key })
    }
}

// SAFETY: a `repr(C)` struct of integers without padding (asserted above): any bytes are a value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for AttemptKey {}

// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Repeats {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_the_fields_at_their_offsets() {
        let bytes: [u8; size_of::<Event>()] = core::array::from_fn(|at| u8::try_from(at).unwrap());
        let event = Event::from_bytes(&bytes).unwrap();
        // SAFETY: any bytes are an event.
        let same: Event = unsafe { core::mem::transmute(bytes) };
        assert_eq!(event, same);
        assert_eq!(Event::from_bytes(&bytes[1..]), None);
    }

    #[test]
    fn a_name_follows_its_event() {
        let bytes: [u8; size_of::<NamedEvent>()] =
            core::array::from_fn(|at| u8::try_from(at).unwrap());
        let named = NamedEvent::from_bytes(&bytes).unwrap();
        // SAFETY: any bytes are an event with a name.
        let same: NamedEvent = unsafe { core::mem::transmute(bytes) };
        assert_eq!(named, same);
        assert_eq!(NamedEvent::from_bytes(&bytes[1..]), None);
        assert_eq!(Event::from_bytes(&bytes), None);
    }
}
