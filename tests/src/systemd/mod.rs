//! A machine with systemd as process 1, without a virtual machine: namespaces, a cgroup, and a copy-on-write view of the
//! files of this machine. It runs D-Bus, logind, and the user manager of one user, who has not logged in but lingers
//! (loginctl(1)). Nothing of this machine is changed, and several can run at the same time.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;

use crate::{
    cgroup::{Cgroup, join},
    fence::{qfence, unique_name},
    namespace::Namespace,
    process::Process,
    run::{HANG, to_end, wait_until},
};

/// Prepares the view of the files, and becomes systemd.
const BOOT: &str = include_str!("boot.sh");

/// The name of the user.
pub const USER: &str = "alice";

/// The user's id: none that a user of this machine has, and none that systemd reserves.
pub const UID: u32 = 59123;

/// The commands of the machine find their programs here.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// A running machine. Dropping it ends all its processes.
#[derive(Debug)]
pub struct Machine {
    /// The parent of its process 1, which ends process 1 when it ends.
    outer: Process,
    /// Process 1, by its id here.
    init: u32,
    /// The cgroup that is the root of the machine's hierarchy.
    cgroup: Cgroup,
    /// The messages of process 1.
    log: tempfile::NamedTempFile,
    /// Where its files are mounted, in its mount namespace.
    _base: tempfile::TempDir,
}

impl Machine {
    /// Boots a machine without a network, and waits until the user's manager runs.
    pub fn boot() -> Result<Self> {
        // `unshare` ignores SIGTERM, so the end of this process kills it instead.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare", "--net"]);
        Self::boot_by(command)
    }

    /// Boots a machine in the network of a namespace.
    pub fn boot_in(namespace: &Namespace) -> Result<Self> {
        let mut command = namespace.command("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare"]);
        Self::boot_by(command)
    }

    /// Boots a machine. `command` is `unshare` with options.
    fn boot_by(mut command: Command) -> Result<Self> {
        let cgroup = Cgroup::new(unique_name("systemd"))?;
        // A cgroup of its own for what is started from outside, because systemd empties the root.
        fs::create_dir(cgroup.path().join("outside"))?;
        let base = tempfile::Builder::new()
            .prefix("qfence-systemd-")
            .tempdir()?;
        let log = tempfile::NamedTempFile::new()?;
        let program = qfence()?;
        let directory = program.parent().context("a program is in a directory")?;
        command.args(["--kill-child", "--fork"]);
        command.args(["--mount", "--pid", "--cgroup", "--uts", "--ipc"]);
        command.args(["sh", "-c", BOOT, "boot.sh"]);
        command.args([base.path(), directory]);
        command.args([USER, &UID.to_string()]);
        command.stdout(log.reopen()?).stderr(log.reopen()?);
        join(&mut command, &cgroup.path())?;
        let outer = Process::spawn(command)?;
        let mut machine = Self {
            init: 0,
            outer,
            cgroup,
            log,
            _base: base,
        };
        let booted = machine.await_boot();
        booted.with_context(|| format!("systemd does not boot:\n{}", machine.log()))?;
        Ok(machine)
    }

    fn await_boot(&mut self) -> Result<()> {
        let outer = self.outer.id();
        let children = format!("/proc/{outer}/task/{outer}/children");
        wait_until("systemd is process 1", || {
            let children = fs::read_to_string(&children).context("it has ended")?;
            let Some(init) = children.split_whitespace().next() else {
                return Ok(false);
            };
            self.init = init.parse()?;
            Ok(fs::read_to_string(format!("/proc/{init}/comm"))
                .is_ok_and(|name| name == "systemd\n"))
        })?;
        let unit = format!("user@{UID}.service");
        wait_until("the user's manager runs", || {
            let mut command = self.command("systemctl")?;
            command.args(["is-active", "--quiet", &unit]);
            Ok(to_end(command)?.code() == Some(0))
        })
    }

    /// A command that will run on the machine as root, with an environment of its own. Its working directory is `/`.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        let mut command = Command::new("nsenter");
        command.arg("--target").arg(self.init.to_string());
        command.args(["--mount", "--pid", "--cgroup", "--net", "--uts", "--ipc"]);
        command.args(["--root", "--wd", "--"]).arg(program);
        command.env_clear().env("PATH", PATH);
        join(&mut command, &self.cgroup.path().join("outside"))?;
        Ok(command)
    }

    /// A command that will run on the machine as the user, outside of any fence.
    pub fn command_as_user(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        let mut command = self.command("setpriv")?;
        let id = UID.to_string();
        command.args(["--reuid", &id, "--regid", &id]);
        command.args(["--clear-groups", "--reset-env"]).arg(program);
        Ok(command)
    }

    /// The id of the user's manager, on the machine.
    pub fn manager(&self) -> Result<u32> {
        let mut command = self.command("systemctl")?;
        command.args(["show", "--property=MainPID", "--value"]);
        command.arg(format!("user@{UID}.service"));
        let ended = to_end(command)?;
        let parsed = ended.stdout.trim().parse();
        parsed.with_context(|| format!("the manager's id: {ended:?}"))
    }

    /// The path here of a file on the machine.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        let inside = Path::new("/proc").join(self.init.to_string()).join("root");
        inside.join(path.trim_start_matches('/'))
    }

    /// Writes a file on the machine.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        let path = self.path(path);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    }

    /// The messages of process 1 so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.log.path()).unwrap_or_default()
    }

    /// Ends all processes of the machine, and removes its cgroup.
    pub fn end(mut self) -> Result<()> {
        self.outer.signal(Signal::SIGKILL)?;
        if self.outer.wait(HANG)?.is_none() {
            bail!("the machine does not end");
        }
        self.cgroup.remove()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The fields' destructors do the rest. A destructor cannot report an error.
        let _ = self.outer.signal(Signal::SIGKILL);
    }
}
