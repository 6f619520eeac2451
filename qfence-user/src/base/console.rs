//! Prints qfence's own messages on standard error.

use std::{
    fs::File,
    io::{self, IsTerminal},
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context as _, Result};
use nix::{
    sys::termios::{LocalFlags, OutputFlags, tcgetattr},
    unistd::{dup2_stderr, dup2_stdin, dup2_stdout},
};
use terminal_size::{Width, terminal_size_of};

use crate::base::{
    lines::Lines, message_queue::MessageQueue, printable::printable_lines, system_log,
};

/// The queue for messages, once no thread of this process may wait for the terminal.
static QUEUE: OnceLock<MessageQueue> = OnceLock::new();

/// Whether standard error ends within a line. Locked while standard error is locked.
static LINES: Mutex<Lines> = Mutex::new(Lines::within(false));

/// Prints one line, `qfence: …`. After [`never_block`] it never waits until the line is shown, in any thread.
///
/// A path or a name in the message can be one that a process in the fence has chosen.
pub fn notify(message: impl std::fmt::Display) {
    let message = printable_lines(&message.to_string());
    match QUEUE.get() {
        Some(messages) => messages.notify(message),
        None => show(&message),
    }
}

/// Makes [`notify`] queue lines instead of waiting. A process that follows the host for a fence calls this before
/// anything runs in the fence that could stop the terminal. Call [`flush`] at the end.
///
/// # Errors
/// If the thread for the queue cannot be started.
pub fn never_block() -> Result<MessageQueue> {
    if let Some(messages) = QUEUE.get() {
        return Ok(messages.clone());
    }
    let messages = MessageQueue::start(show)?;
    Ok(QUEUE.get_or_init(|| messages).clone())
}

/// Waits until queued lines are shown, for a limited time.
pub fn flush() {
    if let Some(messages) = QUEUE.get() {
        messages.flush();
    }
}

/// Whether this process has released its standard streams.
static IS_RELEASED: AtomicBool = AtomicBool::new(false);

/// Prints what is queued, for a limited time, and replaces the standard streams by /dev/null: the reader of a pipe, or a
/// terminal, does not wait for this process any more. From then on messages go to the system's log.
///
/// # Errors
/// If /dev/null cannot be opened or duplicated.
pub fn release() -> Result<()> {
    flush();
    let null = File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .context("cannot open /dev/null")?;
    IS_RELEASED.store(true, Ordering::Relaxed);
    dup2_stdin(&null)
        .and_then(|()| dup2_stdout(&null))
        .and_then(|()| dup2_stderr(&null))
        .context("cannot release the standard streams")
}

fn show(message: &str) {
    if IS_RELEASED.load(Ordering::Relaxed) {
        // As below.
        let _ = system_log::write(message);
        return;
    }
    // There is no other place to report that standard error cannot be written to.
    let _ = write_line(&format!("qfence: {message}"));
}

/// Writes one line to standard error so that it reads as one, whatever the command has done to the terminal. The
/// write can block for ever, so only threads that do nothing else call this.
///
/// In raw mode a newline does not return the carriage, the cursor may be within a line of the guest's output, and
/// long lines may be cut off (a BIOS on the serial line turns wrapping off). Then the line starts on a fresh line, is
/// folded, and gets carriage returns.
///
/// # Errors
/// Errors of the write.
pub fn write_line(line: &str) -> io::Result<()> {
    let mut stderr = io::stderr().lock();
    let text = if is_raw(&stderr) {
        let width = terminal_size_of(&stderr).map_or(80, |(Width(columns), _)| columns.into());
        format!("\r\n{}\r\n", fold(line, width).join("\r\n"))
    } else {
        format!("{line}\n")
    };
    let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    lines.write(&mut stderr, &text)
}

/// Whether a program drives the terminal character by character. Raw mode proper also turns OPOST off; QEMU turns off
/// only ICANON.
fn is_raw(stderr: &io::StderrLock<'_>) -> bool {
    stderr.is_terminal()
        && tcgetattr(stderr).is_ok_and(|settings| {
            !settings.output_flags.contains(OutputFlags::OPOST)
                || !settings.local_flags.contains(LocalFlags::ICANON)
        })
}

/// Folds a line between words into lines of at most `width` columns, and indents those after the first. A word that
/// is longer than a line stays whole.
fn fold(line: &str, width: usize) -> Vec<String> {
    let mut folded: Vec<String> = Vec::new();
    for word in line.split(' ') {
        match folded.last_mut() {
            Some(last) if last.chars().count() + 1 + word.chars().count() <= width => {
                last.push(' ');
                last.push_str(word);
            }
            Some(_) => folded.push(format!("    {word}")),
            None => folded.push(word.to_owned()),
        }
    }
    folded
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        fs,
        path::{Path, PathBuf},
    };

    use super::*;

    #[test]
    fn a_long_line_is_folded_and_nothing_is_lost() {
        assert_eq!(fold("one line", 80), ["one line"]);
        let folded = fold("refused tcp 127.0.0.1:8000 connect4 pid 4242", 20);
        assert_eq!(
            folded,
            [
                "refused tcp",
                "    127.0.0.1:8000",
                "    connect4 pid",
                "    4242"
            ]
        );
        assert_eq!(
            fold("averyverylongword x", 5),
            ["averyverylongword", "    x"]
        );
        assert_eq!(fold("", 80), [""]);
    }

    /// A write to standard error can wait for the terminal, so only [`notify`] and threads for that alone write to
    /// it.
    #[test]
    fn nobody_else_waits_for_the_terminal() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut found = BTreeSet::new();
        let mut directories = vec![root.clone()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path);
                } else if ["write_line(", "io::stderr()", "eprint"]
                    .iter()
                    .any(|word| fs::read_to_string(&path).unwrap().contains(word))
                {
                    found.insert(path.strip_prefix(&root).unwrap().to_owned());
                }
            }
        }
        // The short verify runs before anything is in the fence.
        let expected = [
            "base/console.rs",
            "record/sink/mod.rs",
            "supervise/traces.rs",
            "verify/short.rs",
        ];
        assert_eq!(found, expected.map(PathBuf::from).into());
    }
}
