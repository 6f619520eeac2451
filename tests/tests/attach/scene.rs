//! Cgroups that no fence has made, and `attach` to them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tests::{
    cgroup::Cgroup,
    fence::{Fence, qfence},
    namespace::Namespace,
    process::Process,
    remains::cgroup2_mount,
    run::{Ended, HANG, to_end, wait_until},
    shell::Shell,
};

/// A cgroup of the test.
pub(crate) struct Place {
    cgroup: Cgroup,
    path: PathBuf,
    /// The scripts of its processes.
    scripts: TempDir,
}

impl Place {
    /// Makes it, in the root of the hierarchy.
    pub(crate) fn new(fence: &Fence) -> Result<Self> {
        let cgroup = Cgroup::new(fence.name().to_owned())?;
        let path = cgroup2_mount()?.join(cgroup.name());
        Ok(Self {
            cgroup,
            path,
            scripts: TempDir::new()?,
        })
    }

    /// Writes a script for its processes.
    pub(crate) fn script(&self, text: &str) -> Result<PathBuf> {
        let path = self.scripts.path().join("script");
        fs::write(&path, text).context("write a script")?;
        Ok(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What makes a shell move to the cgroup, or to one below.
    pub(crate) fn enter(&self) -> String {
        format!("echo 0 >{}/cgroup.procs;", self.path.display())
    }

    /// Moves a process there.
    pub(crate) fn add(&self, pid: u32) -> Result<()> {
        fs::write(self.path.join("cgroup.procs"), pid.to_string()).context("move a process")
    }

    /// A shell there.
    pub(crate) fn shell(&self, namespace: &Namespace) -> Result<Shell> {
        let mut shell = Shell::start(namespace.command("sh"))?;
        let pid = shell.pid()?;
        self.add(pid)?;
        Ok(shell)
    }

    /// Ends what is in it, and removes it.
    pub(crate) fn remove(&self) -> Result<()> {
        self.cgroup.remove()
    }
}

/// The command line of `attach` to a place, with a log in JSON unless the fence gets no supervisor.
pub(crate) fn words(fence: &Fence, target: &[&str]) -> Vec<String> {
    let log = fence.log().display().to_string();
    let logged = ["--log", &log, "--log-format", "json"];
    let logged = match target.contains(&"--detach") {
        true => &[][..],
        false => &logged,
    };
    let named = ["attach", "--name", fence.name()];
    [&named, logged, target]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect()
}

/// A running `attach`.
pub(crate) struct Attached {
    process: Process,
    errors: tempfile::NamedTempFile,
}

impl Attached {
    /// Starts it, and waits until the fence is in force.
    pub(crate) fn start(fence: &Fence, namespace: &Namespace, target: &[&str]) -> Result<Self> {
        let errors = tempfile::NamedTempFile::new()?;
        let mut command = namespace.command(qfence()?);
        command.args(words(fence, target)).stderr(errors.reopen()?);
        let process = Process::spawn(command)?;
        let mut attached = Self { process, errors };
        wait_until("the fence is in force", || {
            if let Some(status) = attached.process.wait(std::time::Duration::ZERO)? {
                bail!("it has ended: {status}\n{}", attached.stderr());
            }
            Ok(attached.stderr().contains("is in force"))
        })
        .with_context(|| attached.stderr())?;
        Ok(attached)
    }

    pub(crate) fn stderr(&self) -> String {
        fs::read_to_string(self.errors.path()).unwrap_or_default()
    }

    /// The id of its process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> Result<ExitStatus> {
        let status = self.process.wait(HANG)?;
        status.with_context(|| format!("it does not end\n{}", self.stderr()))
    }

    /// Waits for its end, which is a success.
    pub(crate) fn ensure_success(&mut self) -> Result<()> {
        let status = self.wait()?;
        ensure!(status.success(), "{status}: {}", self.stderr());
        Ok(())
    }
}

/// Runs `attach` to its end.
pub(crate) fn attach(fence: &Fence, namespace: &Namespace, target: &[&str]) -> Result<Ended> {
    let mut command = namespace.command(qfence()?);
    command.args(words(fence, target));
    to_end(command)
}

/// What `ps --json` shows of a fence; `null` if nothing.
pub(crate) fn listed(fence: &Fence) -> Result<Value> {
    let mut ps = Command::new(qfence()?);
    ps.args(["ps", "--json"]);
    let ended = to_end(ps)?;
    ensure!(ended.code() == Some(0), "{ended:?}");
    let rows: Vec<Value> = serde_json::from_str(&ended.stdout)?;
    let found = rows.into_iter().find(|row| row["name"] == fence.name());
    Ok(found.unwrap_or(Value::Null))
}

/// Removes a fence with `rm`.
pub(crate) fn remove(fence: &Fence) -> Result<()> {
    let mut rm = Command::new(qfence()?);
    rm.args(["rm", fence.name()]);
    let ended = to_end(rm)?;
    ensure!(ended.code() == Some(0), "{ended:?}");
    Ok(())
}

/// What exists of an attached fence: pins, description, policy.
pub(crate) fn left(fence: &Fence) -> Vec<PathBuf> {
    let run = Path::new("/run/qfence");
    let mut all = vec![
        Path::new("/sys/fs/bpf/qfence").join(fence.name()),
        run.join(format!("{}.json", fence.name())),
        run.join(format!("{}.policy", fence.name())),
    ];
    all.retain(|path| path.exists());
    all
}
