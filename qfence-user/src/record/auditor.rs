//! The thread that reads the attempts of a fence while its command runs, and passes the lines to the sinks.

use std::{
    io::{PipeReader, PipeWriter, Write as _, pipe},
    os::fd::AsFd as _,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{
    line::Line,
    port_hints::PortHints,
    reader::Reader,
    writer::{Closed, Writer},
};
use crate::{base::console::notify, kernel::Counts};

/// The interval between summaries of the counts.
const TICK: Duration = Duration::from_secs(1);

/// The pause after an error.
const PAUSE: Duration = Duration::from_millis(100);

/// A message to the thread: reopen the sinks' files. The thread ends when the pipe is closed.
const REOPEN: u8 = b'r';

/// A message to the thread: look for times that the target was open.
const OPEN: u8 = b'o';

/// The thread, from the supervisor's side.
pub struct Auditor {
    words: PipeWriter,
    opened: Sender<u64>,
    thread: JoinHandle<Ended>,
}

/// The final counts.
pub struct Ended {
    /// The kernel's counts.
    pub counts: Counts,
    /// The number of attempts that these do not have: those of the second layer for frames.
    pub beside: u64,
    /// What each sink has, by name.
    pub sinks: Vec<(String, Closed)>,
}

impl Auditor {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(reader: Reader, writers: Vec<Writer>) -> Result<Self> {
        let (heard, words) = pipe().context("cannot make a pipe")?;
        let (opened, times) = channel();
        let worker = Worker {
            reader,
            writers,
            heard,
            opened: times,
            hints: PortHints::default(),
        };
        let thread = thread::Builder::new()
            .name("qfence-audit".into())
            .spawn(move || worker.run())
            .context("cannot start the thread that reads the attempts")?;
        Ok(Self {
            words,
            opened,
            thread,
        })
    }

    /// Makes the sinks reopen their files.
    pub fn reopen(&mut self) {
        if let Err(error) = self.words.write_all(&[REOPEN]) {
            notify(format_args!("cannot reopen the logs: {error}"));
        }
    }

    /// Has the record say that the target was open for so long before its fence, in milliseconds.
    ///
    /// # Errors
    /// If the thread has ended.
    pub fn tell_open(&mut self, milliseconds: u64) -> Result<()> {
        let sent = self.opened.send(milliseconds);
        sent.context("the thread that reads the attempts has ended")?;
        self.words
            .write_all(&[OPEN])
            .context("cannot write to a pipe")
    }

    /// Waits until every attempt so far is reported, and each sink has written its lines or has stalled.
    ///
    /// # Errors
    /// If the thread has failed.
    pub fn finish(self) -> Result<Ended> {
        drop(self.words);
        self.thread
            .join()
            .map_err(|_| anyhow!("the thread that reads the attempts has failed"))
    }
}

struct Worker {
    reader: Reader,
    writers: Vec<Writer>,
    heard: PipeReader,
    opened: Receiver<u64>,
    hints: PortHints,
}

impl Worker {
    fn run(mut self) -> Ended {
        let mut next = Instant::now() + TICK;
        loop {
            match self.wait(next) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    notify(format_args!("error: {error:#}"));
                    thread::sleep(PAUSE);
                }
            }
            self.events();
            if Instant::now() >= next {
                self.summarize();
                next = Instant::now() + TICK;
            }
        }
        self.events();
        match self.reader.finish() {
            Ok(lines) => self.hand_out(&lines),
            Err(error) => notify(format_args!("error: {error:#}")),
        }
        let counts = self.reader.counts().unwrap_or_else(|error| {
            notify(format_args!("error: {error:#}"));
            Counts::default()
        });
        let close = |writer: Writer| (writer.name().to_owned(), writer.close());
        Ended {
            counts,
            beside: self.reader.beside(),
            sinks: self.writers.into_iter().map(close).collect(),
        }
    }

    /// Waits for events, a message, or the given time. Returns false if the sender of messages is gone.
    fn wait(&mut self, until: Instant) -> Result<bool> {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left + Duration::from_millis(1))?;
        let mut polled = vec![
            PollFd::new(self.heard.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.reader.attempts().as_fd(), PollFlags::POLLIN),
        ];
        let lookups = self.reader.lookups().map(|lookups| lookups.as_fd());
        polled.extend(lookups.map(|lookups| PollFd::new(lookups, PollFlags::POLLIN)));
        match poll(&mut polled, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("cannot wait for attempts"),
        }
        let words = polled.first().and_then(PollFd::revents);
        let said = words.unwrap_or(PollFlags::empty());
        if said.contains(PollFlags::POLLIN) {
            return self.hear();
        }
        Ok(!said.contains(PollFlags::POLLHUP))
    }

    fn hear(&mut self) -> Result<bool> {
        let mut words = [0; 64];
        let count =
            std::io::Read::read(&mut self.heard, &mut words).context("cannot read a pipe")?;
        if words[..count].contains(&REOPEN) {
            for writer in &self.writers {
                writer.reopen();
            }
        }
        for milliseconds in self.opened.try_iter() {
            self.reader.tell_open(milliseconds);
        }
        Ok(count > 0)
    }

    fn events(&mut self) {
        loop {
            let (lines, more) = self.reader.events();
            self.hand_out(&lines);
            if !more {
                return;
            }
        }
    }

    fn summarize(&mut self) {
        match self.reader.summarize() {
            Ok(lines) => self.hand_out(&lines),
            Err(error) => notify(format_args!("error: {error:#}")),
        }
    }

    fn hand_out(&mut self, lines: &[Arc<Line>]) {
        for line in lines {
            if let Some(hint) = self.hints.of(line) {
                notify(hint);
            }
            for writer in &mut self.writers {
                writer.write(line);
            }
        }
    }
}
