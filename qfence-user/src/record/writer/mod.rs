//! A thread and a queue for one sink, so that one that is slow, or takes nothing, holds up neither the command nor
//! the other sinks. What finds the queue full, and what cannot be written, is counted, and said in the same place once
//! there is room.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, channel, sync_channel},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result};

use super::{
    line::{Body, Line},
    sink::Sink,
};
use crate::base::console::notify;

/// How many lines wait to be written: those of ten seconds at most.
const QUEUE: usize = 1024;

/// A sink that takes no line for this long is not waited for at the end.
const PATIENCE: Duration = Duration::from_secs(2);

enum Job {
    Write(Arc<Line>),
    Reopen,
}

/// One sink, as whoever has lines sees it.
pub struct Writer {
    name: String,
    jobs: SyncSender<Job>,
    progress: Arc<Progress>,
    /// Attempts whose lines found the queue full and are not yet said to have.
    dropped: u64,
    /// The last line that was to be written.
    last: Option<Arc<Line>>,
    /// Gets a word when all lines have been taken care of.
    done: Receiver<()>,
}

/// How far the thread has come.
#[derive(Default)]
struct Progress {
    /// Jobs taken care of, for better or worse.
    handled: AtomicU64,
    /// Attempts that written lines tell of, one by one or in sum.
    told: AtomicU64,
}

impl Writer {
    /// Starts the thread. `name` is what the user calls the sink.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(name: String, sink: Box<dyn Sink>) -> Result<Self> {
        let (jobs, received) = sync_channel(QUEUE);
        let (tell, done) = channel();
        let progress = Arc::new(Progress::default());
        let worker = Worker {
            name: name.clone(),
            sink,
            progress: Arc::clone(&progress),
            has_failed: false,
            failed: 0,
            last: None,
        };
        thread::Builder::new()
            .name("qfence-log".into())
            .spawn(move || {
                worker.run(&received);
                // Nobody listens when the time to close was over.
                let _ = tell.send(());
            })
            .context("cannot start the thread that writes the log")?;
        Ok(Self {
            name,
            jobs,
            progress,
            dropped: 0,
            last: None,
            done,
        })
    }

    /// Hands over a line, if there is room for it.
    pub fn write(&mut self, line: &Arc<Line>) {
        self.last = Some(Arc::clone(line));
        if !self.tell_dropped(|dropped| Line::dropped_before(line, dropped))
            || self.jobs.try_send(Job::Write(Arc::clone(line))).is_err()
        {
            self.dropped += line.count;
        }
    }

    /// Says how many attempts were dropped, if some were; whether there was room for that.
    fn tell_dropped(&mut self, line: impl FnOnce(u64) -> Line) -> bool {
        if self.dropped > 0 {
            let line = Arc::new(line(self.dropped));
            if self.jobs.try_send(Job::Write(line)).is_err() {
                return false;
            }
            self.dropped = 0;
        }
        true
    }

    /// Has what is there under the sink's name opened anew, before the next line is written.
    pub fn reopen(&self) {
        // With the queue full it is behind anyway: the next one comes through.
        let _ = self.jobs.try_send(Job::Reopen);
    }

    /// What the user calls it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits until all is written, as long as lines are being written; returns of how many attempts the sink
    /// tells.
    #[must_use]
    pub fn close(mut self) -> u64 {
        if let Some(last) = self.last.take() {
            // If there is no room, the sum says it at the end.
            self.tell_dropped(|dropped| Line::dropped_after(&last, dropped));
        }
        let Self {
            jobs,
            progress,
            done,
            ..
        } = self;
        drop(jobs);
        let handled = || progress.handled.load(Ordering::Relaxed);
        let mut before = None;
        while before != Some(handled()) {
            before = Some(handled());
            if done.recv_timeout(PATIENCE).is_ok() {
                break;
            }
        }
        progress.told.load(Ordering::Relaxed)
    }
}

struct Worker {
    name: String,
    sink: Box<dyn Sink>,
    progress: Arc<Progress>,
    has_failed: bool,
    /// Attempts whose lines could not be written, and are not yet said to be missing.
    failed: u64,
    /// The last line that was to be written.
    last: Option<Arc<Line>>,
}

impl Worker {
    fn run(mut self, jobs: &Receiver<Job>) {
        for job in jobs {
            match job {
                Job::Write(line) => self.write(line),
                Job::Reopen => self.reopen(),
            }
            self.progress.handled.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(last) = self.last.take() {
            // If it cannot be written, the sum says it at the end.
            let _ = self.tell_failed(|failed| Line::dropped_after(&last, failed));
        }
    }

    fn write(&mut self, line: Arc<Line>) {
        let written = self
            .tell_failed(|failed| Line::dropped_before(&line, failed))
            .and_then(|()| self.sink.write(&line));
        match written {
            Ok(()) => {
                let told = tells_of(&line);
                self.progress.told.fetch_add(told, Ordering::Relaxed);
                self.has_failed = false;
            }
            Err(error) => {
                self.failed += line.count;
                // Said once, until it works again.
                if !self.has_failed {
                    notify(format_args!(
                        "cannot write the log {}: {error}; trying on",
                        self.name
                    ));
                    self.has_failed = true;
                }
            }
        }
        self.last = Some(line);
    }

    /// Says how many attempts' lines could not be written, if some could not.
    fn tell_failed(&mut self, line: impl FnOnce(u64) -> Line) -> io::Result<()> {
        if self.failed > 0 {
            self.sink.write(&line(self.failed))?;
            self.failed = 0;
        }
        Ok(())
    }

    fn reopen(&mut self) {
        if let Err(error) = self.sink.reopen() {
            notify(format_args!(
                "cannot open the log {} anew: {error}; going on with the one that is open",
                self.name
            ));
        }
    }
}

/// Of how many attempts a line tells what they were, or at least that there were more of them than lines.
fn tells_of(line: &Line) -> u64 {
    match line.body {
        Body::Attempt(_) | Body::Repeats(_) | Body::Folded { .. } => line.count,
        Body::Lost | Body::Dropped => 0,
    }
}

#[cfg(test)]
mod tests;
