//! A supervisor that is stopped, or kept from writing, by the terminal or by a process in its fence: the host's
//! addresses and nameservers are followed all the same.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tests::{
    fence::{Fence, qfence},
    job::{
        ensure_ended, ensure_no_stand_in, launch, process_named, stand_ins, supervisor,
        wait_for_state,
    },
    listener::Listener,
    namespace::NOBODY,
    probe::{self, ProbeResult},
    remains,
    run::{to_end, wait_until},
    shell::state_of,
    terminal::{CTRL_C, CTRL_Q, CTRL_S, CTRL_Z, PROMPT, Terminal},
    world::World,
};

const PORT: u16 = 8080;

/// What comes up on the host while the fence runs, and its subnet's broadcast address.
const LATE: &str = "198.18.5.1/24";
const LATE_BROADCAST: &str = "198.18.5.255";

/// A server on the internet, to which everything must go on working.
const INTERNET: &str = "udp/198.51.100.7/8080";

/// Long enough for a fence that follows the host to have seen a change.
const FOLLOWED: Duration = Duration::from_secs(5);

/// What runs beside the command: it runs what it is told, one file after the other.
const WORKER: &str = r#"i=1
while :; do
    while ! [ -e "$1/do.$i" ]; do sleep 0.02; done
    sh "$1/do.$i" >"$1/said.$i" 2>&1
    echo $? >"$1/end.new"
    mv "$1/end.new" "$1/end.$i"
    i=$((i + 1))
done
"#;

/// A host with a listener for broadcasts, an internet that answers, and a fenced job in a terminal of the host's.
struct Scene {
    world: World,
    host: Listener,
    _internet: Listener,
    fence: Fence,
    terminal: Terminal,
    dir: tempfile::TempDir,
    told: u32,
}

impl Scene {
    fn new(label: &str) -> Result<Self> {
        let world = World::new()?;
        let any = (std::net::Ipv4Addr::UNSPECIFIED, PORT).into();
        let host = Listener::udp(&world.host, any)?;
        let internet = Listener::udp(&world.internet, any)?;
        let dir = tempfile::Builder::new().prefix("qfence-stop-").tempdir()?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777))?;
        fs::write(dir.path().join("worker"), WORKER)?;
        let terminal = Terminal::start_in(&world.host)?;
        Ok(Self {
            world,
            host,
            _internet: internet,
            fence: Fence::new(label)?.with(&["--user", "nobody"]),
            terminal,
            dir,
            told: 0,
        })
    }

    /// Starts a shell as a job of the terminal's, and waits until it is there: it runs `first`, starts the worker, and
    /// runs `then`. Returns its supervisor.
    fn launch(&mut self, first: &str, then: &str) -> Result<u32> {
        let worker = self.path("worker");
        let script = format!(
            "{first} sh {} {} & echo be\"\"gun; {then}",
            worker.display(),
            self.dir.path().display()
        );
        launch(
            &mut self.terminal,
            &self.fence,
            &format!("sh -c '{script}'"),
        )?;
        self.terminal.expect("begun\r\n")?;
        supervisor(&self.fence)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Has the worker in the fence run a line; what it printed.
    fn ask(&mut self, line: &str) -> Result<String> {
        self.told += 1;
        let number = self.told;
        let new = self.path("do.new");
        fs::write(&new, line)?;
        fs::rename(&new, self.path(&format!("do.{number}")))?;
        let end = self.path(&format!("end.{number}"));
        wait_until("the worker is done", || Ok(end.exists()))?;
        Ok(fs::read_to_string(self.path(&format!("said.{number}")))?)
    }

    /// Has the worker make an attempt.
    fn attempt(&mut self, attempt: &str) -> Result<ProbeResult> {
        let probe = probe::program()?;
        let said = self.ask(&format!("{} --timeout-ms 1000 {attempt}", probe.display()))?;
        let outcomes = probe::read_lines(&said)?;
        outcomes.into_iter().next().context("one outcome")
    }

    /// The positive control: from outside of the fence it arrives.
    fn ensure_arrives_without_fence(&self, attempt: &str) -> Result<()> {
        let before = self.host.arrivals().len();
        let outcomes = probe::run_as(NOBODY, &self.world.host, &[attempt])?;
        ensure!(outcomes.iter().all(ProbeResult::is_reached), "{outcomes:?}");
        ensure!(self.host.arrivals().len() > before, "nothing arrived");
        Ok(())
    }

    /// Gives the host another address while the supervisor is out of action; its broadcasts are refused.
    fn ensure_late_broadcasts_are_refused(&mut self) -> Result<()> {
        let broadcast = format!("udp/{LATE_BROADCAST}/{PORT}");
        let outcome = self.attempt(INTERNET)?;
        ensure!(outcome.is_reached(), "the internet: {outcome:?}");
        self.world
            .host_ip(&format!("address add {LATE} brd + dev br0"))?;
        self.await_in_policy(LATE_BROADCAST)?;
        self.ensure_arrives_without_fence(&broadcast)?;
        let before = self.host.arrivals();
        let outcome = self.attempt(&broadcast)?;
        assert_eq!(self.host.arrivals(), before, "{outcome:?}");
        ensure!(outcome.failed_with("ECONNREFUSED"), "{outcome:?}");
        let outcome = self.attempt(INTERNET)?;
        ensure!(outcome.is_reached(), "the internet: {outcome:?}");
        Ok(())
    }

    /// Waits for an address to be in the policy: a refusal alone may be for want of anybody who follows.
    fn await_in_policy(&self, text: &str) -> Result<()> {
        let path = format!("/run/qfence/{}.policy", self.fence.name());
        wait_until(&format!("{text} is in the policy"), || {
            Ok(fs::read_to_string(&path)?.contains(text))
        })
    }
}

