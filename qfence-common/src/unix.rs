//! Names of Unix sockets, and the rules for them.
//!
//! A program at `connect_unix` and `sendmsg_unix` sees the name that a process gives, and not the socket that the name
//! leads to: the path of a symbolic link or a relative path is seen as it is. So a rule that refuses some names is no
//! barrier, but puts attempts on record. A rule that allows some names is one, if the process can change nothing on
//! the way to them.

use crate::Halves;

/// The most bytes of a name: `sun_path` of `struct sockaddr_un` (unix(7)).
pub const LONGEST: u32 = 108;

/// The number of words of a [`Name`].
pub const WORDS: usize = 16;

/// The bytes of a name, in memory order, followed by zeros. A path ends before its first zero byte. An abstract name begins
/// with a zero byte, and can have more of them. The room is more than a name needs: the verifier accepts a length that
/// was masked, and not one that was compared.
pub type Name = [u64; WORDS];

/// The number of bytes of a [`Name`].
pub const ROOM: usize = size_of::<Name>();

/// A rule for a name, or for all names that begin alike. The rule for the longest such begin decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct NameRule {
    /// The sum of [`ALLOW`], [`AT_HOME`] and [`NO_PARENTS`], as far as they apply.
    pub flags: u32,
    /// The number of the manager whose name it is; 0 for none.
    pub manager: u16,
    /// The length of the only name that it applies to, in bytes. 0 if it applies to others too.
    pub length: u16,
}

const _: () = assert!(size_of::<NameRule>() == 8 && align_of::<NameRule>() == 4);

/// In [`NameRule::flags`]: the name is allowed.
pub const ALLOW: u32 = 1;

/// In [`NameRule::flags`]: the name is refused only to a process that is at home: for a path, in the root directory
/// of the fence's first process, and so in its mount namespace; for an abstract name, in the fence's home, its first
/// network namespace. Elsewhere the name leads to another socket.
pub const AT_HOME: u32 = 2;

/// In [`NameRule::flags`]: the name is allowed only if no part of it is `..`.
pub const NO_PARENTS: u32 = 4;

impl NameRule {
    /// Whether a name of `length` bytes to which this rule applies is allowed.
    #[must_use]
    #[inline(always)]
    pub fn allows(
        self,
        length: u32,
        is_at_home: impl FnOnce() -> bool,
        has_parents: impl FnOnce() -> bool,
    ) -> bool {
        if self.flags & ALLOW == 0 {
            return self.flags & AT_HOME != 0 && !is_at_home();
        }
        // Two abstract names can differ in zero bytes at the end alone.
        if self.length != 0 && u32::from(self.length) != length {
            return false;
        }
        self.flags & NO_PARENTS == 0 || !has_parents()
    }
}

/// Whether a part of a path is `..`. Without branches, of which the verifier would check each combination.
#[must_use]
#[inline(always)]
pub const fn has_parents(name: &Name) -> bool {
    let mut found = 0;
    // The marks of the word that follows; behind the last word are zeros.
    let (mut next_dots, mut next_ends) = (0, marks(0));
    let mut at = WORDS;
    while at > 0 {
        at -= 1;
        let word = u64::from_le(name[at]);
        let dots = marks(word ^ DOTS);
        let slashes = marks(word ^ SLASHES);
        let ends = slashes | marks(word);
        // The marks of the bytes that follow, at the place of each byte.
        found |= slashes
            & (dots >> 8 | next_dots << 56)
            & (dots >> 16 | next_dots << 48)
            & (ends >> 24 | next_ends << 40);
        (next_dots, next_ends) = (dots, ends);
    }
    found != 0
}

const DOTS: u64 = u64::from_ne_bytes([b'.'; 8]);
const SLASHES: u64 = u64::from_ne_bytes([b'/'; 8]);
const LOW: u64 = u64::from_ne_bytes([0x7f; 8]);

/// Sets the highest bit of each byte that is zero, and clears all others.
#[inline(always)]
const fn marks(word: u64) -> u64 {
    !(((word & LOW) + LOW) | word | LOW)
}

