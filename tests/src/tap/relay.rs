//! A guest with the kernel's network stack, and without a machine: a namespace whose network card is a tap device, and a
//! thread that carries each frame between it and the host's tap device. Headers for offloads are carried as they are.

use std::{
    io::ErrorKind,
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use super::{Header, Tap, scene::open_tap};
use crate::namespace::Namespace;

/// The time after which the thread looks whether it is to end, in milliseconds.
const LOOK: u16 = 20;

/// The guest's network card.
pub const CARD: &str = "eth0";

/// A running relay. It ends when dropped.
#[derive(Debug)]
pub struct Relay {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Makes the card of `guest` and joins it to a device of `host`.
    pub fn start(
        host: &Namespace,
        device: &str,
        guest: &Namespace,
        header: Header,
    ) -> Result<Self> {
        let outer = open_tap(host, device, header)?;
        Self::join(outer, guest, header)
    }

    /// Makes the card of `guest` and joins it to an open device.
    pub fn join(outer: Tap, guest: &Namespace, header: Header) -> Result<Self> {
        let inner = open_tap(guest, CARD, header)?;
        if header == Header::Virtio {
            outer.accept_offloads()?;
            inner.accept_offloads()?;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name("relay".into())
            .spawn(move || carry(&outer, &inner, &told))
            .context("start the relay")?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn carry(outer: &Tap, inner: &Tap, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let mut both = [outer, inner].map(|tap| PollFd::new(tap.as_fd(), PollFlags::POLLIN));
        match poll(&mut both, PollTimeout::from(LOOK)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return,
        }
        for (from, to) in [(outer, inner), (inner, outer)] {
            loop {
                match from.read() {
                    // A device that is down loses what it is sent, as a wire does that is pulled out.
                    Ok(Some(bytes)) => drop(to.write(&bytes)),
                    Ok(None) => break,
                    // The device is gone, or for the moment down (EBADFD).
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(_) => {
                        thread::sleep(std::time::Duration::from_millis(5));
                        break;
                    }
                }
            }
        }
    }
}
