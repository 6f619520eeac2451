//! `top` at a real terminal: what it shows at rest, under load, after a resize; and what it leaves behind,
//! however it ends.

use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use qfence_user::observe::top::screen::on_terminal;
use ratatui::widgets::Paragraph;
use tests::{
    fence::{Fence, qfence},
    probe,
    run::to_end,
    screen::Screen,
    shell::Shell,
    terminal::{PROMPT, Terminal},
    world::World,
};

const ROWS: u16 = 24;
const COLUMNS: u16 = 80;

/// Longer than two looks of `top` are apart.
const LOOKS: Duration = Duration::from_millis(2500);

/// A line that is only seen while `top` runs.
const FOOT: &str = "? keys";

/// Starts `top`, and has it show one fence only: others of the host are not the test's.
fn start(screen: &mut Screen, name: &str) -> Result<()> {
    screen.type_line(&format!("{} top", qfence()?.display()))?;
    screen.wait_for("top runs", |seen| seen.contains(FOOT))?;
    screen.type_keys(&format!("/{name}\r"))?;
    let shown = format!("> {}", head(name));
    screen.wait_for("the fence is shown", |seen| seen.contains(&shown))?;
    Ok(())
}

/// A fence's name as far as there is room for it.
fn head(name: &str) -> String {
    const ROOM: usize = 17;
    if name.chars().count() <= ROOM {
        return name.to_owned();
    }
    name.chars().take(ROOM - 1).chain(['…']).collect()
}

/// The words of the fence's row: mark, name, state, attempts a second, attempts, bytes sent and received a
/// second, sparks.
fn row(seen: &str) -> Result<Vec<String>> {
    let row = seen.lines().find(|line| line.starts_with("> "));
    let words = row.context("a row is selected")?.split_whitespace();
    Ok(words.map(str::to_owned).collect())
}

/// What `stty` says of the terminal, and that the first screen and the cursor are shown.
fn state(screen: &mut Screen) -> Result<(String, bool, bool)> {
    let modes = screen.run("stty -g")?;
    Ok((modes, screen.is_alternate(), screen.hides_cursor()))
}

#[test]
fn it_shows_a_fence_at_rest_and_under_load() -> Result<()> {
    let world = World::new()?;
    let fence = Fence::new("top")?;
    let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
    let mut screen = Screen::start(ROWS, COLUMNS)?;
    start(&mut screen, fence.name())?;

    let seen = screen.wait_for("rates are known", |seen| {
        row(seen).is_ok_and(|row| row.get(3).is_some_and(|rate| rate == "0"))
    })?;
    let at_rest = row(&seen)?;
    assert_eq!(at_rest[2..7], ["running", "0", "0", "0", "0"], "{seen}");
    assert!(at_rest[7].chars().all(|spark| spark == '▁'), "{seen}");
    assert!(!seen.contains("127.0.0.1"), "{seen}");
    assert!(seen.contains("NAME              STATE"), "{seen}");
    assert!(screen.is_alternate() && screen.hides_cursor());

    shell.tell(&format!(
        "{} --flood 300000 tcp/127.0.0.1/9 >/dev/null; echo flooded",
        probe::program()?.display()
    ))?;
    let seen = screen.wait_for("thousands a second", |seen| {
        row(seen).is_ok_and(|row| row.get(3).is_some_and(|rate| rate.ends_with('K')))
    })?;
    let under_load = row(&seen)?;
    assert!(under_load[7].ends_with('█'), "{seen}");
    assert_eq!(shell.next_line()?, "flooded");
    let seen = screen.wait_for("all are counted", |seen| {
        row(seen).is_ok_and(|row| row[3..5] == ["0", "300K"])
            && seen.contains("300K  tcp 127.0.0.1:9  ")
    })?;
    assert!(seen.contains("Refused      300K connects"), "{seen}");
    let latest = seen.split("Latest\n").nth(1).context("latest refusals")?;
    assert!(latest.contains("denied tcp 127.0.0.1:9"), "{seen}");
    assert!(!screen.has_colours());

    screen.type_keys("r")?;
    let seen = screen.wait_for("the rule", |seen| seen.contains("Rules that refused"))?;
    assert!(seen.contains("host (shipped, line "), "{seen}");
    screen.type_keys("\u{1b}")?;
    screen.wait_for("the rule is away", |seen| !seen.contains("Rules that"))?;
    Ok(())
}

#[test]
fn keys_pause_it_and_change_the_order() -> Result<()> {
    let world = World::new()?;
    let fence = Fence::new("keys")?;
    let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
    let mut screen = Screen::start(ROWS, COLUMNS)?;
    start(&mut screen, fence.name())?;

    screen.type_keys("p")?;
    screen.wait_for("it pauses", |seen| seen.contains("PAUSED"))?;
    shell.attempt(&["tcp/127.0.0.1/9"])?;
    let seen = screen.watch(LOOKS)?;
    assert!(!seen.contains("127.0.0.1:9"), "{seen}");
    screen.type_keys("p")?;
    screen.wait_for("it goes on", |seen| {
        !seen.contains("PAUSED") && seen.contains("1  tcp 127.0.0.1:9 ")
    })?;
    for order in ["attempts/s", "attempts", "traffic", "name"] {
        screen.type_keys("s")?;
        let order = format!("  by {order}\n");
        screen.wait_for("the order", |seen| seen.contains(&order))?;
    }
    screen.type_keys("?")?;
    screen.wait_for("the keys", |seen| seen.contains("select a fence"))?;
    Ok(())
}

