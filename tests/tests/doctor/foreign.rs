//! Programs and cgroups of others on the host.

use std::{
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _},
};

use anyhow::{Context as _, Result, ensure};
use aya::{EbpfLoader, programs::CgroupSockAddr};
use nix::libc;
use tests::{
    private::Private,
    run::{Ended, to_end},
    workspace,
};

use super::examine;

/// Runs `true` in a fence on this host.
fn exec(host: &Private) -> Result<Ended> {
    let mut command = host.qfence()?;
    command.args(["exec", "--user", "nobody", "--", "true"]);
    to_end(command)
}

/// Attaches a program for connect4 at the root of the hierarchy, for the lifetime of the cgroup. aya cannot do this: it
/// attaches by links, which always leave room for other programs.
fn attach(host: &Private, flags: u32) -> Result<u32> {
    let object = workspace::root().join("target/ebpf/qfence.o");
    let mut ebpf = EbpfLoader::new().load_file(&object)?;
    let program = ebpf.program_mut("judge_connect4").context("the program")?;
    let program: &mut CgroupSockAddr = program.try_into()?;
    program.load()?;
    let cgroup = fs::File::open(host.cgroup())?;
    // target_fd, attach_bpf_fd, attach_type, attach_flags of `union bpf_attr`.
    let attributes: [u32; 4] = [
        u32::try_from(cgroup.as_raw_fd())?,
        u32::try_from(program.fd()?.as_fd().as_raw_fd())?,
        10,
        flags,
    ];
    // SAFETY: BPF_PROG_ATTACH reads only the given number of bytes.
    let status = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            8_u32,
            &raw const attributes,
            size_of_val(&attributes),
        )
    };
    ensure!(status == 0, "attach: {}", io::Error::last_os_error());
    Ok(program.info()?.id())
}

#[test]
fn an_exclusive_program_above_is_named_and_blocks() -> Result<()> {
    let host = Private::new()?;
    let (code, findings) = examine(host.qfence()?)?;
    assert_eq!(code, 0, "control: {findings:#?}");
    assert_eq!(findings["foreign programs"].state, "ok", "{findings:#?}");
    assert_eq!(exec(&host)?.code(), Some(0), "control");

    let id = attach(&host, 0)?;
    let (code, findings) = examine(host.qfence()?)?;
    assert_eq!(code, 1, "{findings:#?}");
    let finding = &findings["foreign programs: connect4"];
    assert_eq!(finding.state, "missing", "{finding:?}");
    let named = format!("{id} judge_connect4 at /mnt;");
    assert!(finding.found.starts_with(&named), "{finding:?}");
    assert!(finding.fix.as_ref().unwrap().contains("BPF_F_ALLOW_MULTI"));
    // The program can be loaded, but not attached. The other hooks are free.
    let program = &findings["program connect4"];
    assert_eq!(program.state, "missing", "{program:?}");
    assert!(program.found.starts_with("loaded; "), "{program:?}");
    assert_eq!(findings["program connect6"].state, "ok", "{findings:#?}");
    assert!(host.left()?.is_empty(), "{:?}", host.left()?);
    // The control: `exec` fails, as `doctor` reports.
    assert_eq!(exec(&host)?.code(), Some(125));
    Ok(())
}

#[test]
fn a_program_above_that_leaves_room_is_named_and_blocks_nothing() -> Result<()> {
    for (flag, word) in [(1, "replaces it"), (2, "runs after")] {
        let host = Private::new()?;
        let id = attach(&host, flag)?;
        let (code, findings) = examine(host.qfence()?)?;
        assert_eq!(code, 0, "{findings:#?}");
        let finding = &findings["foreign programs: connect4"];
        assert_eq!(finding.state, "degraded", "{finding:?}");
        assert!(
            finding.found.contains(&format!("{id} judge_connect4")),
            "{finding:?}"
        );
        assert!(finding.found.contains(word), "{finding:?}");
        assert_eq!(exec(&host)?.code(), Some(0));
    }
    Ok(())
}

#[test]
fn a_subtree_that_is_somebodys_is_told_and_one_for_the_fences_refused() -> Result<()> {
    let host = Private::new()?;
    let delegated = host.cgroup().join("somebodys");
    fs::create_dir(&delegated)?;
    std::os::unix::fs::chown(&delegated, Some(4242), None)?;
    let examined = examine(host.qfence()?);
    fs::remove_dir(&delegated)?;
    let (code, findings) = examined?;
    assert_eq!(code, 0, "{findings:#?}");
    let found = &findings["delegated subtrees"].found;
    assert!(found.starts_with("somebodys (user id 4242)"), "{found}");

    std::os::unix::fs::chown(host.cgroup().join("cgroup.procs"), Some(4242), None)?;
    let (code, findings) = examine(host.qfence()?)?;
    assert_eq!(code, 1, "{findings:#?}");
    assert_eq!(findings["cgroup containment"].state, "missing");
    assert_eq!(exec(&host)?.code(), Some(125));
    Ok(())
}
