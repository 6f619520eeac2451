//! Hands the programs of an ending fence over to its cgroup.
//!
//! A socket belongs to the cgroup in which it was made, and can be passed to a process outside (`SCM_RIGHTS`). A removed
//! cgroup continues to judge its sockets until the last one is gone (`cgroup_bpf_offline` in kernel/bpf/cgroup.c). A link that
//! is closed ends that; a program that was attached without a link stays, and goes with the cgroup. So the programs are
//! attached once more, without links, and with a policy that denies every destination. Then nothing has to wait for the last
//! socket.

use std::{
    ffi::c_long,
    fs::{self, File},
    io,
    os::{fd::AsFd, unix::fs::MetadataExt as _},
};

use anyhow::{Context as _, Result, ensure};

use super::{
    link_info::{self, Attached},
    maps::Maps,
    pins::Pins,
    syscall::{Attributes, bpf, number},
};

/// The protocols of all sockets.
const PROTOCOLS: &str = "/proc/net/protocols";

/// Protocols that send what is left after the end of the command, in packets that are judged one by one. TCP does too, but
/// packets that continue a connection are not judged.
const LINGERING: [&str; 4] = ["DCCP", "DCCPv6", "SCTP", "SCTPv6"];

/// The argument of `BPF_PROG_ATTACH` and `BPF_PROG_DETACH`.
#[repr(C)]
struct Target<const COMMAND: c_long> {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

/// `BPF_PROG_ATTACH`.
const ATTACH: c_long = 8;
/// `BPF_PROG_DETACH`.
const DETACH: c_long = 9;
/// `BPF_F_ALLOW_MULTI`: beside others, as links are.
const BESIDE_OTHERS: u32 = 2;

// SAFETY: as in linux/bpf.h. It has no addresses.
unsafe impl<const COMMAND: c_long> Attributes for Target<COMMAND> {
    const COMMAND: c_long = COMMAND;
}

/// Programs that are attached to a cgroup without links. Dropping it detaches them.
pub struct HandOver {
    cgroup: File,
    attached: Vec<Attached>,
    maps: Maps,
}

impl Pins {
    /// Attaches the programs of a fence to its cgroup without links, beside those with links. `cgroup` is the cgroup's
    /// directory, and `id` its number. No process may be in it. When it is removed, [`HandOver::complete`] must be called; then
    /// the pins can be removed without waiting. Meanwhile nobody may change the policy.
    ///
    /// # Errors
    /// If the links are not in this cgroup, or the kernel fails to attach a program. Or if what the kernel still has to send
    /// for the fence would be judged: each packet of connections is, or the kernel has a protocol such as SCTP. In all cases
    /// nothing is changed.
    pub fn hand_over(&self, name: &str, cgroup: File, id: u64) -> Result<HandOver> {
        self.check()?;
        let directory = self.directory(name);
        let is_it = cgroup.metadata().context("cannot query a cgroup")?.ino() == id;
        ensure!(is_it, "the cgroup is another one");
        let links = link_info::open_all(&directory)?;
        ensure!(!links.is_empty(), "{} has no links", directory.display());
        let maps = Maps::open(&directory)?;
        ensure!(!maps.judges_standing()?, "each packet is judged");
        let protocols = fs::read_to_string(PROTOCOLS).context("cannot read the protocols")?;
        ensure!(!has_lingering(&protocols), "SCTP or DCCP is in use");
        let mut handover = HandOver {
            cgroup,
            attached: Vec::new(),
            maps,
        };
        for link in &links {
            let link = link.attached()?;
            ensure!(link.cgroup == Some(id), "a link is in another cgroup");
            attach::<ATTACH>(&handover.cgroup, &link)
                .context("cannot attach a program without a link")?;
            handover.attached.push(link);
        }
        Ok(handover)
    }
}

impl HandOver {
    /// Has the programs deny every destination, permanently, after their cgroup was removed.
    ///
    /// # Errors
    /// If their policy cannot be changed. Then the links must stay.
    pub fn complete(mut self) -> Result<()> {
        self.attached.clear();
        self.maps.seal()
    }
}

impl Drop for HandOver {
    fn drop(&mut self) {
        for link in &self.attached {
            // The programs judge everything twice then, with the same result.
            let _ = attach::<DETACH>(&self.cgroup, link);
        }
    }
}

fn attach<const COMMAND: c_long>(cgroup: &impl AsFd, link: &Attached) -> io::Result<()> {
    let program = link_info::program(link.program)?;
    let mut target = Target::<COMMAND> {
        target_fd: number(cgroup)?,
        attach_bpf_fd: number(&program)?,
        attach_type: link.attach_type,
        attach_flags: if COMMAND == ATTACH { BESIDE_OTHERS } else { 0 },
    };
    bpf(&mut target).map(drop)
}

/// Whether the kernel has a protocol that sends for ended processes what is judged.
fn has_lingering(protocols: &str) -> bool {
    let mut names = protocols.lines().filter_map(|line| line.split(' ').next());
    names.any(|name| LINGERING.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protocol_that_sends_for_ended_processes_is_noticed() {
        let line =
            |name: &str| format!("{name:<9} 1088      1      -1   NI       0   no   kernel\n");
        let some = ["protocol", "UNIX-STREAM", "TCP", "UDPv6"]
            .map(line)
            .concat();
        assert!(!has_lingering("") && !has_lingering(&some));
        for name in ["SCTP", "SCTPv6", "DCCP"] {
            assert!(has_lingering(&(some.clone() + &line(name))), "{name}");
        }
    }

    #[test]
    fn this_kernel_lists_its_protocols() {
        let protocols = fs::read_to_string(PROTOCOLS).unwrap();
        assert!(
            protocols
                .lines()
                .any(|line| line.split(' ').next() == Some("TCP"))
        );
    }
}
