//! Runs a test on a separate machine, as far as qfence can see: a new cgroup is the root of the hierarchy, bpffs is
//! empty, and there are no descriptions. The test sees no fences of other tests or of the machine. Its remains are
//! removed with its cgroup, however it ends.
//!
//! Only root can access the checkout there, as if it were in a directory with mode 0700. So a test that accesses files
//! other than [`reachable`](crate::reachable) copies fails everywhere, and not only if the checkout is in a home
//! directory.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    os::{
        fd::OwnedFd,
        unix::{
            fs::symlink,
            process::{CommandExt as _, ExitStatusExt as _},
        },
    },
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::signal::{SigHandler, Signal, signal},
};

use crate::{
    cgroup::{Cgroup, by_descriptor, descriptor},
    mounts::{bind, mount_new, mounted, unmount},
    workspace,
};

/// Signals that a terminal or the test runner sends to all processes of a test. This process ignores them, because it
/// must still clean up.
const PASSED_OVER: [Signal; 4] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
];

const NONE: Option<&str> = None;

/// Runs a program there and waits for its end. The caller must be the only thread of its process.
pub fn run(program: &OsString, arguments: &[OsString]) -> Result<ExitStatus> {
    let cgroup = Cgroup::new(format!("qfence-test-{}", std::process::id()))?;
    enter(&cgroup).context("make a machine apart (this needs root)")?;
    let mut command = Command::new(program);
    command.args(arguments);
    for passed_over in PASSED_OVER {
        // SAFETY: no handler is installed: a signal is ignored.
        unsafe { signal(passed_over, SigHandler::SigIgn) }?;
    }
    // SAFETY: signal(2) is a plain system call, allowed between fork and exec.
    unsafe { command.pre_exec(heed_signals) };
    let status = command
        .status()
        .with_context(|| format!("run {}", program.display()))?;
    cgroup.remove()?;
    Ok(status)
}

/// Reverts, for the program, the changes of [`run`] to signals.
fn heed_signals() -> io::Result<()> {
    for passed_over in PASSED_OVER {
        // SAFETY: no handler is installed: a signal has its default effect.
        unsafe { signal(passed_over, SigHandler::SigDfl) }?;
    }
    Ok(())
}

/// The exit code that a shell shows for an exit status.
#[must_use]
pub fn code_of(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| Some(128 + status.signal()?))
        .unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

/// Shows this process the cgroup as the root of the hierarchy, an empty bpffs, /run without fences, and a checkout that
/// only root can access.
fn enter(cgroup: &Cgroup) -> Result<()> {
    let here = std::env::current_dir()?;
    unshare(CloneFlags::CLONE_NEWNS).context("leave the mounts")?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(NONE, "/", NONE, private, NONE).context("make all mounts private")?;

    let hierarchies = mounted("cgroup2")?;
    let Some(point) = hierarchies.last() else {
        bail!("no cgroup2 is mounted");
    };
    // By its path: a descriptor from before leads to a mount of the other namespace.
    bind(&Path::new(point).join(cgroup.name()), "/mnt")?;
    unmount(&hierarchies)?;
    mount(Some("/mnt"), point.as_str(), NONE, MsFlags::MS_MOVE, NONE)
        .with_context(|| format!("move the cgroup to {point}"))?;

    mount_new("bpf", "/sys/fs/bpf", Some("mode=700"))?;
    furnish_anew(Path::new("/run"), "mode=755", |name| name != "qfence")?;
    furnish_anew(&workspace::root(), "mode=700", |_| true)?;
    std::env::set_current_dir(&here).with_context(|| format!("enter {}", here.display()))
}

/// Mounts an empty directory over `directory`, and restores the wanted entries in it.
fn furnish_anew(directory: &Path, options: &str, is_wanted: impl Fn(&str) -> bool) -> Result<()> {
    let mut furniture = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_str().is_none_or(&is_wanted) {
            furniture.push((entry.path(), entry.file_type()?));
        }
    }
    let mut there = Vec::new();
    for (path, kind) in furniture {
        if kind.is_symlink() {
            let target = fs::read_link(&path)?;
            there.push((path, Piece::Link(target)));
        } else {
            let open = descriptor(&path)?;
            there.push((path, Piece::Mount(open, kind.is_dir())));
        }
    }
    mount(
        Some("tmpfs"),
        directory,
        Some("tmpfs"),
        MsFlags::empty(),
        Some(options),
    )
    .with_context(|| format!("mount a tmpfs on {}", directory.display()))?;
    for (path, piece) in there {
        match piece {
            Piece::Link(target) => symlink(target, &path)?,
            Piece::Mount(open, is_directory) => {
                if is_directory {
                    fs::create_dir(&path)?;
                } else {
                    File::create(&path)?;
                }
                let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
                mount(Some(&by_descriptor(&open)), &path, NONE, flags, NONE)
                    .with_context(|| format!("put {} in place", path.display()))?;
            }
        }
    }
    Ok(())
}

/// An entry of a directory.
enum Piece {
    Link(PathBuf),
    /// A mount of the original, and whether it is a directory.
    Mount(OwnedFd, bool),
}
