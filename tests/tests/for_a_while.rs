//! `set --for`: rules are taken back in time, with and without a supervisor.

use std::{
    fs,
    io::{ErrorKind, Read as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use qfence_common::abi::OWNERS_MAP;
use qfence_user::kernel::pins::of_maps;
use tests::{
    fence::{Fence, qfence},
    listener::Listeners,
    probe::ProbeResult,
    run::{Ended, to_end, wait_until},
    shell::Shell,
    world::{HOST_V4, World},
};

const PORT: u16 = 8080;

/// Long enough for a probe on a busy machine.
const FOR: &str = "6s";

struct Scene {
    world: World,
    fence: Fence,
    inside: Shell,
    _services: Listeners,
}

impl Scene {
    fn new(options: &[&str]) -> Result<Self> {
        let world = World::new()?;
        let services = Listeners::everywhere(&world.host, PORT)?;
        let fence = Fence::new("while")?
            .with(&["--user", "nobody"])
            .with(options);
        let inside = Shell::start(fence.command(&world.host, "sh"))?;
        Ok(Self {
            world,
            fence,
            inside,
            _services: services,
        })
    }

    fn run(&self, launcher: &[&str], words: &[&str]) -> Result<Ended> {
        let program = qfence()?;
        let program = program.to_str().context("a path")?;
        let all = [launcher, &[program], words].concat();
        let mut command = self.world.host.command(all[0]);
        command.args(&all[1..]);
        to_end(command)
    }

    /// Opens a connection by a rule for a while. Its client reads until it ends, and then says so. Returns its other end.
    fn connect_for_a_while(&mut self) -> Result<TcpStream> {
        const HELD: u16 = 9090;
        let listen = || Ok(TcpListener::bind((HOST_V4, HELD))?);
        let listener = self.world.host.run(listen)?;
        let rule = format!("{HOST_V4}:{HELD}");
        self.set(&["--allow", &rule, "--for", FOR])?;
        let read = format!(
            "exec 3<>/dev/tcp/{HOST_V4}/{HELD} && echo begun && cat <&3 > /dev/null 2>&1; echo end"
        );
        self.inside.tell(&format!("bash -c '{read}'"))?;
        assert_eq!(self.inside.next_line()?, "begun");
        Ok(listener.accept()?.0)
    }

    fn set(&self, options: &[&str]) -> Result<()> {
        let ended = self.run(&[], &[&["set", self.fence.name()], options].concat())?;
        assert_eq!((ended.code(), &*ended.stderr), (Some(0), ""), "{ended:?}");
        Ok(())
    }

    fn is_reached(&mut self, way: &str) -> Result<bool> {
        let attempt = format!("{way}/{HOST_V4}/{PORT}");
        let outcomes = self.inside.attempt(&["--timeout-ms", "1000", &attempt])?;
        Ok(outcomes.iter().all(ProbeResult::is_reached))
    }

    /// That the rule is in force, and then is not, which is shown.
    fn ensure_ends(&mut self) -> Result<()> {
        assert!(self.is_reached("tcp")? && self.is_reached("udp")?);
        wait_until("it is taken back", || Ok(!self.is_reached("tcp")?))?;
        assert!(!self.is_reached("udp")?);
        self.ensure_nothing_temporary()
    }

    fn ensure_nothing_temporary(&self) -> Result<()> {
        // The policy is in force a moment before it is stored.
        wait_until("nothing is temporary", || {
            let shown = self.run(&[], &["policy", "show", self.fence.name()])?;
            Ok(!shown.stdout.contains(" until "))
        })?;
        wait_until("nobody waits", || Ok(self.timers()?.is_empty()))
    }

    /// The processes that take rules of the fence back.
    fn timers(&self) -> Result<Vec<i32>> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let words = fs::read(Path::new("/proc").join(name).join("cmdline")).unwrap_or_default();
            let mut words = words.split(|byte| *byte == 0).skip(1);
            let fence = self.fence.name().as_bytes();
            if words.next() == Some(b"timer") && words.any(|word| word == fence) {
                found.push(pid);
            }
        }
        Ok(found)
    }
}

fn target() -> String {
    format!("{HOST_V4}:{PORT}")
}

#[test]
fn a_rule_for_a_while_is_shown_and_taken_back() -> Result<()> {
    let mut scene = Scene::new(&[])?;
    assert!(!scene.is_reached("tcp")?, "control");
    scene.set(&["--allow", &target(), "--for", FOR])?;
    let name = scene.fence.name().to_owned();
    for words in [
        &["policy", "show", &name][..],
        &["explain", &name, &format!("tcp:{}", target())],
    ] {
        let shown = scene.run(&[], words)?;
        let from = format!("set --allow {} until 20", target());
        assert!(shown.stdout.contains(&from), "{shown:?}");
    }
    let shown = scene.run(&[], &["ps"])?.stdout;
    let line = shown.lines().find(|line| line.contains(&name));
    assert!(
        line.is_some_and(|line| line.contains("host+ TEMPORARY")),
        "{shown}"
    );
    scene.ensure_ends()
}

