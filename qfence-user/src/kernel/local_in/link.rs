//! Links of netfilter programs, which aya 0.14 does not have.

use std::{
    ffi::c_long,
    io,
    os::fd::{AsFd, OwnedFd},
};

use nix::errno::Errno;
use qfence_common::Hook;

use crate::kernel::{
    link_info,
    syscall::{Attributes, bpf_fd, number},
};

/// `NF_INET_LOCAL_IN`.
const LOCAL_IN: u32 = 1;

/// The priority that is tried first: behind all that translates or filters. The priority is unique in a hook
/// (`bpf_nf_link_attach` in net/netfilter/nf_bpf_link.c rejects one that any other hook function has), and the kernel has
/// some of its own above this.
const LATEST: i32 = 0x7fff_fff0;

/// How many priorities are tried.
const TRIES: i32 = 64;

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Family {
    /// `NFPROTO_IPV4`.
    V4 = 2,
    /// `NFPROTO_IPV6`.
    V6 = 10,
}

/// The part of `union bpf_attr` that `BPF_LINK_CREATE` uses for netfilter.
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    pf: u32,
    hooknum: u32,
    priority: i32,
    netfilter_flags: u32,
}

const _: () = assert!(size_of::<LinkCreate>() == 32);

// SAFETY: as in linux/bpf.h. It has no addresses.
unsafe impl Attributes for LinkCreate {
    /// `BPF_LINK_CREATE`.
    const COMMAND: c_long = 28;
}

/// Attaches a loaded program where the host receives packets for itself, in the caller's network namespace, as late as
/// possible.
///
/// # Errors
/// Errors of bpf(2).
pub(super) fn attach(program: &impl AsFd, family: Family) -> io::Result<OwnedFd> {
    let mut result = Err(io::Error::from(Errno::EBUSY));
    for priority in (LATEST - TRIES + 1..=LATEST).rev() {
        result = attach_at(program, family as u32, priority);
        match &result {
            Err(error) if is_taken(error) => {}
            _ => break,
        }
    }
    result
}

fn attach_at(program: &impl AsFd, family: u32, priority: i32) -> io::Result<OwnedFd> {
    bpf_fd(&mut LinkCreate {
        prog_fd: number(program)?,
        target_fd: 0,
        attach_type: Hook::LocalIn.row().attach_type,
        flags: 0,
        pf: family,
        hooknum: LOCAL_IN,
        priority,
        netfilter_flags: 0,
    })
}

fn is_taken(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::EBUSY as i32)
}

/// Whether a link of the caller's network namespace is still attached. The kernel does not tell whether somebody detached
/// it. But no other link gets a priority that is taken.
///
/// # Errors
/// Errors of bpf(2).
pub(super) fn is_attached(link: &impl AsFd) -> io::Result<bool> {
    let made = link_info::of_netfilter(link)?;
    let program = link_info::program(made.program)?;
    match attach_at(&program, made.family, made.priority) {
        // Dropping it detaches it.
        Ok(_) => Ok(false),
        Err(error) if is_taken(&error) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Attaches the program of a link once more.
///
/// # Errors
/// Errors of bpf(2).
pub(super) fn attach_again(link: &impl AsFd, family: Family) -> io::Result<OwnedFd> {
    let made = link_info::of_netfilter(link)?;
    attach(&link_info::program(made.program)?, family)
}