fn ensure_gone(pid: u32) -> Result<()> {
    wait_until("it is gone", || {
        Ok(state_of(pid).is_none_or(|state| state == 'Z'))
    })
}

#[test]
fn a_job_that_stops_itself_leaves_no_new_address_open() -> Result<()> {
    let mut scene = Scene::new("self-stop")?;
    let supervisor = scene.launch("", "kill -STOP $$; read line; exit 3")?;
    scene.terminal.expect(PROMPT)?;
    wait_for_state(supervisor, 'T')?;
    scene.ensure_late_broadcasts_are_refused()?;
    scene.terminal.type_line("fg")?;
    scene.terminal.wait_for_foreground(supervisor)?;
    ensure_no_stand_in(&scene.fence)?;
    scene.terminal.press(b'\r')?;
    scene.terminal.expect(PROMPT)?;
    ensure_ended(&mut scene.terminal, &scene.fence, 3)
}

#[test]
fn ctrl_z_leaves_no_new_address_open_to_a_process_that_ignores_it() -> Result<()> {
    let mut scene = Scene::new("ignores")?;
    // The worker ignores it.
    let then = "trap - TSTP; echo re\"\"ady; while read line; do :; done";
    let supervisor = scene.launch("trap \"\" TSTP;", then)?;
    scene.terminal.expect("ready\r\n")?;
    for _ in 1..=2 {
        scene.terminal.press(CTRL_Z)?;
        scene.terminal.expect(PROMPT)?;
        wait_for_state(supervisor, 'T')?;
        assert_eq!(stand_ins(&scene.fence)?.len(), 1);
        scene.terminal.type_line("fg")?;
        scene.terminal.wait_for_foreground(supervisor)?;
        ensure_no_stand_in(&scene.fence)?;
    }
    scene.terminal.press(CTRL_Z)?;
    scene.terminal.expect(PROMPT)?;
    wait_for_state(supervisor, 'T')?;
    scene.ensure_late_broadcasts_are_refused()?;
    scene.terminal.type_line("fg")?;
    scene.terminal.wait_for_foreground(supervisor)?;
    scene.terminal.press(CTRL_C)?;
    scene.terminal.expect(PROMPT)?;
    ensure_ended(&mut scene.terminal, &scene.fence, 130)?;
    ensure_no_stand_in(&scene.fence)
}

