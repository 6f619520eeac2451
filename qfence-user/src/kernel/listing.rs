//! Looks at the sockets that the processes of a fence had before it: by an iterator over the descriptors of all processes
//! (Linux 5.8; `bpf_sock_from_file`, 5.11), and by a program that looks up single sockets.

use std::{
    fs, io,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use aya::{
    Btf, Ebpf, TestRun as _,
    programs::{Iter, Program, SchedClassifier, TestRunOptions},
};
use qfence_common::{
    abi,
    listing::{Offsets, OpenSocket, Question},
};

use super::{Kernel, load::Variant};

/// The programs.
pub(super) const PROGRAMS: [&str; 2] = [abi::LIST_SOCKETS, abi::NOTE_OPENED];

/// The most records that are kept.
const MOST: usize = 4096;

/// How long the iterator may run. It visits some 500,000 descriptors in a second, those of all processes of this machine.
const LIMIT: Duration = Duration::from_secs(120);

/// The names of the devices /dev/tapN, in /proc/devices.
const TAPS: [&str; 2] = ["macvtap", "ipvtap"];

/// The bytes that are read at once. The kernel returns at most as many.
const CHUNK: usize = 64 << 10;

/// The place of the index of the network device in the context of a packet (`struct __sk_buff` in linux/bpf.h), and the
/// size up to its end.
const DEVICE_AT: usize = 40;
const CONTEXT: usize = DEVICE_AT + 4;

/// What the iterator has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// Sockets and devices that no program judges, in any order. One that several descriptors lead to is listed for each.
    pub unjudged: Vec<OpenSocket>,
    /// Whether there are more of them.
    pub are_more: bool,
    /// Whether the iterator was stopped, because there are too many descriptors.
    pub is_cut_off: bool,
}

/// The offsets that the programs need, and that of `socket.sk`.
///
/// # Errors
/// If the kernel's type information lacks them.
pub(super) fn offsets(variant: &Variant) -> Result<(Offsets, u32)> {
    let known = variant.listing.filter(|_| variant.netns.are_known != 0);
    let (offsets, socket_sock) = known.context(
        "this kernel does not show the sockets of a process to programs (it needs type information, CONFIG_DEBUG_INFO_BTF), \
         so that those made outside of the fence cannot be found",
    )?;
    let taps = tap_devices(Path::new("/proc/devices"));
    Ok((Offsets { taps, ..offsets }, socket_sock))
}

/// The major numbers of the devices /dev/tapN; 0 where there are none.
fn tap_devices(path: &Path) -> [u32; 2] {
    let all = fs::read_to_string(path).unwrap_or_default();
    TAPS.map(|name| {
        let number = |line: &str| {
            let number = line.trim().strip_suffix(name)?;
            number.trim().parse().ok()
        };
        all.lines().find_map(number).unwrap_or_default()
    })
}

/// Loads the programs.
///
/// # Errors
/// If the kernel rejects one.
pub(super) fn load(ebpf: &mut Ebpf) -> Result<()> {
    let types = Btf::from_sys_fs().context("cannot read the kernel's type information")?;
    let rejected = |name| {
        format!("the kernel rejected the eBPF program {name} (Linux 5.11 or newer is needed)")
    };
    let iterator = iterator(ebpf)?.load("task_file", &types);
    iterator.with_context(|| rejected(abi::LIST_SOCKETS))?;
    let load = opened(ebpf)?.load();
    load.with_context(|| rejected(abi::NOTE_OPENED))
}

fn iterator(ebpf: &mut Ebpf) -> Result<&mut Iter> {
    match ebpf.program_mut(abi::LIST_SOCKETS) {
        Some(Program::Iter(program)) => Ok(program),
        _ => Err(super::no_map(abi::LIST_SOCKETS)),
    }
}

fn opened(ebpf: &mut Ebpf) -> Result<&mut SchedClassifier> {
    match ebpf.program_mut(abi::NOTE_OPENED) {
        Some(Program::SchedClassifier(program)) => Ok(program),
        _ => Err(super::no_map(abi::NOTE_OPENED)),
    }
}

impl Kernel {
    /// Notes the owners of the open sockets of the fence's processes that were made in the fence, and returns those that no
    /// program judges. Sockets on their way between processes, and those that only io_uring has, are not seen.
    ///
    /// # Errors
    /// If the fence has no such program, or it cannot be run.
    pub fn list_sockets(&mut self) -> Result<Listed> {
        let context = || format!("cannot run the eBPF iterator {}", abi::LIST_SOCKETS);
        let program = iterator(&mut self.loaded()?.ebpf)?;
        let link = program.attach().with_context(context)?;
        let link = program.take_link(link).with_context(context)?;
        let file = link.into_file().with_context(context)?;
        read(file, LIMIT).with_context(context)
    }