#[test]
fn it_is_taken_back_from_an_orphan_too() -> Result<()> {
    let mut scene = Scene::new(&[])?;
    scene.set(&["--allow", &target(), "--for", FOR])?;
    scene.inside.kill_supervisor()?;
    scene.ensure_ends()
}

/// The supervisor does it late, and it does it.
#[test]
fn a_supervisor_takes_it_back_if_the_process_for_it_was_ended() -> Result<()> {
    let mut scene = Scene::new(&[])?;
    scene.set(&["--allow", &target(), "--for", FOR])?;
    let timers = scene.timers()?;
    assert_eq!(timers.len(), 1);
    kill(Pid::from_raw(timers[0]), Signal::SIGKILL)?;
    scene.ensure_ends()
}

#[test]
fn connections_end_with_the_rule() -> Result<()> {
    let mut scene = Scene::new(&[])?;
    let _held = scene.connect_for_a_while()?;
    assert_eq!(scene.inside.next_line()?, "end");
    scene.ensure_nothing_temporary()
}

/// The connections are looked for by a map. Without it, none can be ended, but the rule is taken back.
#[test]
fn connections_that_could_not_be_ended_with_the_rule_end_later() -> Result<()> {
    let mut scene = Scene::new(&[])?;
    let mut held = scene.connect_for_a_while()?;
    held.set_nonblocking(true)?;
    // It would report damage.
    scene.inside.kill_supervisor()?;
    let pin = of_maps(&Path::new("/sys/fs/bpf/qfence").join(scene.fence.name())).join(OWNERS_MAP);
    let away = pin.with_file_name("away");
    fs::rename(&pin, &away)?;
    wait_until("nothing is temporary", || {
        let shown = scene.run(&[], &["policy", "show", scene.fence.name()])?;
        Ok(!shown.stdout.contains(" until "))
    })?;
    thread::sleep(Duration::from_secs(2));
    assert_eq!(scene.timers()?.len(), 1, "it goes on");
    let read = held.read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(read, Err(ErrorKind::WouldBlock), "control: it stands");
    fs::rename(&away, &pin)?;
    assert_eq!(scene.inside.next_line()?, "end");
    scene.ensure_nothing_temporary()
}

/// The clock of `set` is not that of the kernel, and neither depends on it.
#[test]
fn the_time_is_that_of_the_kernel_in_a_time_namespace() -> Result<()> {
    let mut scene = Scene::new(&[])?;
    for offset in ["86400", "-3600"] {
        let name = scene.fence.name().to_owned();
        let unshare = ["unshare", "--time", "--boottime", offset, "--fork"];
        let words = ["set", &name, "--allow", &target(), "--for", FOR];
        let ended = scene.run(&unshare, &words)?;
        assert_eq!((ended.code(), &*ended.stderr), (Some(0), ""), "{ended:?}");
        scene.ensure_ends()?;
    }
    Ok(())
}

#[test]
fn what_was_in_force_before_is_so_again() -> Result<()> {
    let mut scene = Scene::new(&["--allow", &target()])?;
    let allowed = |scene: &mut Scene| scene.is_reached("tcp");
    assert!(allowed(&mut scene)?);
    scene.set(&["--deny", &target(), "--for", FOR])?;
    assert!(!allowed(&mut scene)?);
    // Meanwhile others change, which must not remove the rule that is hidden for a while.
    scene.set(&["--deny", "192.0.2.200"])?;
    // The same again takes the place of the first, for longer.
    scene.set(&["--deny", &target(), "--for", "8s"])?;
    let shown = scene.run(&[], &["policy", "show", scene.fence.name()])?;
    assert_eq!(shown.stdout.matches(" until ").count(), 1, "{shown:?}");
    wait_until("it is taken back", || allowed(&mut scene))?;
    let shown = scene.run(&[], &["policy", "show", scene.fence.name()])?;
    assert!(shown.stdout.contains("deny 192.0.2.200"), "{shown:?}");
    scene.ensure_nothing_temporary()
}

#[test]
fn a_duration_goes_with_rules_alone() -> Result<()> {
    for options in [
        &["--for", "10m"][..],
        &["--for", "10m", "--monitor"],
        &["--allow", "lan", "--for", "10m", "--dns", "deny"],
        &["--allow", "lan", "--for", "0s"],
        &["--allow", "lan", "--for", "ten minutes"],
    ] {
        let mut command = Command::new(qfence()?);
        command.args(["set", "no-such-fence"]).args(options);
        let ended = to_end(command)?;
        assert_eq!(ended.code(), Some(125), "{options:?}: {ended:?}");
        assert!(!ended.stderr.contains("no-such-fence: "), "{ended:?}");
    }
    // In no fence, nothing waits.
    let mut command = Command::new(qfence()?);
    command.args(["set", "no-such-fence", "--allow", "lan", "--for", "10m"]);
    let started = std::time::Instant::now();
    assert_eq!(to_end(command)?.code(), Some(125));
    assert!(started.elapsed() < Duration::from_secs(60));
    Ok(())
}