#[test]
fn nameservers_are_followed_while_the_job_is_stopped() -> Result<()> {
    const BEFORE: &str = "udp/127.0.0.53/53";
    const AFTER: &str = "udp/192.0.2.10/53";
    let mut scene = Scene::new("nameserver")?;
    let _dns = Listener::udp(&scene.world.host, "0.0.0.0:53".parse()?)?;
    scene.launch("", "kill -STOP $$; read line")?;
    scene.terminal.expect(PROMPT)?;
    let outcome = scene.attempt(BEFORE)?;
    assert!(outcome.is_reached(), "{outcome:?}");
    let outcome = scene.attempt(AFTER)?;
    assert!(outcome.failed_with("ECONNREFUSED"), "{outcome:?}");
    scene.world.write_resolv_conf("nameserver 192.0.2.10\n")?;
    let path = format!("/run/qfence/{}.policy", scene.fence.name());
    let nameservers = |text: &str| -> Result<String> {
        let stored: serde_json::Value = serde_json::from_str(text)?;
        Ok(stored["sets"]["nameservers"].to_string())
    };
    let deadline = Instant::now() + FOLLOWED;
    while Instant::now() < deadline
        && !nameservers(&fs::read_to_string(&path)?)?.contains("192.0.2.10")
    {
        thread::sleep(Duration::from_millis(10));
    }
    let outcome = scene.attempt(AFTER)?;
    assert!(outcome.is_reached(), "{outcome:?}");
    let outcome = scene.attempt(BEFORE)?;
    assert!(outcome.failed_with("ECONNREFUSED"), "{outcome:?}");
    Ok(())
}

#[test]
fn what_was_published_meanwhile_is_known_when_the_job_goes_on() -> Result<()> {
    let mut scene = Scene::new("meanwhile")?;
    let supervisor = scene.launch("", "kill -STOP $$; read line; exit 4")?;
    scene.terminal.expect(PROMPT)?;
    wait_for_state(supervisor, 'T')?;
    scene.ensure_late_broadcasts_are_refused()?;
    // As it was before the stop: the supervisor sees no difference, and the policy in force has one.
    let name = scene.fence.name().to_owned();
    let stand_in = stand_ins(&scene.fence)?.pop().context("a stand-in")?;
    kill(Pid::from_raw(i32::try_from(stand_in)?), Signal::SIGSTOP)?;
    scene
        .world
        .host_ip(&format!("address del {LATE} dev br0"))?;
    scene.terminal.type_line("fg")?;
    scene.terminal.wait_for_foreground(supervisor)?;
    let path = format!("/run/qfence/{name}.policy");
    wait_until("the address is out of the policy", || {
        Ok(!fs::read_to_string(&path)?.contains(LATE_BROADCAST))
    })?;
    ensure_no_stand_in(&scene.fence)?;
    let explained = to_end({
        let mut explain = Command::new(qfence()?);
        explain.args(["explain", &name, &format!("udp:{LATE_BROADCAST}:{PORT}")]);
        explain
    })?;
    assert!(explained.stdout.contains("allow any"), "{explained:?}");
    scene.terminal.press(b'\r')?;
    scene.terminal.expect(PROMPT)?;
    ensure_ended(&mut scene.terminal, &scene.fence, 4)
}

#[test]
fn the_stand_in_is_out_of_reach_and_ends_with_a_supervisor_that_is_killed() -> Result<()> {
    let mut scene = Scene::new("reach")?;
    // A group that is orphaned while it is stopped gets SIGHUP, and goes on.
    let supervisor = scene.launch("trap \"\" HUP;", "kill -STOP $$; sleep 1000")?;
    scene.terminal.expect(PROMPT)?;
    wait_for_state(supervisor, 'T')?;
    let [stand_in] = stand_ins(&scene.fence)?[..] else {
        anyhow::bail!("not one stand-in")
    };
    // The control: it can signal what is its own, and continue what is of its session (the supervisor).
    let own = scene.ask("sleep 1000 & kill -STOP $! && kill -CONT $! && kill $! && echo sent")?;
    assert!(own.ends_with("sent\n"), "{own}");
    for signal in ["STOP", "TSTP", "CONT", "KILL"] {
        let said = scene.ask(&format!("kill -{signal} {stand_in} || echo refused"))?;
        assert!(said.contains("not permitted"), "{signal}: {said}");
    }
    // A session, a process group and descriptors of its own, and no terminal.
    let stat = fs::read_to_string(format!("/proc/{stand_in}/stat"))?;
    let fields: Vec<&str> = stat
        .rsplit_once(") ")
        .context("stat")?
        .1
        .split(' ')
        .collect();
    let own = stand_in.to_string();
    assert_eq!(fields[2..5], [own.as_str(), own.as_str(), "0"], "{stat}");
    for fd in fs::read_dir(format!("/proc/{stand_in}/fd"))? {
        let fd = fd?;
        let number: u32 = fd.file_name().to_string_lossy().parse()?;
        let target = fs::read_link(fd.path())?;
        let is_terminal = target.starts_with("/dev/pts");
        assert_eq!(is_terminal, number == 2, "{number}: {}", target.display());
    }

    kill(Pid::from_raw(i32::try_from(supervisor)?), Signal::SIGKILL)?;
    ensure_gone(supervisor)?;
    ensure_gone(stand_in)?;
    ensure_no_stand_in(&scene.fence)?;
    remains::ensure_whole(scene.fence.name())?;
    let outcome = scene.attempt("udp/192.0.2.255/8080")?;
    assert!(outcome.failed_with("ECONNREFUSED"), "{outcome:?}");
    Ok(())
}

