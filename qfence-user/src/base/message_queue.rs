//! Prints lines without waiting for the terminal.
//!
//! A terminal whose output is stopped (Ctrl-S, or tcflow(3) by a process in the fence) and a pipe without a reader
//! block every writer. The thread that follows the host's addresses must not be blocked.

use std::{
    fmt::Display,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{Sender, channel},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result};

/// The most lines that wait. Further lines are counted, and the count is printed later.
const QUEUE: usize = 64;

/// How long [`MessageQueue::flush`] waits.
const PATIENCE: Duration = Duration::from_secs(2);

/// A handle of the thread that prints lines.
#[derive(Clone, Debug)]
pub struct MessageQueue {
    words: Sender<Word>,
    queue: Arc<Queue>,
}

#[derive(Debug)]
enum Word {
    Line(String),
    /// A request to answer when all earlier lines are printed.
    Said(Sender<()>),
}

#[derive(Debug, Default)]
struct Queue {
    /// The number of lines that are not printed yet.
    waiting: AtomicUsize,
    /// The number of lines that were dropped since the last one that was queued.
    unsaid: AtomicU64,
}

impl MessageQueue {
    /// Starts the thread. `show` prints a line, however long that takes.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(mut show: impl FnMut(&str) + Send + 'static) -> Result<Self> {
        let (words, received) = channel();
        let queue = Arc::new(Queue::default());
        let shown = Arc::clone(&queue);
        thread::Builder::new()
            .name("qfence-messages".into())
            .spawn(move || {
                for word in received {
                    match word {
                        Word::Line(line) => {
                            show(&line);
                            shown.waiting.fetch_sub(1, Ordering::Relaxed);
                        }
                        // The other side may have stopped waiting.
                        Word::Said(tell) => drop(tell.send(())),
                    }
                }
            })
            .context("cannot start the thread that prints messages")?;
        Ok(Self { words, queue })
    }

    /// Queues a line, or counts it as dropped if the queue is full. Never waits.
    pub fn notify(&self, message: impl Display) {
        let unsaid = self.queue.unsaid.swap(0, Ordering::Relaxed);
        if unsaid > 0
            && !self.queue(format!(
                "{unsaid} messages were dropped: the queue was full"
            ))
        {
            self.queue.unsaid.fetch_add(unsaid + 1, Ordering::Relaxed);
            return;
        }
        if !self.queue(message.to_string()) {
            self.queue.unsaid.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Prints an error; returns the value if there was none.
    pub fn report<T>(&self, result: Result<T>) -> Option<T> {
        result
            .map_err(|error| self.notify(format_args!("{error:#}")))
            .ok()
    }

    /// Waits until all queued lines are printed, for at most [`PATIENCE`].
    pub fn flush(&self) {
        let (tell, said) = channel();
        if self.words.send(Word::Said(tell)).is_ok() {
            // If nothing is printed in time, the lines are left to the thread.
            let _ = said.recv_timeout(PATIENCE);
        }
    }

    fn queue(&self, line: String) -> bool {
        let waiting = &self.queue.waiting;
        if waiting.fetch_add(1, Ordering::Relaxed) < QUEUE
            && self.words.send(Word::Line(line)).is_ok()
        {
            return true;
        }
        waiting.fetch_sub(1, Ordering::Relaxed);
        false
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn whoever_says_something_does_not_wait_and_what_is_lost_is_counted() {
        let said = Arc::new(Mutex::new(Vec::new()));
        let stopped = said.lock().unwrap();
        let lines = Arc::clone(&said);
        let messages =
            MessageQueue::start(move |line| lines.lock().unwrap().push(line.to_owned())).unwrap();
        // From whatever thread.
        let other = messages.clone();
        for number in 0..QUEUE {
            messages.notify(number);
            other.notify(number);
        }
        let unsaid = messages.queue.unsaid.load(Ordering::Relaxed);
        assert_eq!(unsaid, QUEUE as u64, "{messages:?}");
        drop(stopped);
        messages.flush();
        other.notify("last");
        messages.flush();
        let said = said.lock().unwrap();
        let [first, .., lost, last] = &said[..] else {
            panic!("{said:?}");
        };
        assert_eq!(first, "0");
        assert!(
            lost.ends_with(" messages were dropped: the queue was full"),
            "{lost}"
        );
        assert_eq!(last, "last");
    }

    #[test]
    fn an_error_is_said_and_a_value_is_kept() {
        let said = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&said);
        let messages =
            MessageQueue::start(move |line| lines.lock().unwrap().push(line.to_owned())).unwrap();
        assert_eq!(messages.report(Ok(7)), Some(7));
        assert_eq!(
            messages.report::<()>(Err(anyhow::anyhow!("no").context("cannot"))),
            None
        );
        messages.flush();
        assert_eq!(said.lock().unwrap()[..], ["cannot: no"]);
    }

    #[test]
    fn what_is_never_shown_is_not_waited_for() {
        let stopped = Arc::new(Mutex::new(()));
        let held = stopped.lock().unwrap();
        let shows = Arc::clone(&stopped);
        let messages = MessageQueue::start(move |_| drop(shows.lock())).unwrap();
        messages.notify("never");
        messages.flush();
        drop(held);
    }
}
