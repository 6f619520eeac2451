//! System calls that few programs need: namespaces, mounts, io_uring, keys, and interfaces with a history of faults.

use io_uring::IoUring;
use nix::{
    libc,
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use super::{Tried, raw, tried};
use crate::verify::closures::victims::{SCRATCH, Victims};

const NONE: Option<&str> = None;

pub(crate) fn ring(_: &Victims) -> Tried {
    tried(IoUring::new(2))
}

pub(crate) fn user_namespace(_: &Victims) -> Tried {
    unshare(CloneFlags::CLONE_NEWUSER)
}

pub(crate) fn user_namespace_by_clone3(_: &Victims) -> Tried {
    raw::clone3_user()
}

fn own_mounts() -> Tried {
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)
}

pub(crate) fn mount_anew(_: &Victims) -> Tried {
    own_mounts()?;
    let flags = MsFlags::empty();
    mount(Some("tmpfs"), SCRATCH, Some("tmpfs"), flags, NONE)
}

pub(crate) fn open_file_system(_: &Victims) -> Tried {
    own_mounts()?;
    raw::fsopen(c"tmpfs")
}

pub(crate) fn clone_mounts(_: &Victims) -> Tried {
    own_mounts()?;
    raw::clone_tree(c"/proc/self")
}

pub(crate) fn bpf(_: &Victims) -> Tried {
    raw::bpf_array()
}

pub(crate) fn perf(_: &Victims) -> Tried {
    raw::perf_event()
}

/// Handles the page faults of this process itself.
pub(crate) fn page_faults(_: &Victims) -> Tried {
    // UFFD_USER_MODE_ONLY of linux/userfaultfd.h.
    raw::descriptor(libc::SYS_userfaultfd, [1, 0, 0, 0, 0]).map(drop)
}

pub(crate) fn user_keyring(_: &Victims) -> Tried {
    raw::user_keyring()
}

pub(crate) fn add_key(_: &Victims) -> Tried {
    raw::process_key()
}