    /// Asks about a socket in the network namespace of this thread, or notes its owner. `device` is the index of the device
    /// to which it is bound, or zero. Returns the answer, as `qfence_common::listing` has them.
    ///
    /// # Errors
    /// If the fence has no such program, or it cannot be run.
    pub fn ask_who_opened(&mut self, question: &Question, device: u32) -> Result<u32> {
        let program = opened(&mut self.loaded()?.ebpf)?;
        let mut context = [0; CONTEXT];
        context[DEVICE_AT..].copy_from_slice(&device.to_ne_bytes());
        let options = TestRunOptions {
            data_in: Some(&bytes_of(question)),
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        };
        let ran = program.test_run(options);
        let ran =
            ran.with_context(|| format!("cannot run the eBPF program {}", abi::NOTE_OPENED))?;
        Ok(ran.return_value)
    }
}

/// Reads the records of an iterator. The kernel visits a million files in one call, and then returns EAGAIN if there is no
/// record of them (`bpf_seq_read` in kernel/bpf/bpf_iter.c).
fn read(mut iterator: impl io::Read, limit: Duration) -> Result<Listed> {
    let begun = Instant::now();
    let mut listed = Listed::default();
    let mut chunk = vec![0; CHUNK];
    loop {
        if begun.elapsed() > limit {
            listed.is_cut_off = true;
            return Ok(listed);
        }
        let length = match iterator.read(&mut chunk) {
            Ok(0) => return Ok(listed),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error.into()),
        };
        let records = chunk.get(..length).unwrap_or_default();
        let records = records.chunks_exact(size_of::<OpenSocket>());
        if !records.remainder().is_empty() {
            bail!("the kernel has cut off the list of sockets");
        }
        for record in records {
            if listed.unjudged.len() == MOST {
                listed.are_more = true;
                break;
            }
            listed.unjudged.push(parse(record));
        }
    }
}

/// The bytes of a question, as the program reads them.
fn bytes_of(question: &Question) -> Vec<u8> {
    let Question {
        header,
        local,
        remote,
        cookie,
        local_port,
        remote_port,
        wish,
    } = question;
    [
        &header[..],
        local,
        remote,
        &cookie.to_ne_bytes(),
        local_port,
        remote_port,
        &wish.to_ne_bytes(),
    ]
    .concat()
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers with EAGAIN, records, and the end.
    struct Records(Vec<io::Result<Vec<u8>>>);

    impl io::Read for Records {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let Some(next) = self.0.pop() else {
                return Ok(0);
            };
            let bytes = next?;
            buffer[..bytes.len()].copy_from_slice(&bytes);
            Ok(bytes.len())
        }
    }

    fn again() -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    #[test]
    fn a_million_files_without_a_record_are_not_the_end() {
        let record = vec![0; size_of::<OpenSocket>()];
        let records = Records(vec![Ok(record), again(), again()]);
        let listed = read(records, LIMIT).unwrap();
        assert_eq!(listed.unjudged.len(), 1);
        assert!(!listed.is_cut_off && !listed.are_more);
    }

    #[test]
    fn a_list_that_does_not_end_is_cut_off() {
        let records = Records((0..1000).map(|_| again()).collect());
        assert!(read(records, Duration::ZERO).unwrap().is_cut_off);
    }

    #[test]
    fn what_is_too_much_is_counted_only() {
        let many = vec![0; size_of::<OpenSocket>() * 1000];
        let records = Records((0..5).map(|_| Ok(many.clone())).collect());
        let listed = read(records, LIMIT).unwrap();
        assert_eq!((listed.unjudged.len(), listed.are_more), (MOST, true));
        let torn = Records(vec![Ok(vec![0; 5])]);
        assert!(read(torn, LIMIT).is_err());
    }

    #[test]
    fn tap_devices_are_those_of_macvtap_and_ipvtap() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("devices");
        assert_eq!(tap_devices(&path), [0, 0]);
        fs::write(&path, "Character devices:\n  1 mem\n243 macvtap\n").unwrap();
        assert_eq!(tap_devices(&path), [243, 0]);
        fs::write(&path, "242 ipvtap\n243 macvtap\n").unwrap();
        assert_eq!(tap_devices(&path), [243, 242]);
    }
}
