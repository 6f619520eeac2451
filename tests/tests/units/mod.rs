//! `exec` in units of a real systemd.

mod devices;
mod members;
mod network;
mod notify;
mod place;
mod restart;
mod slice;

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use serde::Deserialize;
use tests::{
    fence::qfence,
    run::{Ended, to_end, wait_until},
    systemd::{Machine, USER},
    workspace,
};

/// The unit under test.
const UNIT: &str = "vm.service";

/// Its cgroup.
const CGROUP: &str = "/system.slice/vm.service";

/// A fence, as `ps` lists it.
#[derive(Debug, Deserialize)]
struct Listed {
    state: String,
    pids: Vec<u32>,
    place: Option<String>,
}

/// A machine with systemd.
struct Scene {
    machine: Machine,
    program: String,
}

impl Scene {
    fn new() -> Result<Self> {
        Self::on(Machine::boot()?)
    }

    fn on(machine: Machine) -> Result<Self> {
        let program = qfence()?.to_str().context("a path")?.to_owned();
        let scene = Self { machine, program };
        scene.output(&["ip", "link", "set", "lo", "up"])?;
        Ok(scene)
    }

    /// Installs qfence where contrib/ names it, and a file of contrib/systemd.
    fn install(&self, contrib: &str, path: &str) -> Result<()> {
        self.output(&["ln", "-sf", &self.program, "/usr/local/bin/qfence-user"])?;
        let directory = Path::new(path).parent().and_then(Path::to_str);
        let directory = directory.context("a file is in a directory")?;
        self.output(&["mkdir", "-p", directory, "/etc/qfence/slices.d"])?;
        let file = workspace::root().join("contrib/systemd").join(contrib);
        self.machine.write(path, &fs::read_to_string(file)?)
    }

    /// Runs a command on the machine.
    fn run(&self, words: &[&str]) -> Result<Ended> {
        let mut command = self.machine.command(words[0])?;
        command.args(&words[1..]);
        to_end(command)
    }

    /// Runs a command on the machine, which must succeed, and returns its output.
    fn output(&self, words: &[&str]) -> Result<String> {
        let ended = self.run(words)?;
        assert_eq!(
            ended.code(),
            Some(0),
            "{words:?}: {ended:?} {}",
            self.machine.log()
        );
        Ok(ended.stdout)
    }

    /// Runs qfence on the machine.
    fn qfence(&self, words: &[&str]) -> Result<Ended> {
        self.run(&[&[&*self.program], words].concat())
    }

    /// The fences on the machine.
    fn fences(&self) -> Result<Vec<Listed>> {
        let ended = self.qfence(&["ps", "--json"])?;
        serde_json::from_str(&ended.stdout).with_context(|| format!("{ended:?}"))
    }

    /// The line of a unit file that starts a command in the fence `vm`.
    fn exec(&self, options: &str, command: &str) -> String {
        // Variables are the shell's, not systemd's.
        let command = command.replace('$', "$$");
        format!(
            "Environment=PATH=/usr/sbin:/usr/bin:/sbin:/bin\n\
             ExecStart=+{} exec --log none --name vm --user {USER} {options} -- {command}\n",
            self.program
        )
    }

    /// Writes the unit, with these lines in its section for services.
    fn write_unit(&self, lines: &str) -> Result<()> {
        let path = format!("/etc/systemd/system/{UNIT}");
        let text = format!("[Service]\nTimeoutStopSec=20\n{lines}");
        self.machine.write(&path, &text)?;
        self.output(&["systemctl", "daemon-reload"])?;
        Ok(())
    }

    /// Writes the unit, and starts it.
    fn start(&self, lines: &str) -> Result<()> {
        self.write_unit(lines)?;
        self.output(&["systemctl", "start", UNIT])?;
        Ok(())
    }

    /// Waits until the command of the unit runs in its fence.
    fn await_fence(&self) -> Result<Listed> {
        let mut found = None;
        let running = wait_until("the command runs", || {
            let Some(fence) = self.fences()?.into_iter().next() else {
                return Ok(false);
            };
            let name = |pid: &u32| {
                let ended = self.run(&["cat", &format!("/proc/{pid}/comm")])?;
                anyhow::Ok(ended.stdout)
            };
            // Until its exec it is qfence.
            let Some(name) = fence.pids.first().map(name).transpose()? else {
                return Ok(false);
            };
            found = Some(fence);
            Ok(!name.is_empty() && !name.starts_with("qfence"))
        });
        running.with_context(|| self.journal())?;
        found.context("a fence")
    }

    /// Waits until nothing of the unit's fence is left.
    fn await_nothing(&self) -> Result<()> {
        let find = ["find", "/sys/fs/bpf/qfence", "/run/qfence", "-name", "vm*"];
        let mut left = String::new();
        let nothing = wait_until("nothing is left", || {
            left = self.run(&find)?.stdout;
            Ok(left.is_empty() && self.fences()?.is_empty())
        });
        nothing.with_context(|| format!("{left} {}", self.journal()))?;
        let groups = [
            "find",
            "/sys/fs/cgroup",
            "-path",
            "*/qfence/*",
            "-type",
            "d",
        ];
        assert_eq!(self.output(&groups)?, "");
        Ok(())
    }

    /// The messages of systemd and of the units.
    fn journal(&self) -> String {
        let journal = self.run(&["journalctl", "--no-pager", "-n", "60"]);
        format!(
            "{}\n{}",
            journal.map_or_else(|_| String::new(), |ended| ended.stdout),
            self.machine.log()
        )
    }
}
