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
mod tests {
    use std::sync::Mutex;

    use qfence_common::{Hook, address::from_v4};

    use super::*;
    use crate::record::line::tests::line;

    /// A sink that takes lines only when it may.
    struct Slow {
        may_go_on: Receiver<()>,
        written: Arc<Mutex<Vec<Line>>>,
    }

    impl Sink for Slow {
        fn write(&mut self, line: &Line) -> io::Result<()> {
            // Whoever holds the other end may be gone: then it may always go on.
            let _ = self.may_go_on.recv();
            self.written.lock().unwrap().push(line.clone());
            Ok(())
        }
    }

    fn numbered(seq: u64) -> Arc<Line> {
        Arc::new(Line {
            seq,
            count: 2,
            total: 2 * seq,
            ..line(Hook::Connect4, from_v4([127, 0, 0, 1]), 6, 22, 1)
        })
    }

    #[test]
    fn what_finds_the_queue_full_is_counted_and_said() {
        let (go_on, may_go_on) = channel();
        let written = Arc::new(Mutex::new(Vec::new()));
        let sink = Slow {
            may_go_on,
            written: Arc::clone(&written),
        };
        let mut writer = Writer::start("slow".into(), Box::new(sink)).unwrap();
        let lines = QUEUE as u64 + 500;
        for seq in 1..=lines {
            writer.write(&numbered(seq));
        }
        assert!(writer.dropped > 0);
        drop(go_on);
        while writer.dropped > 0 {
            thread::sleep(Duration::from_millis(1));
            writer.write(&numbered(lines + 1));
        }
        writer.write(&numbered(lines + 2));
        let told = writer.close();
        let written = written.lock().unwrap();
        let said: u64 = written
            .iter()
            .filter(|line| line.body == Body::Dropped)
            .map(|line| line.count)
            .sum();
        assert!(said >= 2 * 400, "{said}");
        let all: u64 = written.iter().map(|line| line.count).sum();
        assert_eq!(told, all - said);
    }

    /// A sink that fails when it is told to.
    struct Failing {
        fails: Arc<Mutex<bool>>,
        written: Arc<Mutex<Vec<Line>>>,
    }

    impl Sink for Failing {
        fn write(&mut self, line: &Line) -> io::Result<()> {
            if *self.fails.lock().unwrap() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.written.lock().unwrap().push(line.clone());
            Ok(())
        }
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_said_where_the_next_can_be() {
        for last in [4, 5] {
            let fails = Arc::new(Mutex::new(false));
            let written = Arc::new(Mutex::new(Vec::new()));
            let sink = Failing {
                fails: Arc::clone(&fails),
                written: Arc::clone(&written),
            };
            let mut writer = Writer::start("full".into(), Box::new(sink)).unwrap();
            let handled = Arc::clone(&writer.progress);
            for seq in 1..=last {
                // Two in the middle fail; and where there is no fifth, the end is to say so.
                *fails.lock().unwrap() = seq == 3 || seq == 4;
                writer.write(&numbered(seq));
                while handled.handled.load(Ordering::Relaxed) < seq {
                    thread::yield_now();
                }
            }
            *fails.lock().unwrap() = false;
            let told = writer.close();
            let written = written.lock().unwrap();
            let seen: Vec<_> = written
                .iter()
                .map(|line| (line.body == Body::Dropped, line.seq, line.count, line.total))
                .collect();
            let all = [
                (false, 1, 2, 2),
                (false, 2, 2, 4),
                (true, 4, 4, 8),
                (false, 5, 2, 10),
            ];
            let count = usize::try_from(last - 1).unwrap();
            assert_eq!(seen, all[..count]);
            assert_eq!(told, 2 * (last - 2));
        }
    }

    #[test]
    fn a_sink_that_takes_nothing_is_not_waited_for() {
        let (_go_on, may_go_on) = channel();
        let sink = Slow {
            may_go_on,
            written: Arc::default(),
        };
        let mut writer = Writer::start("stuck".into(), Box::new(sink)).unwrap();
        writer.write(&numbered(1));
        assert_eq!(writer.close(), 0);
    }
}
