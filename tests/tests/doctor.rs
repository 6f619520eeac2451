//! `doctor` says what is, in words and in JSON, and leaves nothing behind.

use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use aya::{EbpfLoader, programs::CgroupSockAddr};
use nix::libc;
use qfence_common::HOOKS;
use serde::Deserialize;
use tests::{
    fence::qfence,
    mounts::{host_with, mount_new, mounted, unmount_all},
    namespace::{NOBODY, Namespace},
    private::Private,
    run::{Ended, to_end},
    workspace,
};

/// What there is whatever the host is like, beside a finding for each hook's program.
const ALWAYS: [&str; 17] = [
    "root",
    "capabilities",
    "kernel",
    "memlock",
    "seccomp",
    "cgroup2",
    "net_cls, net_prio",
    "bpffs",
    "bpf_set_retval",
    "lockdown",
    "security modules",
    "unprivileged bpf",
    "user namespaces",
    "network devices",
    "packets from guests",
    "vhost-net",
    "bridged frames",
];

/// What there is besides where cgroup2 is.
const WITH_CGROUP2: [&str; 3] = [
    "cgroup containment",
    "delegated subtrees",
    "resource limits",
];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Finding {
    name: String,
    state: String,
    found: String,
    fix: Option<String>,
}

type Findings = BTreeMap<String, Finding>;

/// Runs `doctor --json`, checks what holds for every outcome, and returns the exit status with the
/// findings.
fn examine(mut command: Command) -> Result<(i32, Findings)> {
    command.args(["doctor", "--json"]);
    let ended = to_end(command)?;
    let code = ended.code().context("a signal ended it")?;
    ensure!(code < 2, "{ended:?}");
    ensure!(ended.stderr.is_empty(), "{ended:?}");
    let list: Vec<Finding> = serde_json::from_str(&ended.stdout)?;
    let count = list.len();
    let findings: Findings = list.into_iter().map(|f| (f.name.clone(), f)).collect();
    ensure!(findings.len() == count, "two of a name: {findings:#?}");
    for finding in findings.values() {
        let advised = finding.fix.as_ref().is_some_and(|fix| !fix.is_empty());
        ensure!(!finding.found.is_empty(), "{finding:?}");
        match finding.state.as_str() {
            "ok" => ensure!(finding.fix.is_none(), "{finding:?}"),
            "degraded" | "missing" => ensure!(advised, "nothing to do: {finding:?}"),
            _ => anyhow::bail!("an odd state: {finding:?}"),
        }
    }
    let always = ALWAYS.map(str::to_owned).into_iter();
    for name in always.chain(HOOKS.map(|row| format!("program {}", row.name))) {
        ensure!(findings.contains_key(&name), "no {name}: {findings:#?}");
    }
    let missing = findings.values().any(|f| f.state == "missing");
    ensure!(missing == (code == 1), "status {code}: {findings:#?}");
    Ok((code, findings))
}

fn is_foreign(name: &str) -> bool {
    name.starts_with("foreign programs")
}

#[test]
fn this_machine_has_what_is_needed() -> Result<()> {
    let (code, findings) = examine(Command::new(qfence()?))?;
    assert_eq!(code, 0, "{findings:#?}");
    for name in WITH_CGROUP2 {
        assert!(findings.contains_key(name), "{findings:#?}");
    }
    assert!(
        findings.keys().any(|name| is_foreign(name)),
        "{findings:#?}"
    );
    for (name, finding) in &findings {
        if name.starts_with("program ") {
            assert_eq!(finding.state, "ok", "{finding:?}");
            assert_eq!(finding.found, "loaded, and attached to a cgroup");
        }
    }
    for name in ["network devices", "packets from guests"] {
        assert_eq!(findings[name].state, "ok", "{findings:#?}");
    }
    Ok(())
}

#[test]
fn the_table_says_the_same() -> Result<()> {
    let (code, findings) = examine(Command::new(qfence()?))?;
    let mut command = Command::new(qfence()?);
    command.arg("doctor");
    let ended = to_end(command)?;
    assert_eq!(ended.code(), Some(code));
    for (name, finding) in &findings {
        let line = ended
            .stdout
            .lines()
            .find(|line| line.trim_start().starts_with(&format!("{name}  ")))
            .with_context(|| format!("no {name} in {}", ended.stdout))?;
        assert!(line.contains(&finding.state), "{line}");
    }
    Ok(())
}

/// Runs `true` in a fence there.
fn exec(host: &Private) -> Result<Ended> {
    let mut command = host.qfence()?;
    command.args(["exec", "--user", "nobody", "--", "true"]);
    to_end(command)
}

