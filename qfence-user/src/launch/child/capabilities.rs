//! Removes all capabilities of a command that does not run as root, whatever the caller has set up.
//!
//! setresuid(2) clears the capabilities of a process that stops being root. There are two exceptions: with
//! `SECBIT_NO_SETUID_FIXUP`, which survives exec, they are kept; and the inheritable set is never cleared
//! (`cap_emulate_setxuid` in security/commoncap.c). All of this concerns one thread, and uses system calls only.
//!
//! The bounding set is not changed. It grants nothing: it limits the capabilities that set-user-ID programs and file
//! capabilities grant. Under `no_new_privs` they grant nothing, and with `--allow-new-privs` the user wants them to.

use std::ffi::c_ulong;

use nix::{errno::Errno, libc};

/// `_LINUX_CAPABILITY_VERSION_3` of linux/capability.h.
const VERSION_3: u32 = 0x2008_0522;

/// The maximum value of `CAP_LAST_CAP`.
const MOST: c_ulong = 63;

/// The securebits with which a process keeps capabilities when it changes its user.
const KEEPING: i32 = libc::SECBIT_NO_SETUID_FIXUP | libc::SECBIT_KEEP_CAPS;

/// `struct __user_cap_header_struct`.
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// `struct __user_cap_data_struct`: 32 bits of each set. Two of them cover all capabilities.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// This thread.
const OWN: Header = Header {
    version: VERSION_3,
    pid: 0,
};

/// Clears these securebits, so that each later change of user removes the capabilities of root. To be called as root.
///
/// # Errors
/// EPERM if the caller has locked the securebits.
pub(super) fn lose_with_root() -> nix::Result<()> {
    let bits = prctl(libc::PR_GET_SECUREBITS, [0; 2])?;
    if bits & KEEPING == 0 {
        return Ok(());
    }
    let bits = c_ulong::from((bits & !KEEPING).unsigned_abs());
    prctl(libc::PR_SET_SECUREBITS, [bits, 0]).map(drop)
}

/// Removes all capabilities from every set except the bounding set.
///
/// # Errors
/// The errors of capset(2) and prctl(2).
pub(super) fn drop_all() -> nix::Result<()> {
    let clear = c_ulong::from(libc::PR_CAP_AMBIENT_CLEAR_ALL.unsigned_abs());
    prctl(libc::PR_CAP_AMBIENT, [clear, 0])?;
    let (own, none) = (OWN, [Sets::default(); 2]);
    // SAFETY: the kernel reads a header and two data structs.
    let set = unsafe { libc::syscall(libc::SYS_capset, &raw const own, none.as_ptr()) };
    Errno::result(set).map(drop)
}

/// Whether no capability is left.
///
/// # Errors
/// The errors of capget(2).
pub(super) fn are_none() -> nix::Result<bool> {
    let (mut own, mut sets) = (OWN, [Sets::default(); 2]);
    // SAFETY: the kernel reads a header, writes its version if that is another one, and writes two data structs.
    let got = unsafe { libc::syscall(libc::SYS_capget, &raw mut own, sets.as_mut_ptr()) };
    Errno::result(got)?;
    Ok(sets == [Sets::default(); 2] && !has_ambient()?)
}

fn has_ambient() -> nix::Result<bool> {
    let is_set = c_ulong::from(libc::PR_CAP_AMBIENT_IS_SET.unsigned_abs());
    for capability in 0..=MOST {
        match prctl(libc::PR_CAP_AMBIENT, [is_set, capability]) {
            Ok(0) => {}
            Ok(_) => return Ok(true),
            // The kernel has no capability with this number, nor with a higher one.
            Err(Errno::EINVAL) => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(false)
}

fn prctl(option: i32, [a, b]: [c_ulong; 2]) -> nix::Result<i32> {
    const NONE: c_ulong = 0;
    // SAFETY: none of the options that are used here takes a pointer.
    Errno::result(unsafe { libc::prctl(option, a, b, NONE, NONE) })
}

#[cfg(test)]
mod tests {
    use std::{fs, thread};

    use super::*;

    #[test]
    fn they_are_gone_from_a_thread_that_drops_them() {
        let (before, after) = thread::spawn(|| {
            let before = are_none().unwrap();
            drop_all().unwrap();
            (before, are_none().unwrap())
        })
        .join()
        .unwrap();
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        let set = |name: &str| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap();
            u64::from_str_radix(line.trim(), 16).unwrap()
        };
        let sets = ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"].map(set);
        assert_eq!(before, sets == [0; 4]);
        assert!(after);
    }
}