#[test]
fn rm_of_a_stopped_job_leaves_nothing() -> Result<()> {
    let mut scene = Scene::new("rm-stopped")?;
    let supervisor = scene.launch("", "kill -STOP $$; read line")?;
    scene.terminal.expect(PROMPT)?;
    wait_for_state(supervisor, 'T')?;
    let mut rm = Command::new(qfence()?);
    rm.args(["rm", scene.fence.name()]);
    let ended = to_end(rm)?;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    remains::ensure_none(scene.fence.name())?;
    ensure_no_stand_in(&scene.fence)
}

#[test]
fn a_command_that_ignores_ctrl_z_keeps_the_terminal() -> Result<()> {
    let mut scene = Scene::new("keeps")?;
    let supervisor = scene.launch(
        "trap \"\" TSTP;",
        "while read line; do echo \"<$line>\"; done",
    )?;
    scene.terminal.press(CTRL_Z)?;
    scene.terminal.type_line("one")?;
    scene.terminal.expect("<one>\r\n")?;
    assert_ne!(state_of(supervisor), Some('T'));
    assert_eq!(stand_ins(&scene.fence)?.len(), 0);
    Ok(())
}

#[test]
fn a_job_in_the_background_that_reads_the_terminal_stops_and_is_seen_to() -> Result<()> {
    let fence = Fence::new("reads")?.with(&["--user", "nobody"]);
    let mut terminal = Terminal::start()?;
    launch(
        &mut terminal,
        &fence,
        "sh -c 'read line; echo \"<$line>\"' &",
    )?;
    terminal.expect(PROMPT)?;
    let shell = process_named(&fence, "sh")?;
    let supervisor = supervisor(&fence)?;
    wait_for_state(shell, 'T')?;
    wait_for_state(supervisor, 'T')?;
    // The shell learns of it a moment later.
    wait_until("the shell sees the job stopped", || {
        Ok(terminal.run("jobs")?.contains("[1]+  Stopped"))
    })?;
    assert_eq!(stand_ins(&fence)?.len(), 1);
    terminal.type_line("fg")?;
    terminal.wait_for_foreground(supervisor)?;
    terminal.type_line("typed")?;
    terminal.expect("<typed>\r\n")?;
    terminal.expect(PROMPT)?;
    ensure_ended(&mut terminal, &fence, 0)
}

#[test]
fn a_supervisor_that_is_told_to_stop_stops_its_command() -> Result<()> {
    let fence = Fence::new("told")?.with(&["--user", "nobody"]);
    let mut terminal = Terminal::start()?;
    launch(&mut terminal, &fence, "sleep 1000")?;
    let sleep = process_named(&fence, "sleep")?;
    let supervisor = supervisor(&fence)?;
    let pid = Pid::from_raw(i32::try_from(supervisor)?);
    kill(pid, Signal::SIGTSTP)?;
    terminal.expect(PROMPT)?;
    wait_for_state(sleep, 'T')?;
    wait_for_state(supervisor, 'T')?;
    assert_eq!(stand_ins(&fence)?.len(), 1);
    kill(pid, Signal::SIGCONT)?;
    wait_until("the command goes on", || Ok(state_of(sleep) == Some('S')))?;
    ensure_no_stand_in(&fence)
}

/// The most descriptors that `pid` may have for two more to be free.
fn limit_of_two_more(pid: u32) -> usize {
    let is_open = |fd: &usize| Path::new(&format!("/proc/{pid}/fd/{fd}")).is_symlink();
    (0..).filter(|fd| !is_open(fd)).nth(2).unwrap_or_default()
}