/// A number for a name, by which attempts are grouped. Without `seed`, which the fence's processes do not know, they cannot
/// choose names with the same number.
#[must_use]
#[inline(always)]
pub const fn fingerprint(name: &Name, seed: u64) -> Halves {
    let mut upper = seed;
    let mut lower = !seed;
    let mut at = 0;
    while at < WORDS {
        upper = mix(upper ^ name[at], 0xff51_afd7_ed55_8ccd);
        lower = mix(lower ^ name[at], 0xc4ce_b9fe_1a85_ec53);
        at += 1;
    }
    // 0 is the address of attempts without one.
    Halves {
        upper: upper | 1,
        lower,
    }
}

/// A permutation, for an odd factor: half of MurmurHash3's finalizer.
#[inline(always)]
const fn mix(word: u64, factor: u64) -> u64 {
    let word = word.wrapping_mul(factor);
    word ^ word >> 32
}

/// Offsets in bytes, each within the named type of the kernel. They differ between kernels; the loader reads them from
/// the kernel's own type information.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Offsets {
    /// `bpf_sock_addr_kern.uaddr`: the address of a `struct sockaddr_un`.
    pub address: u32,
    /// `bpf_sock_addr_kern.uaddrlen`: its length (Linux 6.7).
    pub length: u32,
    /// `task_struct.fs`.
    pub task_fs: u32,
    /// `fs_struct.root.mnt`: the mount of a task's root directory.
    pub root_mount: u32,
    /// `fs_struct.root.dentry`: the entry of a task's root directory.
    pub root_entry: u32,
    /// 1 if the others are known; otherwise 0.
    pub are_known: u32,
}

const _: () = assert!(size_of::<Offsets>() == 24 && align_of::<Offsets>() == 4);

// SAFETY: a `repr(C)` struct of integers without padding (asserted above): any bytes are a value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Offsets {}

// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for NameRule {}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words of a name.
    fn words(name: &[u8]) -> Name {
        let mut words = [0; WORDS];
        for (word, bytes) in words.iter_mut().zip(name.chunks(8)) {
            let mut whole = [0; 8];
            whole[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_ne_bytes(whole);
        }
        words
    }

    #[test]
    fn parents_are_parts_of_a_path() {
        for (name, has) in [
            ("/a/../b", true),
            ("/..", true),
            ("/a/..", true),
            ("/a/..b", false),
            ("/a../b", false),
            ("/a/.../b", false),
            ("/a/./b", false),
            ("", false),
        ] {
            // At all places within a word, and across words.
            for shift in 0..20 {
                let mut shifted = [b'x'; LONGEST as usize];
                shifted[shift..shift + name.len()].copy_from_slice(name.as_bytes());
                let whole = &shifted[..shift + name.len()];
                assert_eq!(has_parents(&words(whole)), has, "{name} {shift}");
            }
        }
        let mut longest = [b'x'; LONGEST as usize];
        longest[105..].copy_from_slice(b"/..");
        assert!(has_parents(&words(&longest)));
        longest[104..].copy_from_slice(b"/...");
        assert!(!has_parents(&words(&longest)));
    }

    #[test]
    fn a_rule_refuses_unless_it_allows() {
        let rule = |flags, length| NameRule {
            flags,
            manager: 0,
            length,
        };
        let allows = |rule: NameRule, home, parents| rule.allows(5, || home, || parents);
        assert!(!allows(rule(0, 0), false, false));
        assert!(allows(rule(ALLOW, 0), true, true));
        assert!(allows(rule(ALLOW, 5), true, true));
        assert!(!allows(rule(ALLOW, 4), true, true));
        assert!(!allows(rule(AT_HOME, 0), true, false));
        assert!(allows(rule(AT_HOME, 0), false, false));
        assert!(allows(rule(ALLOW | NO_PARENTS, 0), true, false));
        assert!(!allows(rule(ALLOW | NO_PARENTS, 0), true, true));
    }

    #[test]
    fn names_have_numbers_of_their_own() {
        let mut name = [7; WORDS];
        let number = fingerprint(&name, 1);
        assert_ne!(number, fingerprint(&name, 2));
        for at in 0..WORDS {
            name[at] += 1;
            assert_ne!(fingerprint(&name, 1), number);
            name[at] -= 1;
        }
        assert_eq!(fingerprint(&name, 1), number);
    }
}
