//! A command whose file lies on a file system that does not answer: a signal ends its start, and nobody takes its process
//! for the supervisor.

use std::{collections::BTreeSet, fs, process::Command};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use tests::{
    fence::{Fence, qfence},
    fuse::Fuse,
    process::Process,
    remains,
    run::{HANG, fenced, to_end, wait_until},
};

/// An `exec` that hangs in execve, and its standard error.
struct Stuck {
    fuse: Fuse,
    fence: Fence,
    process: Process,
    errors: tempfile::NamedTempFile,
}

impl Stuck {
    fn new(label: &str, options: &[&str]) -> Result<Self> {
        let fuse = Fuse::new()?;
        let fence = Fence::new(label)?.with(&["--user", "nobody"]).with(options);
        let errors = tempfile::NamedTempFile::new()?;
        let file = fuse.file().display().to_string();
        let mut command = fenced(&fence, &[&file]);
        command.stderr(errors.reopen()?);
        let process = Process::spawn(command)?;
        fuse.await_reads(1)?;
        Ok(Self {
            fuse,
            fence,
            process,
            errors,
        })
    }

    fn said(&self) -> String {
        fs::read_to_string(self.errors.path()).unwrap_or_default()
    }

    /// How `exec` ends, which it does in time.
    fn code(&mut self) -> Result<Option<i32>> {
        let status = self.process.wait(HANG)?;
        Ok(status.with_context(|| self.said())?.code())
    }

    fn state(&self) -> Result<serde_json::Value> {
        let mut ps = Command::new(qfence()?);
        ps.args(["ps", "--json"]);
        let rows: Vec<serde_json::Value> = serde_json::from_str(&to_end(ps)?.stdout)?;
        let row = rows.iter().find(|row| row["name"] == self.fence.name());
        Ok(row.context("no such fence")?["state"].clone())
    }

    /// The fence is cleared once the file system is gone.
    fn ensure_cleared(mut self) -> Result<()> {
        remains::ensure_whole(self.fence.name())?;
        self.fuse.release()?;
        let events = remains::cgroup(self.fence.name())?.join("cgroup.events");
        wait_until("nothing is stuck any more", || {
            Ok(!fs::read_to_string(&events).is_ok_and(|text| text.contains("populated 1")))
        })?;
        to_end({
            let mut ps = Command::new(qfence()?);
            ps.arg("ps");
            ps
        })?;
        remains::ensure_none(self.fence.name())
    }
}

#[test]
fn a_signal_ends_the_start_of_a_command_that_is_stuck() -> Result<()> {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut stuck = Stuck::new("stuck-start", &[])?;
        let pid = remains::pids(stuck.fence.name())?[0];
        wait_until("it is said what is waited for", || {
            Ok(stuck
                .said()
                .contains("waiting for the execution of the command"))
        })?;
        stuck.process.signal(signal)?;
        let code = stuck.code()?;
        let said = stuck.said();
        assert_eq!(code, Some(128 + signal as i32), "{said}");
        let word = format!("{signal} has ended the wait for the start of the command");
        assert!(said.contains(&word), "{said}");
        // It is named, with its state.
        assert!(said.contains(&format!("process {pid} (")), "{said}");
        assert!(said.contains(", state D"), "{said}");
        assert!(said.contains("stays in force"), "{said}");
        stuck.ensure_cleared()?;
    }
    Ok(())
}

/// The control: without a signal the start goes on for as long as the file system does not answer, and fails then.
#[test]
fn without_a_signal_the_start_waits_for_the_file_system() -> Result<()> {
    let mut stuck = Stuck::new("stuck-waits", &[])?;
    assert!(
        stuck
            .process
            .wait(std::time::Duration::from_secs(3))?
            .is_none()
    );
    stuck.fuse.release()?;
    assert_eq!(stuck.code()?, Some(126), "{}", stuck.said());
    remains::ensure_none(stuck.fence.name())
}

#[test]
fn a_command_that_is_stuck_does_not_pass_for_its_supervisor() -> Result<()> {
    let mut stuck = Stuck::new("stuck-orphan", &[])?;
    let pid = remains::pids(stuck.fence.name())?[0];
    let name = fs::read_to_string(format!("/proc/{pid}/comm"))?;
    assert_eq!(stuck.state()?, "running", "{name}");
    // What it has beside its standard streams are pipes to its parent, and the domain.
    let mut kinds = BTreeSet::new();
    for fd in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let fd = fd?;
        let number: u32 = fd.file_name().to_string_lossy().parse()?;
        if number > 2 {
            let target = fs::read_link(fd.path())?.display().to_string();
            kinds.insert(target.split(':').next().unwrap_or_default().to_owned());
        }
    }
    kinds.remove("pipe");
    kinds.remove("anon_inode");
    assert!(kinds.is_empty(), "{kinds:?}");
    let held = fs::read_dir(format!("/proc/{pid}/fd"))?.count();
    assert!(held <= 7, "{held} descriptors");

    stuck.process.signal(Signal::SIGKILL)?;
    stuck.code()?;
    assert_eq!(stuck.state()?, "orphaned");
    stuck.ensure_cleared()
}