#[test]
fn without_a_stand_in_the_supervisor_does_not_stop_and_says_so() -> Result<()> {
    let mut scene = Scene::new("no-stand-in")?;
    let supervisor = scene.launch("", "while read line; do echo \"<$line>\"; done")?;
    let limit = |number: &str| -> Result<()> {
        let mut prlimit = Command::new("prlimit");
        prlimit.args([
            "--pid",
            &supervisor.to_string(),
            &format!("--nofile={number}:"),
        ]);
        let ended = to_end(prlimit)?;
        ensure!(ended.code() == Some(0), "{ended:?}");
        Ok(())
    };
    limit(&limit_of_two_more(supervisor).to_string())?;
    scene.terminal.press(CTRL_Z)?;
    scene
        .terminal
        .expect("qfence: the command was stopped and is continued: ")?;
    scene.terminal.expect("Too many open files")?;
    scene.terminal.type_line("one")?;
    scene.terminal.expect("<one>\r\n")?;
    assert_ne!(state_of(supervisor), Some('T'));
    limit("1024")?;
    scene.terminal.press(CTRL_Z)?;
    scene.terminal.expect(PROMPT)?;
    wait_for_state(supervisor, 'T')?;
    Ok(())
}

#[test]
fn a_terminal_whose_output_is_stopped_does_not_stop_the_following() -> Result<()> {
    let mut scene = Scene::new("output")?;
    scene.launch("", "while read line; do :; done")?;
    scene.terminal.press(CTRL_S)?;
    // Something to be said: a directory is no resolv.conf.
    scene.world.symlink_resolv_conf("/etc")?;
    thread::sleep(Duration::from_secs(2));
    scene.world.write_resolv_conf("nameserver 127.0.0.53\n")?;
    scene.ensure_late_broadcasts_are_refused()?;
    // It was said, and is shown now.
    scene.terminal.press(CTRL_Q)?;
    scene.terminal.expect("qfence: error: cannot read")?;
    Ok(())
}

#[test]
fn traces_on_a_terminal_whose_output_is_stopped_do_not_stop_the_following() -> Result<()> {
    let mut scene = Scene::new("traces")?;
    scene.fence = scene.fence.with(&["-vv"]);
    scene.launch("", "while read line; do :; done")?;
    scene.terminal.press(CTRL_S)?;
    let outcome = scene.attempt(INTERNET)?;
    ensure!(outcome.is_reached(), "{outcome:?}");
    scene.ensure_late_broadcasts_are_refused()?;
    scene.terminal.press(CTRL_Q)?;
    scene.terminal.expect("qfence: trace: ")?;
    Ok(())
}

#[test]
fn a_terminal_whose_output_is_stopped_keeps_neither_the_supervisor_nor_its_end() -> Result<()> {
    let mut scene = Scene::new("output-end")?;
    let supervisor = scene.launch("", "while read line; do :; done")?;
    scene.terminal.press(CTRL_S)?;
    // Words and refusals that nobody shows.
    scene
        .world
        .write_resolv_conf(&"# too long\n".repeat(10_000))?;
    for port in 8081..8091 {
        let outcome = scene.attempt(&format!("tcp/192.0.2.10/{port}"))?;
        ensure!(outcome.failed_with("ECONNREFUSED"), "{outcome:?}");
    }
    thread::sleep(Duration::from_secs(2));
    scene
        .world
        .host_ip(&format!("address add {LATE} brd + dev br0"))?;
    scene.await_in_policy(LATE_BROADCAST)?;
    let outcome = scene.attempt("tcp/198.18.5.1/8080")?;
    ensure!(outcome.failed_with("ECONNREFUSED"), "{outcome:?}");
    kill(Pid::from_raw(i32::try_from(supervisor)?), Signal::SIGTERM)?;
    ensure_gone(supervisor)?;
    remains::ensure_none(scene.fence.name())
}

#[test]
fn the_last_words_wait_for_no_terminal_whose_output_is_stopped() -> Result<()> {
    let mut scene = Scene::new("last-words")?;
    scene.fence = scene.fence.with(&["--log", "stderr"]);
    let supervisor = scene.launch("", "while read line; do :; done")?;
    scene.terminal.press(CTRL_S)?;
    for port in 8081..8111 {
        let outcome = scene.attempt(&format!("tcp/192.0.2.10/{port}"))?;
        ensure!(outcome.failed_with("ECONNREFUSED"), "{outcome:?}");
    }
    kill(Pid::from_raw(i32::try_from(supervisor)?), Signal::SIGTERM)?;
    ensure_gone(supervisor)?;
    remains::ensure_none(scene.fence.name())
}
