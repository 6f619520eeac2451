//! A network namespace, and optionally a mount namespace, that only this process refers to, by descriptors; and
//! functions to run code inside.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Write as _},
    net::IpAddr,
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sched::{CloneFlags, setns, unshare},
    unistd::{Gid, Uid, chdir, setgroups, setresgid, setresuid},
};
use qfence_user::verify::{
    netns::{Netns, on_thread},
    wire::Wire,
};

/// A user to run a program as, without any capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// The user id.
    pub uid: u32,
    /// The group id; there are no further groups.
    pub gid: u32,
}

/// `nobody`: the unprivileged user of the tests.
pub const NOBODY: User = User {
    uid: 65534,
    gid: 65534,
};

/// A network namespace, and optionally a mount namespace. The kernel removes it when its last process has ended and
/// this value is dropped; a killed test leaves nothing behind.
#[derive(Clone, Debug)]
pub struct Namespace {
    net: Arc<Netns>,
    mounts: Option<Arc<OwnedFd>>,
}

impl Namespace {
    /// Makes a network namespace.
    pub fn new() -> Result<Self> {
        Ok(Self {
            net: Netns::new()?.into(),
            mounts: None,
        })
    }

    /// Makes a network namespace with its own mounts. `prepare` runs inside, to change them.
    pub fn with_mounts(prepare: impl FnOnce() -> Result<()> + Send) -> Result<Self> {
        on_thread(|| {
            let net = Netns::enter_new()?;
            unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
            prepare()?;
            let path = "/proc/thread-self/ns/mnt";
            let mounts = File::open(path).with_context(|| format!("open {path}"))?;
            Ok(Self {
                net: net.into(),
                mounts: Some(OwnedFd::from(mounts).into()),
            })
        })
    }

    /// A path of the network namespace, for programs that take one; valid while this value lives.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            self.net.as_fd().as_raw_fd()
        )
        .into()
    }

    /// A command that will run inside. Its working directory is `/` if the namespace has its own mounts.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.command_with(program, None)
    }

    /// A command that will run inside as another user (`Command::uid` would change the user too early).
    pub fn command_as(&self, user: User, program: impl AsRef<OsStr>) -> Command {
        self.command_with(program, Some(user))
    }

    fn command_with(&self, program: impl AsRef<OsStr>, user: Option<User>) -> Command {
        let inside = self.clone();
        let mut command = Command::new(program);
        // SAFETY: the closure only makes system calls between fork and exec, and does not allocate.
        unsafe {
            command.pre_exec(move || {
                inside.enter()?;
                user.map_or(Ok(()), become_user)
            });
        }
        command
    }

    /// Runs a closure inside, on a new thread. Files and sockets that it opens stay inside.
    pub fn run<T: Send>(&self, closure: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        on_thread(|| {
            // The working directory is shared between threads. A thread that shares it may not change its mount
            // namespace.
            unshare(CloneFlags::CLONE_FS).context("leave the shared working directory")?;
            self.enter().context("enter the namespace")?;
            closure()
        })
    }

    /// Runs `ip` inside with arguments separated by spaces, and returns what it prints.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        let output = self
            .command("ip")
            .args(arguments.split_whitespace())
            .output();
        let output = output.context("run ip (package iproute2)")?;
        if !output.status.success() {
            bail!(
                "ip {arguments}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs a batch of `ip` commands, one per line.
    pub fn ip_batch(&self, lines: &str) -> Result<()> {
        let mut child = self
            .command("ip")
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("start ip (package iproute2)")?;
        child
            .stdin
            .take()
            .context("ip has a stdin")?
            .write_all(lines.as_bytes())?;
        let output = child.wait_with_output().context("wait for ip")?;
        if !output.status.success() {
            bail!(
                "ip refused:\n{lines}\n{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(())
    }

    /// Waits until these addresses are local: a worker of the kernel adds an IPv6 address to the local table shortly
    /// after `ip` has ended.
    pub fn await_local(&self, addresses: &[IpAddr]) -> Result<()> {
        let addresses: Vec<_> = addresses.iter().map(|address| (*address, 0)).collect();
        Wire::within(&self.net, async |wire| wire.await_local(&addresses).await)
    }

    /// Sets a network parameter, such as `net/ipv6/conf/all/accept_dad`.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys").join(name);
        self.run(|| fs::write(&path, value).with_context(|| format!("write {}", path.display())))
    }

    fn enter(&self) -> io::Result<()> {
        setns(self.net.as_fd(), CloneFlags::CLONE_NEWNET)?;
        if let Some(mounts) = &self.mounts {
            setns(mounts, CloneFlags::CLONE_NEWNS)?;
            chdir("/")?;
        }
        Ok(())
    }
}

impl AsRef<Netns> for Namespace {
    fn as_ref(&self) -> &Netns {
        &self.net
    }
}

fn become_user(user: User) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    setgroups(&[])?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    Ok(())
}
