//! Lists the open sockets of the processes of a fence that runs already, and notes their owners: by iterators over the
//! descriptors of all processes (Linux 5.8; `bpf_sock_from_file`, 5.11).

use std::io::Read as _;

use anyhow::{Context as _, Result, ensure};
use aya::{
    Btf, Ebpf,
    programs::{Iter, Program},
};
use qfence_common::{
    abi,
    listing::{Offsets, OpenSocket},
};

use super::{Kernel, load::Variant};

/// The programs.
const PROGRAMS: [&str; 2] = [abi::LIST_SOCKETS, abi::NOTE_OWNERS];

/// The most sockets that are listed.
const MOST: usize = 1 << 20;

/// The offsets that the programs need, and that of `socket.sk`.
///
/// # Errors
/// If the kernel's type information lacks them.
pub(super) fn offsets(variant: &Variant) -> Result<(Offsets, u32)> {
    let known = variant.listing.filter(|_| variant.netns.are_known != 0);
    known.context(
        "this kernel does not show the sockets of a process to programs (it needs type information, CONFIG_DEBUG_INFO_BTF), \
         so that those made outside of the fence cannot be found",
    )
}

/// Loads the programs.
///
/// # Errors
/// If the kernel rejects one.
pub(super) fn load(ebpf: &mut Ebpf) -> Result<()> {
    let types = Btf::from_sys_fs().context("cannot read the kernel's type information")?;
    for name in PROGRAMS {
        let program = program(ebpf, name)?;
        program.load("task_file", &types).with_context(|| {
            format!("the kernel rejected the eBPF iterator {name} (Linux 5.11 or newer is needed)")
        })?;
    }
    Ok(())
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Iter> {
    match ebpf.program_mut(name) {
        Some(Program::Iter(program)) => Ok(program),
        _ => Err(super::no_map(name)),
    }
}

impl Kernel {
    /// Lists the open sockets of all processes of the fence, in any order. A socket that several descriptors lead to is
    /// listed for each. Sockets on their way between processes, and those that only io_uring has, are not seen.
    ///
    /// # Errors
    /// If the fence has no such programs, or they cannot be run.
    pub fn list_sockets(&mut self) -> Result<Vec<OpenSocket>> {
        let bytes = self.iterate(abi::LIST_SOCKETS)?;
        let records = bytes.chunks_exact(size_of::<OpenSocket>());
        ensure!(
            records.remainder().is_empty(),
            "the kernel has cut off the list of sockets"
        );
        Ok(records.map(parse).collect())
    }

    /// Notes the owners of the fence's own sockets among those that were listed. Must be called after that.
    ///
    /// # Errors
    /// As above.
    pub fn note_owners(&mut self) -> Result<()> {
        self.iterate(abi::NOTE_OWNERS).map(drop)
    }

    /// Runs an iterator, and returns its output.
    fn iterate(&mut self, name: &str) -> Result<Vec<u8>> {
        let context = || format!("cannot run the eBPF iterator {name}");
        let program = program(&mut self.loaded()?.ebpf, name)?;
        let link = program.attach().with_context(context)?;
        let link = program.take_link(link).with_context(context)?;
        let mut bytes = Vec::new();
        let most = MOST * size_of::<OpenSocket>();
        let file = link.into_file().with_context(context)?;
        file.take(most as u64)
            .read_to_end(&mut bytes)
            .with_context(context)?;
        ensure!(
            bytes.len() < most,
            "the processes have more than {MOST} sockets"
        );
        Ok(bytes)
    }
}

/// Reads a record: 2 words of 8 bytes, and 8 of 4.
fn parse(record: &[u8]) -> OpenSocket {
    let long = |at: usize| {
        let bytes = record
            .get(at..at + 8)
            .and_then(|bytes| bytes.try_into().ok());
        u64::from_ne_bytes(bytes.unwrap_or_default())
    };
    let word = |at: usize| {
        let bytes = record
            .get(at..at + 4)
            .and_then(|bytes| bytes.try_into().ok());
        u32::from_ne_bytes(bytes.unwrap_or_default())
    };
    OpenSocket {
        cgroup: long(0),
        netns: long(8),
        pid: word(16),
        fd: word(20),
        family: word(24),
        kind: word(28),
        protocol: word(32),
        port: word(36),
        state: word(40),
        is_of_the_fence: word(44),
    }
}
