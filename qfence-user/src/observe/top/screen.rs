//! The terminal: keys, signals, and restoring its state.

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

/// How long a signal can remain unnoticed.
const LOOK: Duration = Duration::from_millis(100);

/// Shows the fences until the user quits, or a signal asks to end.
///
/// # Errors
/// If there is no terminal, or fences cannot be listed.
pub fn show(fences: &Fences, interval: Duration) -> Result<()> {
    ensure!(
        io::stdin().is_terminal() && io::stdout().is_terminal(),
        "top needs a terminal; programs can use `qfence-user ps --json` and `qfence-user metrics`"
    );
    ensure!(
        std::env::var_os("TERM").is_none_or(|term| term != "dumb"),
        "top cannot draw on this terminal (TERM=dumb); use `qfence-user ps`"
    );
    let signals = block_signals()?;
    // The first sample is taken before the terminal changes, so that an error stays readable.
    let mut model = Model::default();
    model.take(sample(fences, None)?);
    on_terminal(|terminal| run(terminal, &mut model, fences, interval, &signals))
}

/// Runs `draw` on the terminal, and restores the terminal afterwards, also after an error or a panic, whose message is
/// then readable.
///
/// # Errors
/// If the terminal cannot be set up or restored, or `draw` fails.
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
            // The details of the newly selected fence are not known yet.
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

/// Blocks the signals that ask to end, and returns a descriptor to read them, so that the terminal can be restored.
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
