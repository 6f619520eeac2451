//! A process of a guest of libvirt that keeps those who look at its open files.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use tests::{
    fuse::Fuse,
    hostile::Hostile,
    process::Process,
    run::{HANG, wait_until},
    shell::state_of,
};

use super::libvirt::{create, scene};

/// `ps` looks at the open files of the guest's processes. The kernel describes an epoll instance to nobody while it writes
/// events to the memory of a process, and that need not end.
#[test]
fn a_process_of_the_guest_cannot_keep_ps() -> Result<()> {
    let (scene, _libvirtd) = scene()?;
    let room = &scene.room;
    let guest = room.control("vm-1")?;
    let created = create(&scene, "", "")?;
    assert_eq!(created.code(), Some(0), "{created:?}");
    let attach = ["qfence-user", "attach", "--domain", "vm-1", "--detach"];
    room.output(&attach)?;
    let listed = || {
        let file = tempfile::NamedTempFile::new()?;
        let mut ps = room.command("qfence-user")?;
        ps.args(["ps", "--json"]).stdout(file.reopen()?);
        let has_ended = Process::spawn(ps)?.wait(HANG)?.is_some();
        let fences: serde_json::Value =
            serde_json::from_slice(&fs::read(file.path())?).unwrap_or_default();
        anyhow::Ok(has_ended.then(|| fences[0].clone()))
    };
    let fence = listed()?.context("ps ends")?;
    let place = fence["place"].as_str().context("a place")?;

    let program = Hostile::named("epoller", env!("CARGO_BIN_EXE_hostile"))?;
    // The file system ends first: no process ends before.
    let (mut reader, mut epoller) = (None, None);
    let mut fuse = Fuse::new()?;
    let mut command = room.process(program.program())?;
    program.tell(&mut command, &format!("epoll:{}", fuse.file().display()));
    command.stdout(Stdio::piped());
    let epoller = epoller.insert(Process::spawn(command)?);
    let mut descriptor = String::new();
    let stdout = epoller.child().stdout.take().context("a piped stdout")?;
    BufReader::new(stdout).read_line(&mut descriptor)?;
    fuse.await_reads(1)?;
    let pid = room.output(&["pgrep", "-x", "epoller"])?;
    let directory = format!("/sys/fs/cgroup/{place}/epoller");
    let commands = format!("mkdir {directory} && echo {pid} >{directory}/cgroup.procs");
    room.output(&["sh", "-c", &commands.replace('\n', "")])?;

    let Some(fence) = listed()? else {
        fuse.release()?;
        bail!("ps waits for the process");
    };
    assert_eq!(fence["unfenced_devices"], serde_json::json!([]), "{fence}");
    let count = fence["pids"].as_array().map_or(0, Vec::len);
    assert_eq!(count, 2, "the process is in the fence: {fence}");
    // The control: who looks at it waits.
    let entered = epoller.id();
    let child = fs::read_to_string(format!("/proc/{entered}/task/{entered}/children"))?;
    let description = format!("/proc/{}/fdinfo/{}", child.trim(), descriptor.trim());
    File::open(&description).context("control")?;
    let mut cat = Command::new("cat");
    cat.arg(&description).stdout(Stdio::null());
    let cat = reader.insert(Process::spawn(cat)?).id();
    wait_until("control: the reader waits", || {
        Ok(state_of(cat) == Some('D'))
    })?;
    fuse.release()?;
    wait_until("it has ended", || {
        Ok(room.run(&["pgrep", "-x", "epoller"])?.code() == Some(1))
    })?;
    room.output(&["rmdir", &directory])?;
    room.output(&["virsh", "destroy", "vm-1"])?;
    drop(guest);
    scene.assert_nothing_left()
}
