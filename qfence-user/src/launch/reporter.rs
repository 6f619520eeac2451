//! Refuses the system calls that the command's filter hands to the supervisor, and reports each kind of them once.
//!
//! A caller waits until it is answered. If the supervisor is gone, the kernel answers ENOSYS (seccomp_unotify(2)), so the
//! calls remain closed.

use std::{
    collections::BTreeSet,
    io::IoSliceMut,
    mem::MaybeUninit,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    libc::{self, seccomp_notif, seccomp_notif_resp},
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::{
    base::{files::bounded, message_queue::MessageQueue, printable::printable},
    launch::child::describe,
};

/// The pause after a call of a kind that was reported: a flood would cost the supervisor a processor.
const PAUSE: Duration = Duration::from_millis(1);

/// Starts a thread that answers and reports. It gets the descriptor for that from the child, by `receiver`, and ends when
/// no process has the filter any more.
///
/// # Errors
/// If the thread cannot be made.
pub fn start(receiver: OwnedFd, proc: &Path, messages: MessageQueue) -> Result<()> {
    let proc = proc.to_owned();
    let run = move || {
        let Ok(Some(listener)) = receive(&receiver) else {
            // The child has ended, and reports why.
            return;
        };
        drop(receiver);
        if let Err(errno) = answer(&listener, &proc, &messages) {
            messages.notify(format_args!(
                "error: refused system calls are no longer reported ({errno}); they remain refused"
            ));
        }
    };
    thread::Builder::new()
        .name("qfence-calls".into())
        .spawn(run)
        .context("cannot make a thread")?;
    Ok(())
}

/// Receives the descriptor; `None` if the child has ended.
fn receive(socket: &OwnedFd) -> nix::Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut message = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let flags = RecvFlags::CMSG_CLOEXEC;
    recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut byte)],
        &mut message,
        flags,
    )
    .map_err(|error| Errno::from_raw(error.raw_os_error()))?;
    let descriptors = message.drain().find_map(|part| match part {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    Ok(descriptors)
}

/// Answers until no process has the filter.
fn answer(listener: &OwnedFd, proc: &Path, messages: &MessageQueue) -> nix::Result<()> {
    // There are as many kinds as calls in the filter, and families of sockets.
    let mut told = BTreeSet::new();
    loop {
        let mut polled = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        match poll(&mut polled, PollTimeout::NONE) {
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno),
        }
        let events = polled[0].revents().unwrap_or(PollFlags::empty());
        if !events.contains(PollFlags::POLLIN) {
            return Ok(());
        }
        let Some(call) = next(listener)? else {
            continue;
        };
        refuse(listener, call.id)?;
        let name = describe(call.data.nr.into(), call.data.args[0]);
        // A process can make a hundred thousand calls a second.
        if !told.contains(&name) {
            messages.notify(format_args!(
                "refused: {} called {name}; this is reported once for each kind of call (--strict=syscalls)",
                caller(proc, call.pid)
            ));
            told.insert(name);
        } else {
            // Only the callers wait.
            thread::sleep(PAUSE);
        }
    }
}

/// The process of a call, in words.
fn caller(proc: &Path, pid: u32) -> String {
    let file: PathBuf = proc.join(pid.to_string()).join("comm");
    // A name has 16 bytes.
    match bounded::read(&file, 64) {
        Ok(name) => format!("{} ({pid})", printable(name.trim_ascii_end())),
        Err(_) => format!("process {pid}"),
    }
}

/// `SECCOMP_IOCTL_NOTIF_RECV` and `SECCOMP_IOCTL_NOTIF_SEND` of linux/seccomp.h.
mod requests {
    use nix::libc::{seccomp_notif, seccomp_notif_resp};

    nix::ioctl_readwrite!(receive, b'!', 0, seccomp_notif);
    nix::ioctl_readwrite!(send, b'!', 1, seccomp_notif_resp);
}

/// Receives a call; `None` if its caller is gone.
fn next(listener: &OwnedFd) -> nix::Result<Option<seccomp_notif>> {
    // SAFETY: a struct of integers, for which zero is a valid value; the kernel requires zeros.
    let mut call: seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one struct of this size.
    match unsafe { requests::receive(listener.as_raw_fd(), &raw mut call) } {
        Ok(_) => Ok(Some(call)),
        Err(Errno::ENOENT | Errno::EINTR) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Answers a call with EPERM.
fn refuse(listener: &OwnedFd, id: u64) -> nix::Result<()> {
    let mut answer = seccomp_notif_resp {
        id,
        val: 0,
        error: -libc::EPERM,
        flags: 0,
    };
    // SAFETY: the kernel reads one struct of this size.
    match unsafe { requests::send(listener.as_raw_fd(), &raw mut answer) } {
        // The caller is gone, or was interrupted by a signal.
        Ok(_) | Err(Errno::ENOENT | Errno::EINPROGRESS) => Ok(()),
        Err(errno) => Err(errno),
    }
}
