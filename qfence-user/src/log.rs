//! Where refusals are written. A thread of its own writes, so that a reader that does not read holds
//! up neither the command nor the supervisor: what waits fills the ring, and the kernel counts what
//! the ring has no room for.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, Write},
    path::PathBuf,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc as done,
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::{sync::mpsc, time::timeout};

use crate::{
    record::Line,
    say::{say, write_line},
};

/// A log that writes no line for this long is not waited for at the end.
const PATIENCE: Duration = Duration::from_secs(2);

/// How many lines wait to be written before the ring is left alone: ten times what the ring holds,
/// for a burst, and memory only while there is one.
const QUEUE: usize = 8192;

/// Where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Standard error.
    Stderr,
    /// Nowhere; refusals are counted all the same.
    None,
    /// The end of a file.
    File(PathBuf),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("give a path, stderr or none".into()),
            "stderr" => Ok(Self::Stderr),
            "none" => Ok(Self::None),
            path => Ok(Self::File(path.into())),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stderr => f.write_str("stderr"),
            Self::None => f.write_str("none"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// How.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A line that reads
    Text,
    /// One JSON object a line
    Json,
}

/// The log of one fence.
pub struct Log {
    /// `None` for a log that goes nowhere.
    writer: Option<Writer>,
}

struct Writer {
    lines: mpsc::Sender<Line>,
    progress: Arc<Progress>,
    /// Gets a word when all lines have been taken care of.
    done: done::Receiver<()>,
}

/// How far the writing thread has come.
#[derive(Default)]
struct Progress {
    /// Lines taken care of, for better or worse.
    handled: AtomicU64,
    /// Refusals written.
    written: AtomicU64,
}

enum Out {
    Stderr,
    File(File),
}

impl Log {
    /// Opens the log.
    ///
    /// # Errors
    /// If the file cannot be opened for appending.
    pub fn open(target: &Target, format: Format) -> Result<Self> {
        let out = match target {
            Target::None => {
                return Ok(Self { writer: None });
            }
            Target::Stderr => Out::Stderr,
            Target::File(path) => Out::File(
                OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(path)
                    .with_context(|| format!("cannot open the log {}", path.display()))?,
            ),
        };
        Ok(Self {
            writer: Some(Writer::start(out, format)?),
        })
    }

    /// Hands over a line, and waits for room if there is none.
    pub async fn write(&self, line: Line) {
        if let Some(writer) = &self.writer {
            // The thread ends only when this sender is gone.
            let _ = writer.lines.send(line).await;
        }
    }

    /// Hands over a line if there is room; whether there was.
    #[must_use]
    pub fn try_write(&self, line: Line) -> bool {
        self.writer
            .as_ref()
            .is_none_or(|writer| writer.lines.try_send(line).is_ok())
    }

    /// Waits for `future`, as long as lines are being written: a slow disk gets its time, and a pipe
    /// that nobody reads does not. `None` if nothing has moved for [`PATIENCE`].
    pub async fn while_it_moves<F: Future + Unpin>(&self, mut future: F) -> Option<F::Output> {
        loop {
            let before = self.handled();
            match timeout(PATIENCE, &mut future).await {
                Ok(output) => return Some(output),
                Err(_) if self.handled() == before => return None,
                Err(_) => {}
            }
        }
    }

    /// Waits until all is written, as long as lines are being written; returns how many refusals
    /// were, or `None` for a log that goes nowhere.
    #[must_use]
    pub fn close(self) -> Option<u64> {
        let Writer {
            lines,
            progress,
            done,
        } = self.writer?;
        drop(lines);
        let handled = || progress.handled.load(Ordering::Relaxed);
        let mut before = None;
        while before != Some(handled()) {
            before = Some(handled());
            if done.recv_timeout(PATIENCE).is_ok() {
                break;
            }
        }
        Some(progress.written.load(Ordering::Relaxed))
    }

    fn handled(&self) -> u64 {
        self.writer
            .as_ref()
            .map_or(0, |writer| writer.progress.handled.load(Ordering::Relaxed))
    }
}

impl Writer {
    fn start(mut out: Out, format: Format) -> Result<Self> {
        let (lines, mut received) = mpsc::channel::<Line>(QUEUE);
        let (tell, done) = done::channel();
        let progress = Arc::new(Progress::default());
        let count = Arc::clone(&progress);
        thread::Builder::new()
            .name("qfence-log".into())
            .spawn(move || {
                let mut told = false;
                while let Some(line) = received.blocking_recv() {
                    match (out.write(&line, format), line) {
                        (Ok(()), Line::Refused(_)) => {
                            count.written.fetch_add(1, Ordering::Relaxed);
                        }
                        (Err(error), _) if !told => {
                            say(format_args!("cannot write the log: {error}; trying on"));
                            told = true;
                        }
                        _ => {}
                    }
                    count.handled.fetch_add(1, Ordering::Relaxed);
                }
                // Nobody listens when the time to close was over.
                let _ = tell.send(());
            })
            .context("cannot start the thread that writes the log")?;
        Ok(Self {
            lines,
            progress,
            done,
        })
    }
}

impl Out {
    fn write(&mut self, line: &Line, format: Format) -> io::Result<()> {
        let text = match format {
            Format::Text => line.to_string(),
            Format::Json => serde_json::to_string(line)?,
        };
        match self {
            Self::Stderr => write_line(&text),
            // In one call, so that fences that share a file do not mix their lines.
            Self::File(file) => file.write_all(format!("{text}\n").as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::record::Lost;

    fn lost(lost: u64) -> Line {
        Line::Lost(Lost {
            time: Timestamp::UNIX_EPOCH,
            fence: "vm1".into(),
            lost,
        })
    }

    #[tokio::test]
    async fn a_file_is_appended_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        for count in [1, 2] {
            let log = Log::open(&Target::File(path.clone()), Format::Json).unwrap();
            log.write(lost(count)).await;
            assert_eq!(log.close(), Some(0), "losses are no refusals");
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 2, "{text}");
    }

    #[test]
    fn targets_are_words_or_paths() {
        assert_eq!("stderr".parse(), Ok(Target::Stderr));
        assert_eq!("none".parse(), Ok(Target::None));
        assert_eq!("./none".parse(), Ok(Target::File("./none".into())));
        assert!("".parse::<Target>().is_err());
    }
}
