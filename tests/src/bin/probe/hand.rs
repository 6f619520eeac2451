//! Hands an open file to another process, in a message of a Unix socket.

use std::{
    fs::OpenOptions,
    io::{IoSlice, IoSliceMut},
    os::{
        fd::{AsRawFd as _, RawFd},
        unix::net::{UnixListener, UnixStream},
    },
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg},
};

/// Opens a file and hands it to who listens at a path.
pub(crate) fn give(path: &str, file: &str) -> Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(file);
    let file = file.context("open the file")?;
    let stream = UnixStream::connect(path).context("connect")?;
    let given = [file.as_raw_fd()];
    let message = [ControlMessage::ScmRights(&given)];
    let bytes = [IoSlice::new(b"!")];
    sendmsg::<()>(
        stream.as_raw_fd(),
        &bytes,
        &message,
        MsgFlags::empty(),
        None,
    )?;
    Ok(())
}

/// Listens at a path. Prints `listening`, and then for each message `taken` or `nothing`, until it is killed.
pub(crate) fn take(path: &str) -> Result<()> {
    let listener = UnixListener::bind(path).context("listen")?;
    crate::print("listening")?;
    loop {
        let (stream, _) = listener.accept()?;
        let mut byte = [0];
        let mut bytes = [IoSliceMut::new(&mut byte)];
        let mut space = nix::cmsg_space!(RawFd);
        let received = recvmsg::<()>(
            stream.as_raw_fd(),
            &mut bytes,
            Some(&mut space),
            MsgFlags::empty(),
        )?;
        // The descriptor stays open. Without it, the message is cut off.
        let is_taken = match received.cmsgs() {
            Err(Errno::ENOBUFS) => false,
            messages => messages?.any(
                |message| matches!(message, ControlMessageOwned::ScmRights(all) if !all.is_empty()),
            ),
        };
        crate::print(if is_taken { "taken" } else { "nothing" })?;
    }
}
