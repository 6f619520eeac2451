//! The mounts and the network in which victims and attempts exist. They end with the thread that has made them.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io::{BufRead as _, BufReader},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::{
            fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, chown},
            net::UnixListener,
            process::CommandExt as _,
        },
    },
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    libc,
    mount::{MsFlags, mount},
    pty::{OpenptyResult, openpty},
    sched::{CloneFlags, unshare},
    sys::stat::{Mode, SFlag, makedev, mknod},
};

use super::{
    USER,
    attempts::raw,
    victims::{BASE, PROGRAM, RUNTIME, SCRATCH, SYSTEM_SOCKETS, Victims},
};
use crate::{
    base::{files::directory::Directory, paths::Paths},
    verify::netns::Netns,
};

const NONE: Option<&str> = None;

/// Where the runtime files of the system are.
const RUN: &str = "/run";

/// Where processes share memory.
const SHM: &str = "/dev/shm";

/// A device that every user may open: /dev/fuse.
const FUSE: (u64, u64) = (10, 229);

/// The stage with its victims. Dropping it ends them.
pub struct Stage {
    /// The victims, as the attempts know them.
    pub victims: Victims,
    victim: Child,
    terminal: OpenptyResult,
    _network: Netns,
    _listeners: Vec<UnixListener>,
}

impl Stage {
    /// Moves this thread to new mounts and a new network, and makes the victims there.
    ///
    /// # Errors
    /// If that fails.
    pub fn enter(paths: &Paths) -> Result<Self> {
        furnish(paths).context("cannot make mounts for the victims")?;
        let network = Netns::enter_new()?;
        let mut listeners = Vec::new();
        for path in SYSTEM_SOCKETS.map(Path::new) {
            fs::create_dir_all(path.parent().unwrap_or(path))?;
            listeners.push(UnixListener::bind(path)?);
            fs::set_permissions(path, Permissions::from_mode(0o666))?;
        }
        let has_key = raw::make_session_key().is_ok();
        let mut victim = unprivileged(PROGRAM)
            .arg("victim")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .context("cannot start a victim")?;
        let victims = introduction(&mut victim);
        if victims.is_err() {
            let _ = victim.kill();
            let _ = victim.wait();
        }
        Ok(Self {
            victims: Victims {
                has_key,
                ..victims?
            },
            victim,
            terminal: openpty(None, None).context("cannot make a terminal")?,
            _network: network,
            _listeners: listeners,
        })
    }

    /// A terminal, for the standard input of the attempts.
    ///
    /// # Errors
    /// If its descriptor cannot be duplicated.
    pub fn terminal(&self) -> Result<OwnedFd> {
        let terminal = self.terminal.slave.try_clone();
        terminal.context("cannot duplicate a descriptor")
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // A destructor cannot report an error. The victim also ends when its standard input does.
        let _ = self.victim.kill();
        let _ = self.victim.wait();
    }
}

/// A command of the unprivileged user, without a fence.
#[must_use]
pub fn unprivileged(program: &str) -> Command {
    let mut command = Command::new(program);
    // The standard library drops the supplementary groups then.
    command.uid(USER).gid(USER);
    command
}

/// Reads what the victim prints about itself.
fn introduction(victim: &mut Child) -> Result<Victims> {
    let stdout = victim.stdout.take().context("no pipe from a victim")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    if line.is_empty() {
        bail!("a victim has ended");
    }
    serde_json::from_str(&line).with_context(|| format!("an odd answer: {line}"))
}

/// Moves this thread to a mount namespace of its own, in which /run has nothing but the descriptions of fences, the
/// nameservers, and directories for victims.
fn furnish(paths: &Paths) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("CAP_SYS_ADMIN is needed")?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(NONE, "/", NONE, private, NONE)?;
    Directory::make_private(&paths.run)?;
    let fences = File::options()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
        .open(&paths.run)?;
    // It may be a link into /run.
    let resolv_conf = fs::canonicalize(&paths.resolv_conf)
        .and_then(|path| Ok((fs::read(&path)?, path)))
        .ok();
    mount_empty(RUN, "mode=0755")?;
    if Path::new(SHM).is_dir() {
        mount_empty(SHM, "mode=1777")?;
    }
    fs::create_dir_all(&paths.run)?;
    bind(&fences, &paths.run)?;
    if let Some((text, path)) = resolv_conf
        && path.starts_with(RUN)
    {
        fs::create_dir_all(path.parent().unwrap_or(&path))?;
        fs::write(&path, text)?;
    }
    fs::create_dir(BASE)?;
    // The user may be unable to reach the file itself, and a mount of another namespace cannot be bound.
    fs::copy(&paths.program, PROGRAM)?;
    fs::set_permissions(PROGRAM, Permissions::from_mode(0o755))?;
    fs::create_dir("/run/user")?;
    for directory in [RUNTIME, SCRATCH, &format!("{BASE}/home")] {
        DirBuilder::new().mode(0o700).create(directory)?;
        chown(directory, Some(USER), Some(USER))?;
    }
    let device = Path::new(BASE).join("fuse");
    let everybody = Mode::from_bits_truncate(0o666);
    // Without the privilege to make devices, the attempt to open it finds none.
    if mknod(&device, SFlag::S_IFCHR, everybody, makedev(FUSE.0, FUSE.1)).is_ok() {
        fs::set_permissions(&device, Permissions::from_mode(0o666))?;
    }
    Ok(())
}

/// Mounts an empty directory over another.
fn mount_empty(directory: &str, options: &str) -> Result<()> {
    let flags = MsFlags::MS_NOSUID;
    mount(
        Some("tmpfs"),
        directory,
        Some("tmpfs"),
        flags,
        Some(options),
    )
    .with_context(|| format!("cannot mount a file system at {directory}"))
}

/// Binds an open file or directory to a path.
fn bind(open: &File, path: &Path) -> Result<()> {
    let by_descriptor = format!("/proc/thread-self/fd/{}", open.as_raw_fd());
    let bound = mount(
        Some(by_descriptor.as_str()),
        path,
        NONE,
        MsFlags::MS_BIND,
        NONE,
    );
    bound.with_context(|| format!("cannot bind {}", path.display()))
}
