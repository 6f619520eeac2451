//! Plays the session: the real program at real terminals, on a host of its own, connected to nothing but a private internet.

use std::{
    env,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
};

use anyhow::{Context as _, Result, bail};
use tests::{
    listener::Listener,
    namespace::Namespace,
    private::Private,
    screen::Screen,
    world::{GATEWAY_V4, HOST_V4, SERVER_V4},
};

/// Where the web servers listen, on the host and on the internet.
const PORT: u16 = 8080;

/// Lines of a terminal, more than the session fills: nothing scrolls.
const ROWS: u16 = 40;
/// Columns of a terminal: what a record line takes with large numbers in it.
const COLUMNS: u16 = 116;

/// The user's name and `#` or `$`, in bold green.
const PROMPT: &str = r"PS1='\[\e[1;32m\]\u\$\[\e[0m\] '; clear";

/// The terminals at the end of the session.
pub(super) struct Terminals {
    /// Where the command was started and ran.
    pub(super) fence: Screen,
    /// Where the fence was looked at from outside.
    pub(super) host: Screen,
}

/// How often the session is played before that fails. The supervisor and the shell write to one terminal, and now and then,
/// on a busy machine, a record line comes after the prompt.
const TRIES: usize = 20;

/// Plays the session, again if a record line came after a prompt.
pub(super) fn play(program: &Path) -> Result<Terminals> {
    for _ in 0..TRIES {
        let terminals = play_once(program)?;
        if bare_prompts(&terminals.fence.text()) == 1 {
            return Ok(terminals);
        }
    }
    bail!(
        "{TRIES} times a record line came after the prompt: try again when the machine is less busy"
    )
}

fn play_once(program: &Path) -> Result<Terminals> {
    let private = Private::new()
        .context("making a private host (in a container: this takes a privileged one)")?;
    let host = private.namespace();
    let internet = Namespace::new()?;
    connect(host, &internet)?;
    let everywhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), PORT);
    let _of_the_host = Listener::http(host, everywhere)?;
    let _of_the_internet = Listener::http(&internet, everywhere)?;

    let on_host = format!("curl http://{HOST_V4}:{PORT}/");
    let on_loopback = format!("curl http://127.0.0.1:{PORT}/");
    let on_internet = format!("curl http://{SERVER_V4}:{PORT}/");
    let greeting = |address| format!("hello from {address}:{PORT}");

    let mut fence = start(host, program)?;
    run(&mut fence, &on_host, &greeting(HOST_V4))?;
    run(
        &mut fence,
        "qfence-user exec --name job --user nobody -- bash --norc",
        "nobody$",
    )?;
    run(&mut fence, &on_internet, &greeting(SERVER_V4))?;
    for attempt in [&on_host, &on_loopback] {
        let destination = attempt
            .trim_start_matches("curl http://")
            .trim_end_matches('/');
        run(&mut fence, attempt, &format!("denied tcp {destination}"))?;
    }

    let mut outside = start(host, program)?;
    run(&mut outside, "qfence-user ps", "running")?;
    run(&mut outside, "qfence-user logs job", "2 attempts")?;
    let allow = format!("qfence-user set job --allow tcp:{HOST_V4}:{PORT}");
    run(&mut outside, &allow, "root#")?;
    run(&mut fence, &on_host, &greeting(HOST_V4))?;
    Ok(Terminals {
        fence,
        host: outside,
    })
}

/// Gives the host an address, and an internet behind a gateway.
fn connect(host: &Namespace, internet: &Namespace) -> Result<()> {
    host.ip_batch(&format!(
        "link add eth0 type veth peer name eth0 netns {internet}\n\
         link set lo up\nlink set eth0 up\n\
         address add {HOST_V4}/24 dev eth0\n",
        internet = internet.path().display(),
    ))?;
    internet.ip_batch(&format!(
        "link set lo up\nlink set eth0 up\n\
         address add {GATEWAY_V4}/24 dev eth0\n\
         address add {SERVER_V4}/32 dev lo\n",
    ))?;
    host.ip_batch(&format!("route add default via {GATEWAY_V4}\n"))
}

/// A terminal with root's shell on the host, which finds `qfence-user`.
fn start(host: &Namespace, program: &Path) -> Result<Screen> {
    let mut bash = host.command("bash");
    let directory = program.parent().context("the program has no directory")?;
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs = [directory.to_owned()]
        .into_iter()
        .chain(env::split_paths(&path));
    bash.env("PATH", env::join_paths(dirs)?);
    // Figures and messages are to be English.
    bash.env("LC_ALL", "C.UTF-8");
    let mut screen = Screen::start_with(bash, ROWS, COLUMNS)?;
    screen.type_line(PROMPT)?;
    screen.wait_for("the prompt", |seen| seen.trim() == "root#")?;
    Ok(screen)
}

/// Types a command, and waits for the next prompt and for an expected text.
fn run(screen: &mut Screen, line: &str, expected: &str) -> Result<()> {
    let text = screen.text();
    let (prompts, found) = (prompts(&text), text.matches(expected).count());
    screen.type_line(line)?;
    screen.wait_for(line, |seen| {
        self::prompts(seen) > prompts && seen.matches(expected).count() > found
    })?;
    Ok(())
}

/// How many prompts are seen.
fn prompts(seen: &str) -> usize {
    seen.lines()
        .filter(|line| line.split(' ').next().is_some_and(is_prompt))
        .count()
}

/// How many of them nothing was typed at.
fn bare_prompts(seen: &str) -> usize {
    seen.lines().filter(|line| is_prompt(line)).count()
}

fn is_prompt(text: &str) -> bool {
    ["root#", "nobody$"].contains(&text)
}
