//! qfence's own words, on standard error.

use std::{
    io::{self, IsTerminal},
    sync::{Mutex, OnceLock, PoisonError},
};

use anyhow::Result;
use nix::sys::termios::{LocalFlags, OutputFlags, tcgetattr};
use terminal_size::{Width, terminal_size_of};

use crate::{aside::Aside, lines::Lines};

/// What says the lines of this process, once nothing in it may wait for that.
static ASIDE: OnceLock<Aside> = OnceLock::new();

/// How far standard error has come; taken while that is locked.
static LINES: Mutex<Lines> = Mutex::new(Lines::within(false));

/// Prints one line, `qfence: …`. After [`never_wait`] it does not wait until that is shown, in whatever thread and for
/// whatever reason it is called.
pub fn say(message: impl std::fmt::Display) {
    match ASIDE.get() {
        Some(aside) => aside.say(message),
        None => show(&message.to_string()),
    }
}

/// Has [`say`] never wait any more. To be called before there is anything in a fence that could stop the terminal, by
/// whoever follows the host for it. Returns what says the lines then; [`finish`] is to be called at the end.
///
/// # Errors
/// If there can be no thread.
pub fn never_wait() -> Result<Aside> {
    if let Some(aside) = ASIDE.get() {
        return Ok(aside.clone());
    }
    let aside = Aside::start(show)?;
    Ok(ASIDE.get_or_init(|| aside).clone())
}

/// Waits for the last words, as long as that is to be expected to help.
pub fn finish() {
    if let Some(aside) = ASIDE.get() {
        aside.finish();
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

/// Makes text from elsewhere (a process's name, a command line) safe to print on a terminal:
/// control characters, and bytes that are no UTF-8, become `\xNN`.
#[must_use]
pub fn printable(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() {
                let mut buffer = [0; 4];
                escape(character.encode_utf8(&mut buffer).as_bytes(), &mut out);
            } else {
                out.push(character);
            }
        }
        escape(chunk.invalid(), &mut out);
    }
    out
}

/// The beginning of a text, of at most `longest` bytes; what is cut off is marked by an ellipsis beyond them.
#[must_use]
pub fn shortened(text: String, longest: usize) -> String {
    if text.len() <= longest {
        return text;
    }
    let end = text.floor_char_boundary(longest);
    format!("{}…", &text[..end])
}

/// The words of a command, safe to print: `longest` bytes of them in all, and an ellipsis for what is left out.
#[must_use]
pub fn printable_words<'a>(
    words: impl IntoIterator<Item = &'a [u8]>,
    longest: usize,
) -> Vec<String> {
    let mut left = longest;
    let mut printed = Vec::new();
    for word in words {
        if left == 0 {
            printed.push("…".to_owned());
            break;
        }
        // No more of a word is made printable than is looked at.
        let word = printable(&word[..word.len().min(left + 1)]);
        let room = left;
        // A word without a letter takes room all the same.
        left = left.saturating_sub(word.len().max(1));
        printed.push(shortened(word, room));
    }
    printed
}

fn escape(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        out.push_str(&format!("\\x{byte:02x}"));
    }
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

    #[test]
    fn a_text_is_cut_between_characters_and_it_is_marked() {
        let cut = |text: &str, longest| shortened(text.to_owned(), longest);
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "abc…");
        assert_eq!(cut("ab\u{e9}", 3), "ab…");
    }

    #[test]
    fn a_command_is_as_long_as_it_may_be_however_many_words_it_has() {
        let words = |command: &[&str], longest| {
            printable_words(command.iter().map(|word| word.as_bytes()), longest)
        };
        assert_eq!(words(&["ls", "-l", ""], 100), ["ls", "-l", ""]);
        assert_eq!(words(&["ls", "-l", "x"], 4), ["ls", "-l", "…"]);
        assert_eq!(words(&["ls", "-long", "x"], 4), ["ls", "-l…", "…"]);
        assert_eq!(words(&["\x1b\x1b"], 4), ["\\x1b…"]);
        assert_eq!(words(&[""; 1000], 4).len(), 5);
        let long = "x".repeat(1 << 20);
        let printed = words(&[&long, &long], 4096);
        assert_eq!(printed.len(), 2);
        assert!(printed.concat().len() < 4200);
    }

    #[test]
    fn a_name_cannot_drive_the_terminal() {
        assert_eq!(printable(b"qemu-system-x86"), "qemu-system-x86");
        assert_eq!(printable(b"\x1b[2Jgone\n"), "\\x1b[2Jgone\\x0a");
        assert_eq!(printable(b"caf\xc3\xa9 \xff"), "caf\u{e9} \\xff");
        // C1 control characters drive some terminals as well.
        assert_eq!(printable("\u{9b}31m".as_bytes()), "\\xc2\\x9b31m");
    }

    /// Who writes to standard error waits for the terminal: nobody is to but [`say`], and threads for that alone.
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
        let expected = ["audit/sink.rs", "say.rs", "traces.rs", "verify/short.rs"];
        assert_eq!(found, expected.map(PathBuf::from).into());
    }
}
