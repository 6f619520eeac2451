//! A program of others for calls that gives way to those of cgroups below.

use std::{
    fs::{self, File},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::Path,
};

use anyhow::{Context as _, Result};
use tests::{fence::Fence, namespace::Namespace, shell::Shell};

use super::{
    device_program::{MULTI, OVERRIDE, PROG_ATTACH, PROG_LOAD, bpf},
    scene::{self, Place, attach},
};

/// `BPF_PROG_TYPE_CGROUP_SOCK_ADDR` and `BPF_CGROUP_INET4_CONNECT`.
const TYPE: u64 = 18;
const CONNECT4: u32 = 10;

/// Instructions that refuse each call: 0; return.
const REFUSES: [u64; 2] = [0x0000_0000_0000_00b7, 0x0000_0000_0000_0095];

/// What `attach` says of programs that it replaces.
const REPLACED: &str = "attached with BPF_F_ALLOW_OVERRIDE, does not apply to this cgroup while it is fenced, at connect4";

/// Attaches a program that refuses each connect() to IPv4 addresses.
fn refuse_calls(cgroup: &Path, flags: u32) -> Result<OwnedFd> {
    let license = c"GPL";
    // prog_type and insn_cnt, insns, license, log_level and log_size, log_buf, kern_version and prog_flags, prog_name,
    // prog_ifindex and expected_attach_type.
    let load: [u64; 9] = [
        TYPE | (u64::try_from(REFUSES.len())? << 32),
        u64::try_from(REFUSES.as_ptr().addr())?,
        u64::try_from(license.as_ptr().addr())?,
        0,
        0,
        0,
        0,
        0,
        u64::from(CONNECT4) << 32,
    ];
    let program = bpf(PROG_LOAD, &load).context("load a program for calls")?;
    // SAFETY: the kernel has just made it, and nothing else has it.
    let program = unsafe { OwnedFd::from_raw_fd(program) };
    let cgroup = File::open(cgroup)?;
    // target_fd, attach_bpf_fd, attach_type, attach_flags, replace_bpf_fd, relative_fd.
    let attributes: [u32; 6] = [
        cgroup.as_raw_fd().cast_unsigned(),
        program.as_raw_fd().cast_unsigned(),
        CONNECT4,
        flags,
        0,
        0,
    ];
    bpf(PROG_ATTACH, &attributes).context("attach it")?;
    Ok(program)
}

#[test]
fn a_program_that_the_fence_replaces_is_named() -> Result<()> {
    for (flags, is_replaced) in [(OVERRIDE, true), (MULTI, false)] {
        let host = Namespace::new()?;
        let fence = Fence::new("gives-way")?;
        let place = Place::new(&fence)?;
        let inner = place.path().join("inner");
        fs::create_dir(&inner)?;
        let _program = refuse_calls(place.path(), flags)?;
        let mut shell = Shell::start(host.command("sh"))?;
        fs::write(inner.join("cgroup.procs"), shell.pid()?.to_string())?;
        let target = ["--detach", "--cgroup", &inner.display().to_string()];
        let ended = attach(&fence, &host, &target)?;
        assert_eq!(ended.code(), Some(0), "flags {flags}: {ended:?}");
        assert_eq!(
            ended.stderr.contains(REPLACED),
            is_replaced,
            "flags {flags}: {ended:?}"
        );
        scene::remove(&fence)?;
        drop(shell);
        place.remove()?;
    }
    Ok(())
}
