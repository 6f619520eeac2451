//! A terminal with full-screen programs, and its visible contents.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use vt100::{Color, Parser};

use crate::{
    run::HANG,
    terminal::{PROMPT, Terminal},
};

/// A terminal that interprets the control sequences of xterm, with a shell.
pub struct Screen {
    terminal: Terminal,
    parser: Parser,
}

impl Screen {
    /// Starts an interactive bash at a new terminal of this size, and waits for its prompt.
    pub fn start(rows: u16, columns: u16) -> Result<Self> {
        Self::start_with(Command::new("bash"), rows, columns)
    }

    /// Like [`Self::start`], with the caller's bash: in a namespace, or in another environment.
    pub fn start_with(bash: Command, rows: u16, columns: u16) -> Result<Self> {
        let mut screen = Self {
            terminal: Terminal::start_with(bash, "xterm", rows, columns)?,
            parser: Parser::new(rows, columns, 0),
        };
        screen.parser.process(PROMPT.as_bytes());
        Ok(screen)
    }

    /// Types a line, with Enter.
    pub fn type_line(&mut self, line: &str) -> Result<()> {
        self.terminal.type_line(line)
    }

    /// Types these characters.
    pub fn type_keys(&mut self, keys: &str) -> Result<()> {
        keys.bytes().try_for_each(|key| self.terminal.press(key))
    }

    /// Waits until the visible text is as expected, and returns it.
    pub fn wait_for(&mut self, what: &str, is: impl Fn(&str) -> bool) -> Result<String> {
        let deadline = Instant::now() + HANG;
        loop {
            self.look(Duration::from_millis(20))?;
            let seen = self.text();
            if is(&seen) {
                return Ok(seen);
            }
            if Instant::now() >= deadline {
                bail!("in vain for {HANG:?}: {what}, on this screen:\n{seen}");
            }
        }
    }

    /// Processes output for this time, and returns the text that is visible then.
    pub fn watch(&mut self, time: Duration) -> Result<String> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.look(Duration::from_millis(20))?;
        }
        Ok(self.text())
    }

    /// Runs a command that prints at most one line, and waits for the next prompt; returns the output.
    pub fn run(&mut self, line: &str) -> Result<String> {
        // The shell joins both parts, so that the echoed command line is not taken for the output.
        self.type_line(&format!("clear; {line}; echo 'end of ''command'"))?;
        let is_done = |seen: &str| {
            seen.contains("end of command\n") && seen.trim_end().ends_with(PROMPT.trim_end())
        };
        let seen = self.wait_for("the command ends", is_done)?;
        let printed = seen.split("end of command").next().unwrap_or_default();
        Ok(printed.trim().to_owned())
    }

    /// The visible text, line by line, without blanks at the ends of lines.
    #[must_use]
    pub fn text(&self) -> String {
        let lines = self.parser.screen().contents();
        let lines: Vec<_> = lines.lines().map(str::trim_end).collect();
        lines.join("\n") + "\n"
    }

    /// The visible cells, with colours.
    #[must_use]
    pub fn contents(&self) -> &vt100::Screen {
        self.parser.screen()
    }

    /// Whether it shows the alternate screen, which full-screen programs use.
    #[must_use]
    pub fn is_alternate(&self) -> bool {
        self.parser.screen().alternate_screen()
    }

    /// Whether the cursor is hidden.
    #[must_use]
    pub fn hides_cursor(&self) -> bool {
        self.parser.screen().hide_cursor()
    }

    /// Whether any cell has a colour other than the default.
    #[must_use]
    pub fn has_colours(&self) -> bool {
        let screen = self.parser.screen();
        let (rows, columns) = screen.size();
        let cells = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
        cells
            .filter_map(|(row, column)| screen.cell(row, column))
            .any(|cell| cell.fgcolor() != Color::Default || cell.bgcolor() != Color::Default)
    }

    /// Changes its size.
    pub fn resize(&mut self, rows: u16, columns: u16) -> Result<()> {
        let (height, width) = (rows.to_string(), columns.to_string());
        let status = Command::new("stty")
            .arg("-F")
            .arg(self.terminal.path())
            .args(["rows", &height, "cols", &width])
            .status()?;
        ensure!(status.success(), "stty: {status}");
        self.parser.screen_mut().set_size(rows, columns);
        Ok(())
    }

    /// Sends a signal to the foreground process group.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(killpg(self.foreground()?, signal)?)
    }

    /// The foreground process group of the terminal.
    pub fn foreground(&self) -> Result<Pid> {
        self.terminal.foreground()
    }

    fn look(&mut self, limit: Duration) -> Result<()> {
        let bytes = self.terminal.take(limit)?;
        self.parser.process(&bytes);
        Ok(())
    }
}
