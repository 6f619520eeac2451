//! The terminal: keys, signals, and its state before.

use std::{
    io::{self, IsTerminal as _},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::sys::{
    signal::{SigSet, SigmaskHow, Signal, sigprocmask},
    signalfd::{SfdFlags, SignalFd},
};
use ratatui::{
    DefaultTerminal,
    crossterm::event::{Event, KeyCode, KeyEventKind, KeyModifiers, poll, read},
};

use super::{keys::Key, model::Model, sample::sample, view::draw};
use crate::fence::registry::Fences;

/// How long a signal may wait to be noticed.
const LOOK: Duration = Duration::from_millis(100);

/// Shows the fences until somebody quits, or a signal means to end.
///
/// # Errors
/// If there is no terminal, or fences cannot be listed.
pub fn show(fences: &Fences, interval: Duration) -> Result<()> {
    ensure!(
        io::stdin().is_terminal() && io::stdout().is_terminal(),
        "top is for a terminal; `qfence-user ps --json` and `qfence-user metrics` are for programs"
    );
    ensure!(
        std::env::var_os("TERM").is_none_or(|term| term != "dumb"),
        "this terminal (TERM=dumb) cannot be drawn on; `qfence-user ps` shows what there is now"
    );
    let signals = block_signals()?;
    // Before the terminal is touched: an error is to be read.
    let mut model = Model::default();
    model.take(sample(fences, None)?);
    on_terminal(|terminal| run(terminal, &mut model, fences, interval, &signals))
}

/// Has the terminal drawn on. It is as before afterwards: after an error and after a panic as well, whose
/// words are then to be read.
///
/// # Errors
/// If the terminal cannot be set up or restored, or the drawing fails.
pub fn on_terminal(draw: impl FnOnce(&mut DefaultTerminal) -> Result<()>) -> Result<()> {
    let mut terminal = ratatui::try_init().context("cannot set up the terminal")?;
    let drawn = draw(&mut terminal);
    drop(terminal);
    ratatui::try_restore().context("cannot restore the terminal")?;
    drawn
}

fn run(
    terminal: &mut DefaultTerminal,
    model: &mut Model,
    fences: &Fences,
    interval: Duration,
    signals: &SignalFd,
) -> Result<()> {
    let mut next = Instant::now();
    loop {
        if Instant::now() >= next {
            let close = model.selected().map(str::to_owned);
            model.take(sample(fences, close.as_deref())?);
            next = Instant::now() + interval;
        }
        terminal
            .draw(|frame| draw(frame, model))
            .context("cannot draw on the terminal")?;
        let left = next.saturating_duration_since(Instant::now());
        if poll(left.min(LOOK)).context("cannot read keys")? {
            let selected = model.selected().map(str::to_owned);
            if let Some(key) = key(&read().context("cannot read keys")?)
                && !model.press(key)
            {
                return Ok(());
            }
            // What is looked at closely now is not known yet.
            if model.selected() != selected.as_deref() {
                next = Instant::now();
            }
        }
        if signals
            .read_signal()
            .context("cannot read signals")?
            .is_some()
        {
            return Ok(());
        }
    }
}

/// Signals that mean to end are read, so that the terminal can be restored.
fn block_signals() -> Result<SignalFd> {
    let mut signals = SigSet::empty();
    for signal in [
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
    ] {
        signals.add(signal);
    }
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&signals), None).context("cannot block signals")?;
    let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
    SignalFd::with_flags(&signals, flags).context("cannot make a signalfd")
}

fn key(event: &Event) -> Option<Key> {
    let Event::Key(pressed) = event else {
        return None;
    };
    if pressed.kind == KeyEventKind::Release {
        return None;
    }
    if pressed.modifiers.contains(KeyModifiers::CONTROL) {
        return (pressed.code == KeyCode::Char('c')).then_some(Key::Interrupt);
    }
    match pressed.code {
        KeyCode::Char(character) => Some(Key::Char(character)),
        KeyCode::Up => Some(Key::Up),
        KeyCode::Down => Some(Key::Down),
        KeyCode::Enter => Some(Key::Enter),
        KeyCode::Esc => Some(Key::Escape),
        KeyCode::Backspace => Some(Key::Backspace),
        _ => None,
    }
}
