//! qfence's own words, on standard error.

use std::{
    io::{self, IsTerminal},
    sync::{Mutex, OnceLock, PoisonError},
};

use anyhow::Result;
use nix::sys::termios::{LocalFlags, OutputFlags, tcgetattr};
use terminal_size::{Width, terminal_size_of};

use crate::base::{lines::Lines, message_queue::MessageQueue};

/// What says the lines of this process, once nothing in it may wait for that.
static QUEUE: OnceLock<MessageQueue> = OnceLock::new();

/// How far standard error has come; taken while that is locked.
static LINES: Mutex<Lines> = Mutex::new(Lines::within(false));

/// Prints one line, `qfence: …`. After [`never_block`] it does not wait until that is shown, in whatever thread and for
/// whatever reason it is called.
pub fn notify(message: impl std::fmt::Display) {
    match QUEUE.get() {
        Some(messages) => messages.notify(message),
        None => show(&message.to_string()),
    }
}

/// Has [`notify`] never wait any more. To be called before there is anything in a fence that could stop the terminal, by
/// whoever follows the host for it. Returns what says the lines then; [`flush`] is to be called at the end.
///
/// # Errors
/// If there can be no thread.
pub fn never_block() -> Result<MessageQueue> {
    if let Some(messages) = QUEUE.get() {
        return Ok(messages.clone());
    }
    let messages = MessageQueue::start(show)?;
    Ok(QUEUE.get_or_init(|| messages).clone())
}

/// Waits for the last words, as long as that is to be expected to help.
pub fn flush() {
    if let Some(messages) = QUEUE.get() {
        messages.flush();
    }
}

fn show(message: &str) {
    // Nowhere is left to report a standard error that cannot be written to.
    let _ = write_line(&format!("qfence: {message}"));
}

/// Writes one line to standard error so that it reads as one, whatever the command has done to the
/// terminal. Waits until it is written, which may be for ever: for threads that do nothing else.
///
/// In raw mode a newline does not return the carriage, the cursor may be anywhere in a line of the
/// guest's, and what does not fit may be cut off (a BIOS on the serial line turns wrapping off): there
/// the line gets fresh lines, carriage returns, and is folded.
///
/// # Errors
/// What the write fails with.
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

/// Whether a program drives the terminal by itself, rather than line by line. Raw mode proper is
/// without OPOST; QEMU leaves that on and turns ICANON off.
fn is_raw(stderr: &io::StderrLock<'_>) -> bool {
    stderr.is_terminal()
        && tcgetattr(stderr).is_ok_and(|settings| {
            !settings.output_flags.contains(OutputFlags::OPOST)
                || !settings.local_flags.contains(LocalFlags::ICANON)
        })
}

/// Folds a line between words into lines of at most `width` columns; those after the first are
/// indented. A word that is longer than a line stays whole.
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

    /// Who writes to standard error waits for the terminal: nobody is to but [`notify`], and threads for that alone.
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
        // The short verify is before there is anything in the fence.
        let expected = [
            "base/console.rs",
            "record/sink/mod.rs",
            "supervise/traces.rs",
            "verify/short.rs",
        ];
        assert_eq!(found, expected.map(PathBuf::from).into());
    }
}
