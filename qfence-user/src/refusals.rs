//! Takes refusals out of the ring and hands them to the log.

use std::sync::Arc;

use anyhow::{Context, Result};
use aya::maps::{MapData, RingBuf};
use qfence_common::{Event, abi::EVENTS_BYTES};
use tokio::{io::unix::AsyncFd, sync::oneshot};

use crate::{
    log::Log,
    policy::names::Known,
    readable::readable,
    record::{Line, Record, boot_time},
    say::say,
};

/// As many records as the ring can hold: header and event, 80 bytes each.
const RING_FULL: usize = EVENTS_BYTES as usize / 80;

/// How many records are handled before others get their turn.
const BATCH: usize = 256;

/// The refusals of one fence on their way from the ring to the log.
pub struct Refusals {
    ring: AsyncFd<RingBuf<MapData>>,
    fence: Arc<str>,
    names: Known,
}

impl Refusals {
    /// Takes over the ring. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If the ring cannot be polled.
    pub fn new(ring: RingBuf<MapData>, fence: Arc<str>, names: Known) -> Result<Self> {
        let ring = readable(ring).context("cannot poll the ring of refusals")?;
        Ok(Self { ring, fence, names })
    }

    /// Logs refusals as they come, until `stop`; then those that are there already.
    pub(crate) async fn pump(mut self, log: &Log, mut stop: oneshot::Receiver<()>) -> Result<()> {
        loop {
            tokio::select! {
                ready = self.ring.readable_mut() => {
                    ready.context("cannot poll the ring of refusals")?.clear_ready();
                    while self.log_some(log, BATCH).await == BATCH {
                        tokio::task::yield_now().await;
                    }
                }
                _ = &mut stop => {
                    // What is kept in the fence may go on being refused: one ringful is the end.
                    self.log_some(log, RING_FULL).await;
                    return Ok(());
                }
            }
        }
    }

    /// Logs at most `most` refusals; returns how many there were.
    async fn log_some(&mut self, log: &Log, most: usize) -> usize {
        let boot_time = boot_time();
        let names = self.names.now();
        for logged in 0..most {
            let Some(item) = self.ring.get_mut().next() else {
                return logged;
            };
            let event = Event::from_bytes(&item);
            drop(item);
            match event {
                Some(event) => {
                    let record = Record::new(&event, &self.fence, names, boot_time);
                    log.write(Line::Refused(record)).await;
                }
                None => say("a record of an unknown size came out of the ring of refusals"),
            }
        }
        most
    }
}
