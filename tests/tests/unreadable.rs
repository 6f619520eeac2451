//! Processes of which the kernel does not say what they do: to read /proc/PID/stat waits for a file system of theirs, for
//! ever. Nothing of qfence's waits for that; it names them by their numbers.
//!
//! In a fence it takes a process that ends at the right moment to bring this about (`process/helper.rs`). Here a file of a
//! file system that never answers lies over what /proc says, where qfence sees it.

use std::path::PathBuf;

use anyhow::Result;
use tests::{
    fence::{Fence, qfence},
    fuse::Fuse,
    mounts::{bind, host_with},
    namespace::Namespace,
    remains,
    run::{to_end, wait_until},
    shell::Shell,
};

/// Has whoever reads the state of a process wait for ever, on a host.
fn mute(host: &Namespace, fuse: &Fuse, pid: u32) -> Result<()> {
    let file = fuse.file();
    host.run(|| {
        for file_of in ["stat", "status", "task/PID/stat", "task/PID/status"] {
            let point = format!("/proc/PID/{file_of}").replace("PID", &pid.to_string());
            bind(&file, &point)?;
        }
        Ok(())
    })
}

fn start(host: &Namespace, fence: &Fence) -> Result<Shell> {
    Shell::start(fence.command(host, "bash"))
}

#[test]
fn a_command_that_ends_ends_exec() -> Result<()> {
    let host = host_with(|| Ok(()))?;
    let mut fuse = Fuse::on(&host)?;
    let fence = Fence::new("mute")?.with(&["--user", "nobody"]);
    let mut shell = start(&host, &fence)?;
    let pid = shell.pid()?;
    mute(&host, &fuse, pid)?;
    // The control: whoever looks at the command is stuck.
    fuse.await_reads(1)?;
    // And so is whoever looks up who tries something, which goes on record all the same.
    shell.ask("echo 2>/dev/null >/dev/udp/127.0.0.1/9")?;
    let refusal = fence.await_refusal(|refusal| refusal.port == 9)?;
    assert_eq!(refusal.pid, pid);
    shell.tell("exit 3")?;
    let code = shell.wait_for_code()?;
    assert_eq!(code, 3, "{}", shell.stderr());
    remains::ensure_none(fence.name())?;
    fuse.release()
}

#[test]
fn what_cannot_be_ended_is_named_by_its_number() -> Result<()> {
    let host = host_with(|| Ok(()))?;
    let mut fuse = Fuse::on(&host)?;
    let fence = Fence::new("unnamed")?.with(&["--user", "nobody"]);
    let mut shell = start(&host, &fence)?;
    let file: PathBuf = fuse.file();
    let answer = shell.ask(&format!("cat {} >/dev/null 2>&1 & echo $!", file.display()))?;
    let pid: u32 = answer.concat().trim().parse()?;
    fuse.await_reads(1)?;
    mute(&host, &fuse, pid)?;
    shell.tell("exit 3")?;
    let code = shell.wait_for_code()?;
    let said = shell.stderr();
    assert_eq!(code, 3, "{said}");
    let who = format!("process {pid}, whose state cannot be read");
    assert!(
        said.contains(&who) && said.contains("stays in force"),
        "{said}"
    );
    let mut rm = host.command(qfence()?);
    rm.args(["rm", "--time", "1", fence.name()]);
    let rm = to_end(rm)?;
    assert_eq!(rm.code(), Some(125), "{rm:?}");
    assert!(rm.stderr.contains(&who), "{rm:?}");
    fuse.release()?;
    let events = remains::cgroup(fence.name())?.join("cgroup.events");
    wait_until("nothing is stuck any more", || {
        Ok(!std::fs::read_to_string(&events).is_ok_and(|text| text.contains("populated 1")))
    })?;
    let mut ps = host.command(qfence()?);
    ps.arg("ps");
    to_end(ps)?;
    remains::ensure_none(fence.name())
}
