//! Loads the programs whose types or attach types aya 0.14 does not know: those for Unix sockets
//! (`CgroupSockAddrAttachType`), and that of netfilter.
//!
//! aya's own parser relocates them, as aya does it for all others. They have type information, because without it the
//! kernel takes no function for a global one (`btf_prepare_func_args` in kernel/bpf/btf.c), and checks it at each call.

use std::{
    collections::{HashMap, HashSet},
    ffi::CStr,
    io, mem,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd},
};

use anyhow::{Context as _, Result, anyhow};
use aya::{Ebpf, maps::Map};
use aya_obj::{Function, Object, btf::BtfFeatures, generated::bpf_insn};
use qfence_common::Hook;

use super::{
    helpers::NETFILTER,
    program_load::{Load, LoadTypes},
    syscall::{bpf_fd, number},
};

/// `BPF_PROG_TYPE_CGROUP_SOCK_ADDR`.
const SOCK_ADDR: u32 = 18;

/// The most bytes of the verifier's log.
const LOG: usize = 1 << 20;

const _: () = assert!(size_of::<bpf_insn>() == 8);

/// Whether this module loads the program of a hook.
pub(super) const fn is_own(hook: Hook) -> bool {
    matches!(hook, Hook::ConnectUnix | Hook::SendmsgUnix | Hook::LocalIn)
}

/// An object, and the maps that aya has made of it.
pub(super) struct Source<'a> {
    object: &'a [u8],
    maps: HashMap<String, RawFd>,
}

/// A loaded program.
#[derive(Debug)]
pub(super) struct OwnProgram {
    pub(super) hook: Hook,
    pub(super) fd: OwnedFd,
}

impl<'a> Source<'a> {
    /// The object that aya has opened. The maps must stay open until the programs are loaded.
    pub(super) fn of(object: &'a [u8], ebpf: &Ebpf) -> Self {
        let maps = ebpf
            .maps()
            .filter_map(|(name, map)| Some((name.to_owned(), descriptor(map)?)));
        Self {
            object,
            maps: maps.collect(),
        }
    }

    /// Loads the programs of these hooks.
    ///
    /// # Errors
    /// If the object has no such program, or the kernel rejects one.
    pub(super) fn load(&self, hooks: &[Hook]) -> Result<Vec<OwnProgram>> {
        if hooks.is_empty() {
            return Ok(Vec::new());
        }
        let mut object = Object::parse(self.object).context("cannot parse the eBPF object")?;
        // The others are aya's, and their relocation takes time.
        object
            .programs
            .retain(|name, _| hooks.iter().any(|hook| hook.row().program == name));
        let sections: HashSet<usize> = object
            .functions
            .keys()
            .map(|(section, _)| *section)
            .collect();
        let types = load_types(&mut object)?;
        let maps = mem::take(&mut object.maps);
        let known = maps
            .iter()
            .filter_map(|(name, map)| Some((name.as_str(), *self.maps.get(name)?, map)));
        object.relocate_maps(known, &sections)?;
        object.relocate_calls(&sections)?;
        hooks
            .iter()
            .map(|hook| {
                let program = object.programs.get(hook.row().program);
                let program = program.ok_or_else(|| super::no_program(*hook))?;
                let function = object.functions.get(&program.function_key());
                let function = function.ok_or_else(|| super::no_program(*hook))?;
                let fd = load(*hook, function, &program.license, &types)?;
                Ok(OwnProgram { hook: *hook, fd })
            })
            .collect()
    }
}

/// The descriptor of a map of a type that the programs use.
fn descriptor(map: &Map) -> Option<RawFd> {
    let data = match map {
        Map::Array(data)
        | Map::ArrayOfMaps(data)
        | Map::HashMap(data)
        | Map::LpmTrie(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::RingBuf(data)
        | Map::SkStorage(data) => data,
        _ => return None,
    };
    Some(data.fd().as_fd().as_raw_fd())
}

/// Loads the type information of an object. Kernels with these hooks (Linux 6.4) know all kinds of types.
fn load_types(object: &mut Object) -> Result<OwnedFd> {
    let all = BtfFeatures::new(true, true, true, true, true, true, true, true);
    let types = object
        .fixup_and_sanitize_btf(&all)
        .context("cannot prepare the type information of the eBPF object")?;
    let bytes = types
        .context("the eBPF object has no type information")?
        .to_bytes();
    let mut attributes = LoadTypes {
        types: bytes.as_ptr() as u64,
        size: u32::try_from(bytes.len())?,
        ..LoadTypes::default()
    };
    bpf_fd(&mut attributes).context("the kernel rejected the type information of the eBPF object")
}

/// The type of the program of a hook.
const fn kind(hook: Hook) -> u32 {
    if matches!(hook, Hook::LocalIn) {
        NETFILTER
    } else {
        SOCK_ADDR
    }
}

/// Loads a program; again with a log if the kernel rejects it.
fn load(hook: Hook, function: &Function, license: &CStr, types: &OwnedFd) -> Result<OwnedFd> {
    let instructions = &function.instructions;
    let functions = function.func_info.func_info_bytes();
    let mut name = [0; 16];
    // The kernel wants a zero byte at the end.
    for (place, byte) in name.iter_mut().zip(hook.row().program.bytes().take(15)) {
        *place = byte;
    }
    let attributes = || -> io::Result<Load> {
        Ok(Load {
            kind: kind(hook),
            count: u32::try_from(instructions.len()).map_err(io::Error::other)?,
            instructions: instructions.as_ptr() as u64,
            license: license.as_ptr() as u64,
            name,
            attach_type: hook.row().attach_type,
            types: number(types)?,
            function_size: u32::try_from(function.func_info_rec_size).map_err(io::Error::other)?,
            functions: functions.as_ptr() as u64,
            function_count: u32::try_from(function.func_info.len()).map_err(io::Error::other)?,
            ..Load::default()
        })
    };
    let error = match bpf_fd(&mut attributes()?) {
        Ok(fd) => return Ok(fd),
        Err(error) => error,
    };
    let mut log = vec![0_u8; LOG];
    let mut logged = Load {
        log_level: 1,
        log_size: u32::try_from(LOG)?,
        log: log.as_mut_ptr() as u64,
        ..attributes()?
    };
    match bpf_fd(&mut logged) {
        // It was short of something that there is now.
        Ok(fd) => Ok(fd),
        Err(_) => {
            let end = log.iter().position(|byte| *byte == 0).unwrap_or(LOG);
            let log = String::from_utf8_lossy(log.get(..end).unwrap_or_default());
            let hook = hook.name();
            // A kernel that does not know the type of the program writes no log.
            let reason = match super::trial::verdict(&log) {
                Some(reason) => anyhow!("{error}: {reason}"),
                None => anyhow!("{error}"),
            };
            Err(reason.context(format!("the kernel rejected the eBPF program for {hook}")))
        }
    }
}
