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
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use qfence_common::Protocol;

use super::established::{self, Connection, Dismissed, Opening};
use crate::{base::message_queue::MessageQueue, fence::cgroup::Cgroup, kernel::RefusedSyns};

/// The least pause between two searches. A guest that scans ports through NAT makes them as often as it likes.
const PAUSE: Duration = Duration::from_millis(100);

/// The pause is so many times the time that listing the connections took. A process of the fence can have many, and the
/// search counts for no limit of the fence.
const REST: u32 = 10;

/// A helper that does not end within this time waits for locked sockets. Until then, it is looked at in these intervals.
const SOON: Duration = Duration::from_secs(1);
const SHORT: Duration = Duration::from_millis(5);

/// The longest pause.
const LONGEST: Duration = Duration::from_secs(10);

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
    /// does (`established/`), in a few threads. If processes of the fence keep the locks of such sockets, no other helper is
    /// started until that one has ended, and other connections are refused by a time-out meanwhile. So there is one helper
    /// at a time, whatever the fence does.
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
                thread::sleep(result.unwrap_or(PAUSE));
            }
        };
        thread::Builder::new()
            .name("qfence-refused".into())
            .spawn(run)
            .context("cannot make a thread")?;
        Ok(())
    }

    /// Waits for refused connections, and ends them. Returns the time to wait before the next ones.
    fn end_next(&mut self) -> Result<Duration> {
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
            return Ok(PAUSE);
        }
        let is_refused = |connection: &Connection| {
            connection.protocol == Protocol::TCP
                && refused.contains(&(connection.local, connection.remote))
        };
        let owners = self.owners.as_fd();
        let (opening, ended) =
            established::end_opening(&self.program, &self.cgroup, owners, is_refused);
        let Some(Opening { helper, listing }) = opening else {
            return ended.map(|_| PAUSE);
        };
        if let Some(helper) = helper {
            self.await_end(helper);
        }
        ended.map(|_| pause(listing))
    }

    /// Waits until a helper has ended.
    fn await_end(&mut self, mut helper: Dismissed) {
        let begun = Instant::now();
        while !helper.has_ended() {
            if begun.elapsed() < SOON {
                thread::sleep(SHORT);
                continue;
            }
            thread::sleep(PAUSE);
            // TCP sends the SYNs again of those that are still being opened then.
            while matches!(self.syns.connection(), Ok(Some(_))) {}
        }
    }
}

/// The pause after a search, given how long listing the connections took.
fn pause(listing: Duration) -> Duration {
    listing.saturating_mul(REST).clamp(PAUSE, LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_takes_a_tenth_of_the_time_at_most() {
        let ms = Duration::from_millis;
        assert_eq!(pause(ms(1)), PAUSE);
        assert_eq!(pause(ms(40)), ms(400));
        assert_eq!(pause(ms(60_000)), LONGEST);
    }
}
