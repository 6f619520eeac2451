//! Says lines without waiting for whoever shows them.
//!
//! A terminal whose output is stopped (Ctrl-S, or tcflow(3) by a process in the fence) and a pipe that nobody reads
//! block whoever writes to them. That must not be what follows the host's addresses.

use std::{
    fmt::Display,
    sync::mpsc::{Receiver, SyncSender, TrySendError, channel, sync_channel},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};

use crate::say::say;

/// How many lines wait. What finds no room is counted, and that is said when there is.
const QUEUE: usize = 64;

/// How long the last lines are waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// A thread that says lines.
#[derive(Debug)]
pub struct Aside {
    lines: Option<SyncSender<String>>,
    /// Lines that found no room since the last one that did.
    unsaid: u64,
    /// Ends when all lines are said.
    done: Receiver<()>,
}

impl Aside {
    /// Starts it.
    ///
    /// # Errors
    /// If there can be no thread.
    pub fn start() -> Result<Self> {
        Self::with(|line| say(line))
    }

    fn with(mut show: impl FnMut(&str) + Send + 'static) -> Result<Self> {
        let (lines, received) = sync_channel::<String>(QUEUE);
        let (held, done) = channel();
        thread::Builder::new()
            .name("qfence-say".into())
            .spawn(move || {
                let _held = held;
                received.iter().for_each(|line| show(&line));
            })
            .context("cannot start the thread that says what fails")?;
        Ok(Self {
            lines: Some(lines),
            unsaid: 0,
            done,
        })
    }

    /// Says a line, as [`say`] does, if there is room for one more.
    pub fn say(&mut self, message: impl Display) {
        if self.unsaid > 0 {
            let unsaid = self.unsaid;
            if !self.queue(format!("{unsaid} lines found no room here and are lost")) {
                self.unsaid += 1;
                return;
            }
            self.unsaid = 0;
        }
        if !self.queue(message.to_string()) {
            self.unsaid += 1;
        }
    }

    /// Says an error; the value if there was none.
    pub fn report<T>(&mut self, result: Result<T>) -> Option<T> {
        result
            .map_err(|error| self.say(format_args!("{error:#}")))
            .ok()
    }

    fn queue(&self, line: String) -> bool {
        let Some(lines) = &self.lines else {
            return false;
        };
        match lines.try_send(line) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        self.lines = None;
        let _ = self.done.recv_timeout(PATIENCE);
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
        let mut aside =
            Aside::with(move |line| lines.lock().unwrap().push(line.to_owned())).unwrap();
        // One at most is out of the queue, and waits to be shown.
        for number in 0..2 * QUEUE {
            aside.say(number);
        }
        assert!(
            (QUEUE as u64 - 1..=QUEUE as u64).contains(&aside.unsaid),
            "{aside:?}"
        );
        drop(stopped);
        while said.lock().unwrap().len() < QUEUE {
            thread::yield_now();
        }
        aside.say("last");
        drop(aside);
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
        let mut aside =
            Aside::with(move |line| lines.lock().unwrap().push(line.to_owned())).unwrap();
        assert_eq!(aside.report(Ok(7)), Some(7));
        assert_eq!(
            aside.report::<()>(Err(anyhow::anyhow!("no").context("cannot"))),
            None
        );
        drop(aside);
        assert_eq!(said.lock().unwrap()[..], ["cannot: no"]);
    }
}
