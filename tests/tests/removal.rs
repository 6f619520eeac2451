//! Nothing removes qfence while there are fences: it would be impossible to show, change or end them. The script of the
//! archive is run on a host of its own; the packages run the same commands, which are in a file of their own.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use tempfile::TempDir;
use tests::{
    fence::{qfence, unique_name},
    private::Private,
    process::Process,
    run::{Ended, HANG, to_end, wait_until, without_sudo},
    workspace::{self, make_readable},
};

/// The files of the archive that the test installs.
const FILES: [&str; 3] = ["bin/qfence", "bin/qfence-user", "share/qfence/files"];

/// The directory of an archive on a host of its own, and where it is installed.
struct Installed {
    host: Private,
    script: PathBuf,
    prefix: PathBuf,
    _directory: TempDir,
}

impl Installed {
    fn new() -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("qfence-install-")
            .tempdir()?;
        make_readable(directory.path())?;
        let scripts = workspace::root().join("xtask/src/package");
        for script in ["install.sh", "before-removal.sh", "after-removal.sh"] {
            fs::copy(scripts.join(script), directory.path().join(script))
                .with_context(|| format!("copy {script}"))?;
        }
        let files = directory.path().join("files");
        fs::create_dir_all(files.join("bin"))?;
        fs::create_dir_all(files.join("share/qfence"))?;
        fs::copy(qfence()?, files.join("bin/qfence-user"))?;
        symlink("qfence-user", files.join("bin/qfence"))?;
        fs::write(files.join("share/qfence/files"), FILES.join("\n") + "\n")?;
        let installed = Self {
            host: Private::new()?,
            script: directory.path().join("install.sh"),
            prefix: directory.path().join("opt"),
            _directory: directory,
        };
        let ended = installed.script(&[])?;
        assert_eq!(ended.code(), Some(0), "{ended:?}");
        assert_eq!(installed.files(), FILES.len());
        Ok(installed)
    }

    fn run(&self, program: impl AsRef<Path>, arguments: &[&str]) -> Result<Ended> {
        let mut command = self.host.namespace().command(program.as_ref());
        command.args(arguments);
        without_sudo(&mut command);
        to_end(command)
    }

    fn script(&self, options: &[&str]) -> Result<Ended> {
        let (script, prefix) = (self.script.to_str(), self.prefix.to_str());
        let mut arguments = vec![
            script.context("a path")?,
            "--prefix",
            prefix.context("a path")?,
        ];
        arguments.extend(options);
        self.run("sh", &arguments)
    }

    /// The number of installed files.
    fn files(&self) -> usize {
        let paths = FILES.map(|file| self.prefix.join(file));
        paths
            .iter()
            .filter(|path| path.symlink_metadata().is_ok())
            .count()
    }

    fn program(&self) -> PathBuf {
        self.prefix.join("bin/qfence-user")
    }

    /// The removal is refused, and its message names the fence and the way to end it. Nothing is removed.
    fn assert_refused(&self, fence: &str) -> Result<()> {
        let ended = self.script(&["--uninstall"])?;
        assert_eq!((ended.code(), &*ended.stdout), (Some(1), ""), "{ended:?}");
        let end = format!("sudo {} rm NAME\n", self.program().display());
        for words in ["qfence is not removed", fence, &end] {
            assert!(ended.stderr.contains(words), "{words}: {ended:?}");
        }
        assert_eq!(self.files(), FILES.len());
        Ok(())
    }

    /// The removal succeeds, and leaves nothing of qfence on the host.
    fn assert_removed(&self) -> Result<()> {
        let ended = self.script(&["--uninstall"])?;
        assert_eq!(
            (ended.code(), &*ended.stdout, &*ended.stderr),
            (Some(0), "", "")
        );
        assert_eq!(self.files(), 0);
        assert!(!self.prefix.join("share/qfence").exists());
        self.host.namespace().run(|| {
            for directory in ["/run", "/sys/fs/bpf"] {
                for entry in fs::read_dir(directory)? {
                    let name = entry?.file_name();
                    // The kernel has files of its own in bpffs.
                    let is_of_qfence = name.to_string_lossy().starts_with("qfence");
                    assert!(!is_of_qfence, "{directory}: {name:?}");
                }
            }
            Ok(())
        })?;
        assert!(!self.host.cgroup().join("qfence").exists());
        Ok(())
    }
}

/// A fence with a process that outlives its supervisor.
struct Running<'a> {
    on: &'a Installed,
    name: String,
    supervisor: Process,
}

impl<'a> Running<'a> {
    fn new(on: &'a Installed) -> Result<Self> {
        let name = unique_name("removal");
        let mut command = on.host.namespace().command(on.program());
        command.args(["exec", "--log", "none", "--user", "nobody", "--name", &name]);
        command.args(["--", "sh", "-c", "setsid sleep 1000 & wait"]);
        without_sudo(&mut command);
        let running = Self {
            on,
            supervisor: Process::spawn(command)?,
            name,
        };
        wait_until("the command runs", || Ok(running.pids().len() >= 2))?;
        Ok(running)
    }

    fn pids(&self) -> Vec<u32> {
        let cgroup = self.on.host.cgroup().join("qfence").join(&self.name);
        let text = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|pid| pid.parse().ok()).collect()
    }

    fn kill_supervisor(&mut self) -> Result<()> {
        self.supervisor.signal(Signal::SIGKILL)?;
        self.supervisor.wait(HANG)?.context("it is killed")?;
        Ok(())
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // A destructor cannot report an error.
        let _ = self
            .on
            .run(qfence().unwrap_or_default(), &["rm", &self.name]);
    }
}

#[test]
fn qfence_is_not_removed_while_there_are_fences() -> Result<()> {
    let installed = Installed::new()?;
    let mut fence = Running::new(&installed)?;
    installed.assert_refused(&fence.name)?;
    // Without its supervisor it stays in force.
    fence.kill_supervisor()?;
    installed.assert_refused(&fence.name)?;
    // Also if the program can no longer be run.
    let (program, away) = (installed.program(), installed.prefix.join("bin/away"));
    fs::rename(&program, &away)?;
    fs::write(&program, "")?;
    installed.assert_refused(&fence.name)?;
    fs::rename(&away, &program)?;
    let ended = installed.run(&program, &["rm", &fence.name])?;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    installed.assert_removed()
}

#[test]
fn what_an_ended_fence_left_keeps_nobody_from_removing_qfence() -> Result<()> {
    let installed = Installed::new()?;
    let mut fence = Running::new(&installed)?;
    fence.kill_supervisor()?;
    for pid in fence.pids() {
        tests::process::signal(pid, Signal::SIGKILL)?;
    }
    wait_until("its processes have ended", || Ok(fence.pids().is_empty()))?;
    // The control: there is something to clear.
    let described = Path::new("/run/qfence").join(format!("{}.json", fence.name));
    let is_there = || installed.host.namespace().run(|| Ok(described.exists()));
    assert!(is_there()?);
    installed.assert_removed()?;
    assert!(!is_there()?);
    Ok(())
}
