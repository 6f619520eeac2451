//! A host with container engines, without a virtual machine: podman and Docker of Debian on a copy-on-write view of the
//! files of this machine, in the network of a [`World`]'s host, with cgroup v2 alone. The engines are unpacked and not
//! installed. Nothing of this machine is changed, and several can exist at the same time. Another such host has libvirt, and
//! another LXC.

mod cri;
mod libvirt;
mod lxc;

use std::{
    ffi::OsStr,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;

pub use self::{
    cri::{NRI_SOCKET, PODS_GATEWAY, Pod, RUNTIME},
    libvirt::Control,
    lxc::{ADDRESS, GATEWAY},
};
use crate::{
    cgroup::{Cgroup, join},
    debian,
    fence::{qfence, unique_name},
    probe,
    process::Process,
    reachable::reachable,
    run::{Ended, HANG, to_end, wait_until},
    world::World,
};

/// Prepares the view of the files, and waits.
const ROOM: &str = include_str!("room.sh");

/// A library that lets crun run without CAP_SYS_RESOURCE.
const LIMITS: &str = include_str!("limits.c");

/// crun with that library.
pub const CRUN: &str = "/root/runtimes/crun";

/// The commands of the host find their programs here.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/bin";

/// The image of [`Room::import`]: the program `probe`, and busybox.
pub const IMAGE: &str = "localhost/tests/probe";

/// Its files on the host.
const FILES: &str = "/root/image";

/// The image of [`Room::import_qfence`]: qfence, nsenter and busybox.
pub const QFENCE: &str = "localhost/tests/qfence";

/// Makes the files of that image, of the programs that are the arguments.
const PACK: &str = r#"set -e
for program; do
    install -D "$program" "/root/qfence/bin/${program##*/}"
    for library in $(ldd "$program" | grep -o '/[^ ]*'); do
        install -D "$library" "/root/qfence$library"
    done
done
ln -sf busybox /root/qfence/bin/sh
tar -C /root/qfence -cf /root/qfence.tar .
"#;

/// The program `probe` in the image.
pub const PROBE: &str = "/bin/probe";

/// A running host. Dropping it ends all its processes, those of containers too.
#[derive(Debug)]
pub struct Room {
    /// The parent of its process 1, which ends process 1 when it ends.
    outer: Process,
    /// Process 1, by its id here.
    init: u32,
    /// The cgroup that is the root of the host's hierarchy.
    cgroup: Cgroup,
    /// What the preparation said.
    log: tempfile::NamedTempFile,
    /// Where its files are mounted, in its mount namespace.
    _base: tempfile::TempDir,
}

impl Room {
    /// Makes a host with container engines in the network of the host of a world, whose resolv.conf names `nameserver`.
    pub fn new(world: &World, nameserver: &str) -> Result<Self> {
        Self::with(&debian::engines()?, world, nameserver)
    }

    /// Makes such a host with other files.
    fn with(files: &Path, world: &World, nameserver: &str) -> Result<Self> {
        let cgroup = Cgroup::new(unique_name("engines"))?;
        // A cgroup of its own for what is started from outside: a cgroup with processes passes no controllers on.
        fs::create_dir(cgroup.path().join("outside"))?;
        let base = tempfile::Builder::new()
            .prefix("qfence-engines-")
            .tempdir()?;
        let log = tempfile::NamedTempFile::new()?;
        let program = qfence()?;
        let directory = program.parent().context("a program is in a directory")?;
        // `unshare` ignores SIGTERM, so the end of this process kills it instead.
        let mut command = world.host.command("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare", "--kill-child", "--fork"]);
        command.args(["--mount", "--pid", "--cgroup", "--uts", "--ipc"]);
        command.args(["sh", "-c", ROOM, "room.sh"]);
        command.args([base.path(), files, directory]);
        command.arg(nameserver);
        command.stdout(log.reopen()?).stderr(log.reopen()?);
        join(&mut command, &cgroup.path())?;
        let outer = Process::spawn(command)?;
        let mut room = Self {
            init: 0,
            outer,
            cgroup,
            log,
            _base: base,
        };
        let made = room.await_init();
        made.with_context(|| format!("the host with engines is not made:\n{}", room.log()))?;
        Ok(room)
    }

    fn await_init(&mut self) -> Result<()> {
        let outer = self.outer.id();
        let children = format!("/proc/{outer}/task/{outer}/children");
        wait_until("the host has a process 1", || {
            let children = fs::read_to_string(&children).context("it has ended")?;
            let Some(init) = children.split_whitespace().next() else {
                return Ok(false);
            };
            self.init = init.parse()?;
            let name = fs::read_to_string(format!("/proc/{init}/comm")).context("it has ended")?;
            Ok(name == "tini\n")
        })
    }

    /// A command that will run on the host as root, with an environment of its own.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        let mut command = Command::new("nsenter");
        command.arg("--target").arg(self.init.to_string());
        command.args(["--mount", "--pid", "--cgroup", "--net", "--uts", "--ipc"]);
        command.args(["--root", "--wd", "--"]).arg(program);
        command.env_clear().env("PATH", PATH).env("HOME", "/root");
        join(&mut command, &self.cgroup.path().join("outside"))?;
        Ok(command)
    }

    /// A command that will run among the host's processes, with the files of this machine.
    pub fn process(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        let mut command = Command::new("nsenter");
        command.arg("--target").arg(self.init.to_string());
        command.args(["--pid", "--cgroup", "--"]).arg(program);
        join(&mut command, &self.cgroup.path().join("outside"))?;
        Ok(command)
    }

    /// Runs a command on the host to its end.
    pub fn run(&self, words: &[&str]) -> Result<Ended> {
        let (program, arguments) = words.split_first().context("no command")?;
        let mut command = self.command(program)?;
        command.args(arguments);
        to_end(command)
    }

    /// Runs a command on the host that must succeed; returns its output.
    pub fn output(&self, words: &[&str]) -> Result<String> {
        let ended = self.run(words)?;
        ensure!(ended.code() == Some(0), "{words:?}: {ended:?}");
        Ok(ended.stdout)
    }

    /// The path here of a file on the host.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        let inside = Path::new("/proc").join(self.init.to_string()).join("root");
        inside.join(path.trim_start_matches('/'))
    }

    /// Writes a file on the host.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        let path = self.path(path);
        let directory = path.parent().context("a file is in a directory")?;
        fs::create_dir_all(directory)?;
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    }

    /// Makes the files of [`IMAGE`], in [`FILES`].
    fn make_image(&self) -> Result<()> {
        let probe = probe::built()?;
        let probe = reachable(&probe)?;
        let bin = self.path(FILES).join("bin");
        fs::create_dir_all(&bin)?;
        fs::copy(probe, bin.join("probe")).context("copy the probe")?;
        fs::copy("/usr/bin/busybox", bin.join("busybox")).context("copy busybox")?;
        std::os::unix::fs::symlink("busybox", bin.join("sh")).context("make a link")
    }

    /// Makes [`IMAGE`] for an engine, `podman` or `docker`.
    pub fn import(&self, engine: &str) -> Result<()> {
        if !self.path(FILES).exists() {
            self.make_image()?;
            self.output(&["tar", "-C", FILES, "-cf", "/root/image.tar", "."])?;
        }
        self.output(&[engine, "import", "/root/image.tar", IMAGE])?;
        Ok(())
    }

    /// Makes [`QFENCE`] for podman.
    pub fn import_qfence(&self) -> Result<()> {
        let program = qfence()?;
        let program = program.to_str().context("a path")?;
        let pack = ["sh", "-c", PACK, "pack", program];
        self.output(&[&pack[..], &["/usr/bin/nsenter", "/usr/bin/busybox"]].concat())?;
        self.output(&["podman", "import", "/root/qfence.tar", QFENCE])?;
        Ok(())
    }

    /// Starts containerd, in a cgroup of its own, and waits until it answers. The first one gets [`IMAGE`].
    pub fn start_containerd(&self) -> Result<Process> {
        let archive = "/root/archive.tar";
        let is_first = !self.path(archive).exists();
        if is_first {
            self.import("podman")?;
            let save = ["podman", "save", "--format", "docker-archive"];
            self.output(&[&save[..], &["--output", archive, IMAGE]].concat())?;
        }
        let containerd = self.start("containerd", &[])?;
        let answers = wait_until("containerd answers", || {
            Ok(self.run(&["ctr", "version"])?.code() == Some(0))
        });
        answers.with_context(|| self.log_of("containerd"))?;
        let import = [
            "ctr",
            "images",
            "import",
            "--snapshotter",
            "native",
            archive,
        ];
        if is_first {
            self.output(&import)?;
        }
        Ok(containerd)
    }

    /// Makes [`CRUN`], for `podman --runtime`. podman does not pass its environment on to a runtime.
    pub fn make_crun(&self) -> Result<()> {
        self.write("/root/limits.c", LIMITS)?;
        let library = "/usr/local/lib/limits.so";
        self.output(&["cc", "-shared", "-fPIC", "-o", library, "/root/limits.c"])?;
        let script = format!("#!/bin/sh\nLD_PRELOAD={library} exec /usr/bin/crun \"$@\"\n");
        self.write(CRUN, &script)?;
        self.output(&["chmod", "755", CRUN])?;
        Ok(())
    }

    /// Starts a service of the host in a cgroup of its own, with its messages in a file of the host.
    fn start(&self, name: &str, arguments: &[&str]) -> Result<Process> {
        let mut command = self.command(name)?;
        let cgroup = self.cgroup.path().join(format!("{name}-engine"));
        fs::create_dir_all(&cgroup)?;
        join(&mut command, &cgroup)?;
        let log = File::create(self.path(&log_of(name)))?;
        command.args(arguments);
        command.stdout(log.try_clone()?).stderr(log);
        Process::spawn(command)
    }

    /// Kills a service of the host by SIGKILL, and waits until it is gone.
    pub fn kill(&self, name: &str) -> Result<()> {
        self.signal(name, "-KILL")
    }

    /// Ends a service of the host by SIGTERM, and waits until it is gone.
    pub fn stop(&self, name: &str) -> Result<()> {
        self.signal(name, "-TERM")
    }

    fn signal(&self, name: &str, signal: &str) -> Result<()> {
        // The process that was started is not the service: it has entered the host, and waits.
        self.output(&["pkill", signal, "-x", name])?;
        wait_until(&format!("{name} is gone"), || {
            Ok(self.run(&["pgrep", "-x", name])?.code() == Some(1))
        })
    }

    /// Starts Docker, in a cgroup of its own, and waits until it answers.
    pub fn start_docker(&self) -> Result<Process> {
        let docker = self.start("dockerd", &["--storage-driver", "vfs"])?;
        let answers = wait_until("Docker answers", || {
            Ok(self.run(&["docker", "info"])?.code() == Some(0))
        });
        answers.with_context(|| self.log_of("dockerd"))?;
        Ok(docker)
    }

    /// The messages of a service.
    fn log_of(&self, name: &str) -> String {
        fs::read_to_string(self.path(&log_of(name))).unwrap_or_default()
    }

    /// What the preparation said.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.log.path()).unwrap_or_default()
    }

    /// Ends all processes of the host, and removes its cgroup.
    pub fn end(mut self) -> Result<()> {
        self.outer.signal(Signal::SIGKILL)?;
        if self.outer.wait(HANG)?.is_none() {
            bail!("the host does not end");
        }
        self.cgroup.remove()
    }
}

/// The file with the messages of a service.
fn log_of(name: &str) -> String {
    format!("/run/{name}.log")
}

impl Drop for Room {
    fn drop(&mut self) {
        // The fields' destructors do the rest. A destructor cannot report an error.
        let _ = self.outer.signal(Signal::SIGKILL);
    }
}
