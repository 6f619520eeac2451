//! Says lines without waiting for whoever shows them.
//!
//! A terminal whose output is stopped (Ctrl-S, or tcflow(3) by a process in the fence) and a pipe that nobody reads
//! block whoever writes to them. That must not be what follows the host's addresses.

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

/// How many lines wait. What finds no room is counted, and that is said when there is.
const QUEUE: usize = 64;

/// How long the last lines are waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// A thread that says lines, as whoever has some sees it.
#[derive(Clone, Debug)]
pub struct MessageQueue {
    words: Sender<Word>,
    queue: Arc<Queue>,
}

#[derive(Debug)]
enum Word {
    Line(String),
    /// All before it is said: whoever waits for that gets a word.
    Said(Sender<()>),
}

#[derive(Debug, Default)]
struct Queue {
    /// Lines that are not said yet.
    waiting: AtomicUsize,
    /// Lines that found no room since the last one that did.
    unsaid: AtomicU64,
}

impl MessageQueue {
    /// Starts it; `show` shows a line, however long that takes.
    ///
    /// # Errors
    /// If there can be no thread.
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
                        // Whoever waited may have lost patience.
                        Word::Said(tell) => drop(tell.send(())),
                    }
                }
            })
            .context("cannot start the thread that says what fails")?;
        Ok(Self { words, queue })
    }

    /// Says a line if there is room for one more. Never waits.
    pub fn notify(&self, message: impl Display) {
        let unsaid = self.queue.unsaid.swap(0, Ordering::Relaxed);
        if unsaid > 0 && !self.queue(format!("{unsaid} lines found no room here and are lost")) {
            self.queue.unsaid.fetch_add(unsaid + 1, Ordering::Relaxed);
            return;
        }
        if !self.queue(message.to_string()) {
            self.queue.unsaid.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Says an error; the value if there was none.
    pub fn report<T>(&self, result: Result<T>) -> Option<T> {
        result
            .map_err(|error| self.notify(format_args!("{error:#}")))
            .ok()
    }

    /// Waits until all that was said up to now is shown, as long as the last lines are waited for.
    pub fn flush(&self) {
        let (tell, said) = channel();
        if self.words.send(Word::Said(tell)).is_ok() {
            // Those who show nothing are left to it.
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
        // Whoever says it.
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
            lost.ends_with(" lines found no room here and are lost"),
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
