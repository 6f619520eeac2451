//! The messages of xtask, on standard error. Standard output is for results: the output of the programs that it runs, and
//! the result of the demo.

use std::{
    fmt,
    io::{self, BufRead as _, BufReader, IsTerminal as _, Write as _},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

use crate::shell;

/// Prints one or more lines.
pub(crate) fn note(text: &str) {
    // If standard error is closed, the failure cannot be reported anywhere.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Prints the heading of a part of a task.
pub(crate) fn heading(text: &str) {
    note(&format!("==> {text}"));
}

/// Prints a line of the result to standard output.
pub(crate) fn result(text: &str) -> Result<()> {
    writeln!(io::stdout(), "{text}").context("writing to standard output")
}

/// Does lengthy work, with a spinner.
pub(crate) fn during<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let spinner = Spinner::new(what)?;
    let outcome = work();
    spinner.clear();
    if outcome.is_ok() {
        note_done(what, start);
    }
    outcome.with_context(|| what.to_owned())
}

/// Runs a lengthy command with a spinner. Its output is printed only if it fails.
pub(crate) fn step(what: &str, command: &mut Command) -> Result<()> {
    let start = Instant::now();
    let spinner = Spinner::new(what)?;
    let (reader, writer) = io::pipe().context("making a pipe")?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(writer.try_clone().context("cloning a pipe")?)
        .stderr(writer)
        .spawn()
        .with_context(|| format!("starting {}", shell::describe(command)))?;
    // Closes the writing ends that `command` still has: otherwise the reading end would never reach the end of file.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut output = String::new();
    for line in BufReader::new(reader).split(b'\n') {
        let line = line.context("reading a command's output")?;
        let line = String::from_utf8_lossy(&line);
        spinner.show(line.trim());
        output.push_str(&line);
        output.push('\n');
    }
    let status = child
        .wait()
        .with_context(|| format!("awaiting {}", shell::describe(command)))?;
    spinner.clear();
    if !status.success() {
        note(output.trim_end());
        bail!(
            "{what}: {} failed ({status}); its output is above",
            shell::describe(command)
        );
    }
    note_done(what, start);
    Ok(())
}

fn note_done(what: &str, start: Instant) {
    note(&format!("    {what}: done in {}", Seconds(start.elapsed())));
}

/// A duration in seconds, to a tenth.
pub(crate) struct Seconds(pub(crate) Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} s", self.0.as_secs_f32())
    }
}

/// Shows the current work, its duration, and the last line of its output. Without a terminal it is one plain line.
struct Spinner(ProgressBar);

impl Spinner {
    fn new(what: &str) -> Result<Self> {
        if !io::stderr().is_terminal() {
            note(&format!("    {what} ..."));
            return Ok(Self(ProgressBar::hidden()));
        }
        let style = ProgressStyle::with_template("    {spinner} {prefix} [{elapsed}] {wide_msg}")
            .context("reading the spinner's template")?;
        let bar = ProgressBar::new_spinner()
            .with_style(style)
            .with_prefix(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(100));
        Ok(Self(bar))
    }

    fn show(&self, line: &str) {
        if !line.is_empty() {
            self.0.set_message(line.to_owned());
        }
    }

    fn clear(&self) {
        self.0.finish_and_clear();
    }
}
