//! Ends TCP connections whose first packet the packet layer refused: their owners get ECONNABORTED at once.
//!
//! The call layer refuses a connect() with an error. Some connections only the packet layer can refuse, because NAT or a
//! route leads them to the host. A program for packets drops the SYN, and `tcp_connect` (net/ipv4/tcp_output.c) takes
//! notice of no error but ECONNREFUSED, which such a program cannot return: `bpf_set_retval` is not available to it
//! (`cgroup_common_func_proto` in kernel/bpf/cgroup.c). So TCP would send the SYN again, for two minutes.

use std::{
    collections::HashSet,
    net::SocketAddr,
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use qfence_common::Protocol;

use super::established::{self, Connection};
use crate::{base::message_queue::MessageQueue, fence::cgroup::Cgroup, kernel::RefusedSyns};

/// The pause between two searches. A guest that scans ports through NAT makes them as often as it likes.
const PAUSE: Duration = Duration::from_millis(100);

/// The inputs of the thread.
pub struct Ender {
    /// The refused connections.
    pub syns: RefusedSyns,
    /// The cgroup of the fence.
    pub cgroup: Cgroup,
    /// The fence's storage of the owner of each socket.
    pub owners: OwnedFd,
    /// This executable, which is run as a helper.
    pub program: PathBuf,
    /// The queue for error messages.
    pub messages: MessageQueue,
}

impl Ender {
    /// Starts a thread that ends them. It lives as long as this process, and never waits for the lock of a socket: a helper
    /// does (`established/`). If processes of the fence keep the locks of such sockets, other connections are refused by a
    /// time-out meanwhile.
    ///
    /// # Errors
    /// If the thread cannot be made.
    pub fn start(mut self) -> Result<()> {
        let run = move || {
            let mut has_failed = false;
            loop {
                let result = self.end_next();
                if let Err(error) = &result
                    && !has_failed
                {
                    let error = error.root_cause();
                    self.messages.notify(format_args!(
                        "warning: connections that only the packet layer refuses end by a time-out: {error}"
                    ));
                }
                has_failed |= result.is_err();
                thread::sleep(PAUSE);
            }
        };
        thread::Builder::new()
            .name("qfence-refused".into())
            .spawn(run)
            .context("cannot make a thread")?;
        Ok(())
    }

    /// Waits for refused connections, and ends them.
    fn end_next(&mut self) -> Result<()> {
        let mut polled = [PollFd::new(self.syns.as_fd(), PollFlags::POLLIN)];
        match poll(&mut polled, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut refused: HashSet<(SocketAddr, SocketAddr)> = HashSet::new();
        while let Some(connection) = self.syns.connection()? {
            refused.insert(connection);
        }
        if refused.is_empty() {
            return Ok(());
        }
        let is_refused = |connection: &Connection| {
            connection.protocol == Protocol::TCP
                && refused.contains(&(connection.local, connection.remote))
        };
        let owners = self.owners.as_fd();
        established::end(&self.program, &self.cgroup, owners, is_refused).map(drop)
    }
}
