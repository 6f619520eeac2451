//! A program of somebody else's at a device, which lets everything through.

use std::{
    ffi::{c_int, c_long},
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result};
use nix::{libc, net::if_::if_nametoindex};

use crate::namespace::Namespace;

/// `BPF_PROG_LOAD` and `BPF_LINK_CREATE`.
const LOAD: c_long = 5;
const LINK: c_long = 28;
/// `BPF_PROG_TYPE_SCHED_CLS`.
const CLASSIFIER: u32 = 3;
/// `BPF_TCX_INGRESS`.
const INGRESS: u32 = 46;
/// `BPF_F_BEFORE` and `BPF_F_AFTER`.
const BEFORE: u32 = 1 << 3;
const AFTER: u32 = 1 << 4;

/// `r0 = 0` (`TCX_PASS`: no further program runs), `exit`.
const PASS: [u64; 2] = [0x0000_0000_0000_00b7, 0x0000_0000_0000_0095];

/// Where a program comes among others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Before all others.
    First,
    /// After all others.
    Last,
}

/// A link of such a program. It is detached when dropped.
#[derive(Debug)]
pub struct Foreign {
    _link: OwnedFd,
}

#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
}

#[repr(C)]
#[derive(Default)]
struct Link {
    program: u32,
    device: u32,
    attach_type: u32,
    flags: u32,
    relative: u32,
    padding: u32,
    revision: u64,
}

impl Foreign {
    /// Attaches a program to the ingress of a device.
    pub fn attach(host: &Namespace, device: &str, order: Order) -> Result<Self> {
        host.run(|| {
            let license = c"GPL";
            let program = bpf(
                LOAD,
                &Load {
                    kind: CLASSIFIER,
                    count: 2,
                    instructions: PASS.as_ptr() as u64,
                    license: license.as_ptr() as u64,
                },
            )
            .context("load a program")?;
            let flags = match order {
                Order::First => BEFORE,
                Order::Last => AFTER,
            };
            let link = bpf(
                LINK,
                &Link {
                    program: u32::try_from(program.as_raw_fd())?,
                    device: if_nametoindex(device)?,
                    attach_type: INGRESS,
                    flags,
                    ..Link::default()
                },
            );
            let link = link.with_context(|| format!("attach a program to {device}"))?;
            Ok(Self { _link: link })
        })
    }
}

/// bpf(2) with a command whose result is a descriptor.
fn bpf<T>(command: c_long, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the structure, and what its addresses point to, are valid for the call, which does not change them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attributes),
            size_of::<T>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let descriptor = c_int::try_from(result).map_err(io::Error::other)?;
    // SAFETY: the call returned a descriptor that belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