#[test]
fn it_takes_any_size() -> Result<()> {
    let world = World::new()?;
    let fence = Fence::new("size")?;
    let _shell = Shell::start(fence.command(&world.host, "sh"))?;
    let mut screen = Screen::start(ROWS, COLUMNS)?;
    start(&mut screen, fence.name())?;
    for (rows, columns) in [(40, 132), (12, 60), (60, 200), (24, 80)] {
        screen.resize(rows, columns)?;
        let seen = screen.wait_for("the last line", |seen| {
            seen.lines().count() == usize::from(rows)
                && seen.lines().last().is_some_and(|last| last.contains(FOOT))
        })?;
        assert!(row(&seen)?[1].starts_with("t-size"), "{seen}");
    }
    screen.resize(5, 40)?;
    screen.wait_for("it asks for room", |seen| {
        seen.trim_end() == "needs at least 60x12"
    })?;
    screen.resize(2, 10)?;
    screen.watch(LOOKS)?;
    screen.resize(ROWS, COLUMNS)?;
    screen.wait_for("it is back", |seen| row(seen).is_ok())?;
    Ok(())
}

/// A way to end it.
type Quit = fn(&mut Screen) -> Result<()>;

#[test]
fn the_terminal_is_as_before_however_it_ends() -> Result<()> {
    let mut screen = Screen::start(ROWS, COLUMNS)?;
    let before = state(&mut screen)?;
    assert_eq!((before.1, before.2), (false, false));
    assert!(before.0.contains(':'), "{before:?}");
    let quit: [(&str, Quit); 5] = [
        ("q", |screen| screen.type_keys("q")),
        ("Ctrl-C", |screen| screen.type_keys("\u{3}")),
        ("SIGTERM", |screen| screen.signal(Signal::SIGTERM)),
        ("SIGINT", |screen| screen.signal(Signal::SIGINT)),
        ("SIGHUP", |screen| screen.signal(Signal::SIGHUP)),
    ];
    for (how, quit) in quit {
        screen.type_line(&format!(
            "clear; {} top; echo status=$?",
            qfence()?.display()
        ))?;
        screen.wait_for("top runs", |seen| seen.contains(FOOT))?;
        assert!(screen.is_alternate(), "{how}");
        quit(&mut screen)?;
        let ended = |seen: &str| seen.trim_end() == format!("status=0\n{}", PROMPT.trim_end());
        screen.wait_for(&format!("{how} ends it"), ended)?;
        assert_eq!(state(&mut screen)?, before, "{how}");
    }
    Ok(())
}

/// What the test below runs at a terminal.
#[test]
#[ignore = "ends in a panic, on purpose"]
fn a_view_that_crashes() {
    let drawn = on_terminal(|terminal| {
        terminal.draw(|frame| frame.render_widget(Paragraph::new("drawn"), frame.area()))?;
        // Until somebody has seen it.
        std::io::stdin().read_line(&mut String::new())?;
        panic!("on purpose");
    });
    drop(drawn);
}

#[test]
fn the_terminal_is_as_before_after_a_crash() -> Result<()> {
    let mut screen = Screen::start(ROWS, COLUMNS)?;
    let before = state(&mut screen)?;
    let this = std::env::current_exe()?;
    screen.type_line(&format!(
        "clear; RUST_BACKTRACE=0 {} --ignored --nocapture a_view_that_crashes",
        this.display()
    ))?;
    screen.wait_for("the view", |seen| seen.trim_end() == "drawn")?;
    assert!(screen.is_alternate());
    // Raw: Enter is no end of a line.
    screen.type_keys("\n")?;
    let seen = screen.wait_for("it ends", |seen| seen.contains("test result: FAILED"))?;
    assert!(seen.contains("on purpose"), "{seen}");
    assert_eq!(state(&mut screen)?, before);
    Ok(())
}

#[test]
fn without_a_terminal_to_draw_on_it_says_so() -> Result<()> {
    let mut top = std::process::Command::new(qfence()?);
    top.arg("top");
    let ended = to_end(top)?;
    assert_eq!(ended.code(), Some(125));
    assert!(
        ended.stderr.contains("top needs a terminal"),
        "{}",
        ended.stderr
    );

    let mut terminal = Terminal::start()?;
    let shown = terminal.run(&format!("{} top", qfence()?.display()))?;
    assert!(shown.contains("TERM=dumb"), "{shown:?}");
    assert!(terminal.run("echo status=$?")?.contains("status=125"));
    Ok(())
}
