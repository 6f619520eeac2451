//! Hands the programs of an ending fence over to its cgroup.
//!
//! A socket belongs to the cgroup in which it was made, and can be passed to a process outside (`SCM_RIGHTS`). A removed cgroup
//! continues to judge its sockets until the last one is gone (`cgroup_bpf_offline` in kernel/bpf/cgroup.c). A link that is closed
//! ends that; a program that was attached without a link stays, and goes with the cgroup. So the programs are attached once more,
//! without links, and with a policy that refuses everything. Then nothing has to wait for the last socket.

use std::{ffi::c_long, io, os::fd::AsFd};

use anyhow::{Context as _, Result, ensure};

use super::{
    link_info::{self, Attached},
    maps::Maps,
    pins::Pins,
    syscall::{Attributes, bpf, number},
};

/// The argument of `BPF_PROG_ATTACH`.
#[repr(C)]
struct Attach {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

/// `BPF_F_ALLOW_MULTI`: beside others, as links are.
const BESIDE_OTHERS: u32 = 2;

// SAFETY: as in linux/bpf.h. It has no addresses.
unsafe impl Attributes for Attach {
    /// `BPF_PROG_ATTACH`.
    const COMMAND: c_long = 8;
}

impl Pins {
    /// Attaches the programs of a fence to its cgroup without links, and has them refuse everything. `cgroup` is the cgroup's
    /// directory, and `id` its number. No process may be in it. Afterwards the cgroup can be removed, and then the pins, without
    /// waiting.
    ///
    /// # Errors
    /// If the links are not in this cgroup, the kernel fails to attach a program, or each packet of connections is judged: then
    /// the data that the kernel still has to send needs the policy. In all cases the links are as before.
    pub fn hand_over(&self, name: &str, cgroup: &impl AsFd, id: u64) -> Result<()> {
        self.check()?;
        let directory = self.directory(name);
        let links = link_info::open_all(&directory)?;
        ensure!(!links.is_empty(), "{} has no links", directory.display());
        let mut maps = Maps::open(&directory)?;
        ensure!(!maps.judges_standing()?, "each packet is judged");
        let attached = links.iter().map(|link| link.attached());
        let attached = attached.collect::<Result<Vec<_>>>()?;
        let is_here = |link: &Attached| link.cgroup == Some(id);
        ensure!(attached.iter().all(is_here), "a link is in another cgroup");
        for link in &attached {
            attach(cgroup, link).context("cannot attach a program without a link")?;
        }
        maps.refuse_all()
    }
}

fn attach(cgroup: &impl AsFd, link: &Attached) -> io::Result<()> {
    let program = link_info::program(link.program)?;
    let mut attach = Attach {
        target_fd: number(cgroup)?,
        attach_bpf_fd: number(&program)?,
        attach_type: link.attach_type,
        attach_flags: BESIDE_OTHERS,
    };
    bpf(&mut attach).map(drop)
}
