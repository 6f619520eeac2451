//! A thread and a queue for each sink, so that a slow or stalled sink delays neither the command nor other sinks. Lines
//! that find the queue full, and lines that cannot be written, are counted. The sink reports their number once it
//! accepts lines again.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, channel, sync_channel},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result};

use super::{
    line::{Body, Line, Missing},
    sink::Sink,
};
use crate::base::console::notify;

/// The length of the queue, in lines: at least ten seconds of lines.
const QUEUE: usize = 1024;

/// At the end, a sink that accepts no line for this long is abandoned.
const PATIENCE: Duration = Duration::from_secs(2);

enum Job {
    Write(Arc<Line>),
    /// There may be a request to reopen the sink's file.
    Wake,
}

/// One sink, from the side of the reader.
pub struct Writer {
    name: String,
    jobs: SyncSender<Job>,
    progress: Arc<Progress>,
    /// Lines that found the queue full and are not yet reported as dropped.
    dropped: Missing,
    /// The number of lines about no attempt that were passed to this sink.
    others: u64,
    /// The last line that was passed to this sink.
    last: Option<Arc<Line>>,
    /// Receives a message when all lines were handled.
    done: Receiver<()>,
}

/// The progress of the thread.
#[derive(Default)]
struct Progress {
    /// The number of handled jobs, successful or not.
    handled: AtomicU64,
    /// The number of attempts that written lines report.
    told: AtomicU64,
    /// The number of written lines about no attempt.
    others: AtomicU64,
    /// Whether the sink's file is to be reopened.
    must_reopen: AtomicBool,
}

/// What a closed sink has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// The number of attempts that its lines report.
    pub told: u64,
    /// The number of lines about no attempt that it lacks.
    pub missing_others: u64,
}

impl Writer {
    /// Starts the thread. `name` is the user's name for the sink.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(name: String, sink: Box<dyn Sink>) -> Result<Self> {
        let (jobs, received) = sync_channel(QUEUE);
        let (tell, done) = channel();
        let progress = Arc::new(Progress::default());
        let worker = Worker {
            name: name.clone(),
            sink,
            progress: Arc::clone(&progress),
            has_failed: false,
            failed: Missing::default(),
            last: None,
        };
        thread::Builder::new()
            .name("qfence-log".into())
            .spawn(move || {
                worker.run(&received);
                // After the time limit for closing, nobody receives this.
                let _ = tell.send(());
            })
            .context("cannot start the thread that writes the log")?;
        Ok(Self {
            name,
            jobs,
            progress,
            dropped: Missing::default(),
            others: 0,
            last: None,
            done,
        })
    }

    /// Queues a line, if there is room.
    pub fn write(&mut self, line: &Arc<Line>) {
        self.last = Some(Arc::clone(line));
        self.others += u64::from(is_other(line));
        if !self.tell_dropped(|dropped| Line::dropped_before(line, dropped))
            || self.jobs.try_send(Job::Write(Arc::clone(line))).is_err()
        {
            self.dropped.add(line);
        }
    }

    /// Queues a line that reports dropped ones, if there are any. Returns false if there is no room for it.
    fn tell_dropped(&mut self, line: impl FnOnce(Missing) -> Line) -> bool {
        if !self.dropped.is_nothing() {
            let line = Arc::new(line(self.dropped));
            if self.jobs.try_send(Job::Write(line)).is_err() {
                return false;
            }
            self.dropped = Missing::default();
        }
        true
    }

    /// Reopens the sink's file before the next line is written.
    pub fn reopen(&self) {
        self.progress.must_reopen.store(true, Ordering::Relaxed);
        // If the queue is full, the thread is awake or stalled, and finds the request before its next line.
        let _ = self.jobs.try_send(Job::Wake);
    }

    /// The user's name for the sink.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits until all lines are written, as long as there is progress. Returns what the sink has.
    #[must_use]
    pub fn close(mut self) -> Closed {
        if let Some(last) = self.last.take() {
            // If there is no room, the returned numbers show the difference.
            self.tell_dropped(|dropped| Line::dropped_after(&last, dropped));
        }
        let Self {
            jobs,
            progress,
            done,
            others,
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
        Closed {
            told: progress.told.load(Ordering::Relaxed),
            missing_others: others.saturating_sub(progress.others.load(Ordering::Relaxed)),
        }
    }
}

struct Worker {
    name: String,
    sink: Box<dyn Sink>,
    progress: Arc<Progress>,
    has_failed: bool,
    /// Lines that could not be written and are not yet reported as dropped.
    failed: Missing,
    /// The last line that was passed to this sink.
    last: Option<Arc<Line>>,
}

impl Worker {
    fn run(mut self, jobs: &Receiver<Job>) {
        for job in jobs {
            if self.progress.must_reopen.swap(false, Ordering::Relaxed) {
                self.reopen();
            }
            if let Job::Write(line) = job {
                self.write(line);
            }
            self.progress.handled.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(last) = self.last.take() {
            // If this fails, what [`Writer::close`] returns shows the difference.
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
                let others = u64::from(is_other(&line));
                self.progress.others.fetch_add(others, Ordering::Relaxed);
                self.has_failed = false;
            }
            Err(error) => {
                self.failed.add(&line);
                // Reported once, until a write succeeds.
                if !self.has_failed {
                    notify(format_args!(
                        "cannot write the log {}: {error}; retrying",
                        self.name
                    ));
                    self.has_failed = true;
                }
            }
        }
        self.last = Some(line);
    }

    /// Writes a line that reports the lines that failed, if there are any.
    fn tell_failed(&mut self, line: impl FnOnce(Missing) -> Line) -> io::Result<()> {
        if !self.failed.is_nothing() {
            self.sink.write(&line(self.failed))?;
            self.failed = Missing::default();
        }
        Ok(())
    }

    fn reopen(&mut self) {
        if let Err(error) = self.sink.reopen() {
            notify(format_args!(
                "cannot reopen the log {}: {error}; the previous file remains in use",
                self.name
            ));
        }
    }
}

/// The number of attempts that a line reports as part of the record. Attempts without any detail do not count.
fn tells_of(line: &Line) -> u64 {
    match line.body {
        Body::Attempt(_) | Body::Repeats(_) | Body::Folded { .. } => line.count,
        Body::Allowed(_)
        | Body::Traffic(_)
        | Body::Lookup(_)
        | Body::Open { .. }
        | Body::Lost
        | Body::Dropped { .. } => 0,
    }
}

/// Whether a line is about no attempt.
fn is_other(line: &Line) -> bool {
    line.count == 0 && !matches!(line.body, Body::Dropped { .. })
}

#[cfg(test)]
mod tests;
