//! Asks the kernel which programs are attached to a cgroup, and how.
//!
//! aya returns only the programs. It drops the flags, which show whether other programs can be attached below.

use std::{ffi::c_long, fs::File, io, path::Path};

use qfence_common::Hook;

use super::syscall::{Attributes, bpf, number};

/// The most programs of one attach type and cgroup, as in the kernel (`BPF_CGROUP_MAX_PROGS`).
const MOST: usize = 64;

/// `BPF_F_ALLOW_OVERRIDE`: a program of a cgroup below replaces this one there.
const ALLOW_OVERRIDE: u32 = 1;

/// `BPF_F_ALLOW_MULTI`: programs of cgroups below run in addition to this one.
const ALLOW_MULTI: u32 = 2;

/// How the programs of a cgroup and those of cgroups below it combine (`hierarchy_allows_attach` in
/// kernel/bpf/cgroup.c).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// All run.
    Multi,
    /// A program below replaces this one.
    Override,
    /// None can be attached below.
    Exclusive,
}

/// The programs attached to a cgroup itself at one hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The programs, by id.
    pub programs: Vec<u32>,
    /// How they combine with programs below.
    pub sharing: Sharing,
}

/// The part of `union bpf_attr` that `BPF_PROG_QUERY` uses, with all fields that a kernel may write.
#[repr(C)]
#[derive(Default)]
pub(super) struct Query {
    /// A cgroup, or the index of a device.
    pub(super) target: u32,
    pub(super) attach_type: u32,
    pub(super) query_flags: u32,
    pub(super) attach_flags: u32,
    pub(super) prog_ids: u64,
    /// The room for ids, and then their number.
    pub(super) count: u32,
    pub(super) padding: u32,
    pub(super) prog_attach_flags: u64,
    pub(super) link_ids: u64,
    pub(super) link_attach_flags: u64,
    pub(super) revision: u64,
}

const _: () = assert!(size_of::<Query>() == 64);

// SAFETY: as in linux/bpf.h. The kernel writes `count` ids at `prog_ids`, and as many at `link_ids` and flags at
// `prog_attach_flags` where these are not null. Those who set the addresses have room. The other addresses are null.
unsafe impl Attributes for Query {
    /// `BPF_PROG_QUERY`.
    const COMMAND: c_long = 16;
}

/// The programs attached to `cgroup` itself, at `hook`; for a hook of [`Hook::LSM`] those at all hooks of security modules
/// (`__cgroup_bpf_query` in kernel/bpf/cgroup.c).
///
/// # Errors
/// Errors of bpf(2): EPERM without CAP_NET_ADMIN.
pub fn attached(cgroup: &File, hook: Hook) -> io::Result<Attached> {
    let mut ids = [0_u32; MOST];
    let mut flags = [0_u32; MOST];
    let mut query = Query {
        target: number(cgroup)?,
        attach_type: hook.row().attach_type,
        prog_ids: ids.as_mut_ptr() as u64,
        count: u32::try_from(ids.len()).unwrap_or_default(),
        // Older kernels do not have this field, and those with hooks of security modules require it there.
        prog_attach_flags: if hook.is_lsm() {
            flags.as_mut_ptr() as u64
        } else {
            0
        },
        ..Query::default()
    };
    bpf(&mut query)?;
    let count = usize::try_from(query.count).unwrap_or(MOST).min(MOST);
    // For all hooks of security modules together, `attach_flags` is 0, and each program has its own.
    let common = match (hook.is_lsm(), &flags[..count]) {
        (false, _) | (_, []) => query.attach_flags,
        (true, flags) => flags.iter().fold(u32::MAX, |common, own| common & own),
    };
    Ok(Attached {
        programs: ids[..count].to_vec(),
        sharing: Sharing::of(common),
    })
}

impl Sharing {
    fn of(flags: u32) -> Self {
        if flags & ALLOW_MULTI != 0 {
            Self::Multi
        } else if flags & ALLOW_OVERRIDE != 0 {
            Self::Override
        } else {
            Self::Exclusive
        }
    }
}

/// What became of the programs of a fence beside those of others.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Beside {
    /// The hooks at which the fence has no program.
    pub left_out: Vec<Hook>,
    /// The hooks at which a program of a cgroup above does not apply to the fence's cgroup any more, because it was attached
    /// with BPF_F_ALLOW_OVERRIDE.
    pub replaced: Vec<Hook>,
}

/// Whether a program at `hook` of the cgroup `directory` would replace one of a cgroup above, which applies in `directory`
/// until then. That one was attached without BPF_F_ALLOW_MULTI (`compute_effective_progs` in kernel/bpf/cgroup.c). With
/// BPF_F_ALLOW_OVERRIDE the kernel permits it.
///
/// # Errors
/// As [`attached`], or if a cgroup cannot be opened.
pub fn replaces_another(directory: &Path, hook: Hook) -> io::Result<bool> {
    // The file that every cgroup has, and no other directory.
    let is_cgroup = |directory: &&Path| directory.join("cgroup.controllers").exists();
    for cgroup in directory.ancestors().take_while(is_cgroup) {
        let found = attached(&File::open(cgroup)?, hook)?;
        if !found.programs.is_empty() {
            return Ok(cgroup != directory && found.sharing != Sharing::Multi);
        }
    }
    Ok(false)
}