/// Attaches a program for connect4 at the hierarchy's root; it stays as long as the cgroup.
/// (aya attaches by links, which leave room for others always.)
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
    // SAFETY: BPF_PROG_ATTACH reads as many bytes as it is told there are.
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
    // Loading is allowed, attaching is not; the other hooks are free.
    let program = &findings["program connect4"];
    assert_eq!(program.state, "missing", "{program:?}");
    assert!(program.found.starts_with("loaded; "), "{program:?}");
    assert_eq!(findings["program connect6"].state, "ok", "{findings:#?}");
    assert!(host.left()?.is_empty(), "{:?}", host.left()?);
    // It is as doctor says.
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
fn nothing_is_left() -> Result<()> {
    let host = Private::new()?;
    let (_, findings) = examine(host.qfence()?)?;
    assert_eq!(findings["program connect4"].state, "ok", "it was attached");
    assert!(host.left()?.is_empty(), "{:?}", host.left()?);
    // Without a pin programs and links end with the process.
    let pinned = host
        .namespace()
        .run(|| Ok(fs::exists("/sys/fs/bpf/qfence")?))?;
    let described = host.namespace().run(|| Ok(fs::exists("/run/qfence")?))?;
    assert_eq!((pinned, described), (false, false));
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

#[test]
fn a_host_with_cgroup_v1_alone_is_told_what_to_do() -> Result<()> {
    let host = host_with(|| {
        unmount_all("cgroup2")?;
        if mounted("cgroup")?.is_empty() {
            mount_new("cgroup", "/mnt", Some("none,name=qfence-test"))?;
        }
        Ok(())
    })?;
    let (code, findings) = examine(host.command(qfence()?))?;
    assert_eq!(code, 1);
    let finding = &findings["cgroup2"];
    assert_eq!(finding.state, "missing");
    assert!(finding.found.starts_with("only cgroup v1"), "{finding:?}");
    assert!(finding.fix.as_ref().unwrap().contains("mount -t cgroup2"));
    // All else is found out: the programs are loaded, and there is nothing to attach them to.
    let program = &findings["program connect4"];
    assert_eq!(program.state, "degraded", "{program:?}");
    assert!(program.found.starts_with("loaded; "), "{program:?}");
    assert!(!findings.keys().any(|name| is_foreign(name)));
    Ok(())
}

#[test]
fn bpffs_is_mounted_for_a_trial_alone() -> Result<()> {
    let host = host_with(|| unmount_all("bpf"))?;
    let (code, findings) = examine(host.command(qfence()?))?;
    assert_eq!((code, findings["bpffs"].state.as_str()), (0, "ok"));
    assert!(
        findings["bpffs"].found.contains("`exec` will mount it"),
        "{findings:#?}"
    );
    assert_eq!(host.run(|| mounted("bpf"))?, [""; 0]);

    let host = host_with(|| {
        mount_new("tmpfs", "/sys/fs", None)?;
        mount_new("cgroup2", "/mnt", None)
    })?;
    let (code, findings) = examine(host.command(qfence()?))?;
    assert_eq!((code, findings["bpffs"].state.as_str()), (1, "missing"));
    Ok(())
}

#[test]
fn who_is_not_root_is_told_all_the_same() -> Result<()> {
    let dir = tempfile::tempdir()?;
    workspace::make_readable(dir.path())?;
    let program = dir.path().join("qfence-user");
    fs::copy(qfence()?, &program)?;
    let outside = Namespace::new()?;
    let (code, findings) = examine(outside.command_as(NOBODY, &program))?;
    assert_eq!(code, 1);
    assert_eq!(findings["root"].state, "missing");
    assert!(
        findings["root"].found.starts_with("not root"),
        "{findings:#?}"
    );
    for name in ["program connect4", "bpf_set_retval", "foreign programs"] {
        assert!(findings[name].found.starts_with("not checked"), "{name}");
        assert_eq!(findings[name].state, "missing", "{name}");
    }
    // What anybody can see.
    for name in ["kernel", "cgroup2", "bpffs"] {
        assert_eq!(findings[name].state, "ok", "{name}: {findings:#?}");
    }
    Ok(())
}

#[test]
fn a_capability_that_is_missing_is_named_and_its_want_seen_in_the_loads() -> Result<()> {
    let with = |dropped: &str| -> Result<(i32, Findings)> {
        let mut command = Command::new("setpriv");
        command
            .arg(format!("--bounding-set={dropped}"))
            .arg(qfence()?);
        examine(command)
    };
    let (code, findings) = with("-sys_admin,-perfmon")?;
    assert_eq!(code, 1);
    assert!(findings["capabilities"].found.contains("CAP_PERFMON"));
    let program = &findings["program connect4"];
    assert_eq!(program.state, "missing");
    assert!(
        !program.found.contains('\n') && program.found.len() < 400,
        "{program:?}"
    );
    // The control: the rest stand in for it.
    let (code, findings) = with("-sys_admin")?;
    assert_eq!(code, 0, "{findings:#?}");
    Ok(())
}

#[test]
fn what_no_host_lacks_is_a_failure_of_doctor() -> Result<()> {
    let host = host_with(|| mount_new("tmpfs", "/proc/sys", None))?;
    let mut command = host.command(qfence()?);
    command.arg("doctor");
    let ended = to_end(command)?;
    assert_eq!(ended.code(), Some(125), "{ended:?}");
    assert!(
        ended.stderr.starts_with("qfence: error: cannot read /proc"),
        "{ended:?}"
    );
    Ok(())
}
