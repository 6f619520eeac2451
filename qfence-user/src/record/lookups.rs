//! The look-ups of a fence, on their way from the resolver to the record.

use std::{
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};

use anyhow::{Context, Result};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::policy::guard::Struck;

/// The most look-ups that wait for the reader. Further ones are counted.
const WAITING: usize = 1024;

/// A look-up that was answered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LookedUp {
    /// The verdict, as in [`super::line::Lookup`].
    pub verdict: &'static str,
    /// The name.
    pub name: Arc<str>,
    /// The type that was asked for.
    pub kind: Arc<str>,
    /// The number of the rule that decided; `None` if no rule can have the name.
    pub rule: Option<u32>,
    /// The addresses in the answer.
    pub addresses: Vec<IpAddr>,
    /// The addresses that were taken out of the answer.
    pub struck: Vec<Struck>,
    /// Why there is no answer, if it failed.
    pub error: Option<Arc<str>>,
}

/// The end of the resolver. It never blocks.
#[derive(Clone, Debug)]
pub struct LookupSender {
    lookups: SyncSender<LookedUp>,
    ready: Arc<EventFd>,
    lost: Arc<AtomicU64>,
}

/// The end of the reader.
#[derive(Debug)]
pub struct LookupReceiver {
    lookups: Receiver<LookedUp>,
    ready: Arc<EventFd>,
    lost: Arc<AtomicU64>,
}

/// Makes both ends.
///
/// # Errors
/// If the event cannot be made.
pub fn channel() -> Result<(LookupSender, LookupReceiver)> {
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    let ready = EventFd::from_value_and_flags(0, flags).context("cannot make an event")?;
    let (ready, lost) = (Arc::new(ready), Arc::default());
    let (sender, receiver) = sync_channel(WAITING);
    let ends = (
        LookupSender {
            lookups: sender,
            ready: Arc::clone(&ready),
            lost: Arc::clone(&lost),
        },
        LookupReceiver {
            lookups: receiver,
            ready,
            lost,
        },
    );
    Ok(ends)
}

impl LookupSender {
    /// Sends a look-up, or counts it if the reader is behind.
    pub fn send(&self, lookup: LookedUp) {
        if self.lookups.try_send(lookup).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        // It fails only if it was written so often already that the reader will be woken.
        let _ = self.ready.write(1);
    }
}

impl LookupReceiver {
    /// Takes all that wait, and the number of those that did not fit.
    pub fn take(&self) -> (Vec<LookedUp>, u64) {
        // An error says that nothing was sent since.
        let _ = self.ready.read();
        let lookups = self.lookups.try_iter().take(WAITING).collect();
        (lookups, self.lost.swap(0, Ordering::Relaxed))
    }
}

impl AsFd for LookupReceiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ready.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    fn lookup(name: &str) -> LookedUp {
        LookedUp {
            verdict: "denied",
            name: name.into(),
            kind: "A".into(),
            rule: Some(1),
            addresses: Vec::new(),
            struck: Vec::new(),
            error: None,
        }
    }

    fn is_ready(receiver: &LookupReceiver) -> bool {
        let mut polled = [PollFd::new(receiver.as_fd(), PollFlags::POLLIN)];
        poll(&mut polled, PollTimeout::ZERO).unwrap() > 0
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let (sender, receiver) = channel().unwrap();
        assert!(!is_ready(&receiver));
        for number in 0..WAITING + 5 {
            sender.send(lookup(&format!("n{number}.example.org")));
        }
        assert!(is_ready(&receiver));
        let (taken, lost) = receiver.take();
        assert_eq!((taken.len(), lost), (WAITING, 5));
        assert!(!is_ready(&receiver));
        assert_eq!(receiver.take(), (Vec::new(), 0));
    }
}
