//! The supervisor is killed at every system call by which it changes something, from its first to its
//! last: never does the command run unfenced, and the next command clears what was left.
//!
//! That is what `cargo xtask test --whole` does. An ordinary run takes a sample, another one each time: every fourth call
//! of a kind.
//!
//! strace delivers the signal when the supervisor enters the call, so that everything up to there is
//! done and nothing after it. That is every step of start-up and teardown, without a switch in the
//! program that ships. What it does side by side in threads is interrupted wherever that stands, as its first
//! thread begins them, waits for them, or goes on meanwhile, and at each of their own calls of bpf(2).

use std::{
    env, fs,
    hash::{BuildHasher as _, RandomState},
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::Command,
    sync::Mutex,
    thread,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use tests::{
    fence::{qfence, unique_name},
    listener::Listeners,
    probe, remains,
    run::{to_end, wait_until, without_sudo},
    workspace,
    world::World,
};

const PORT: u16 = 8080;

/// The calls that change something outside the process, or that the order of the steps hangs on.
const CALLS: [&str; 15] = [
    "bpf", "mkdir", "rmdir", "unlink", "unlinkat", "rename", "chmod", "openat", "flock", "fcntl",
    "write", "mount", "clone3", "futex", "wait4",
];

/// The one that all of its threads are stopped at; the command makes none.
const OF_ALL_THREADS: &str = "bpf";

/// What the start and the end of a fence must at least consist of: else the trace has missed them.
const AT_LEAST: [(&str, u32); 4] = [("bpf", 40), ("mkdir", 3), ("clone3", 3), ("unlinkat", 8)];

/// How many calls of a kind there are to one of a sample.
const STRIDE: u32 = 4;

/// More calls of one kind than there can be.
const ENDLESS: u32 = 1000;

struct Scene {
    world: World,
    services: Listeners,
    dir: tempfile::TempDir,
}

/// How one run went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Run {
    /// It was killed.
    Killed,
    /// There is no such call any more: it came to its end.
    Whole,
}

impl Scene {
    fn new() -> Result<Self> {
        let world = World::new()?;
        let services = Listeners::everywhere(&world.host, PORT)?;
        let dir = tempfile::Builder::new().prefix("qfence-kill-").tempdir()?;
        workspace::make_readable(dir.path())?;
        fs::set_permissions(
            dir.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o777),
        )?;
        Ok(Self {
            world,
            services,
            dir,
        })
    }

    /// What runs in the fence: it says where it is, and tries to reach the host.
    fn script(report: &Path) -> Result<String> {
        Ok(format!(
            "{{ cat /proc/self/cgroup; {} --timeout-ms 500 tcp/127.0.0.1/{PORT} udp/127.0.0.1/{PORT}; }} \
             >{}",
            probe::program()?.display(),
            report.display()
        ))
    }

    /// Starts a fence whose supervisor is killed at the `nth` call of a kind.
    fn run(&self, call: &str, nth: u32) -> Result<Run> {
        let name = unique_name("killed");
        let report = self.dir.path().join(&name);
        let mut command = self.world.host.command("strace");
        command.args(["-qq", "-o", "/dev/null", "-e"]);
        command.arg(format!("trace={call}"));
        if call == OF_ALL_THREADS {
            command.arg("--follow-forks");
        }
        command.arg("-e");
        command.arg(format!("inject={call}:signal=KILL:when={nth}"));
        command.arg(qfence()?);
        command.args(["exec", "--name", &name, "--user", "nobody", "--log", "none"]);
        command.args(["--", "sh", "-c", &Self::script(&report)?]);
        let ended = to_end({
            without_sudo(&mut command);
            command
        })?;
        let run = match ended.status.signal() {
            Some(signal) if signal == Signal::SIGKILL as i32 => Run::Killed,
            _ => Run::Whole,
        };
        if run == Run::Whole {
            ensure!(ended.code() == Some(0), "{call} {nth}: {ended:?}");
        }
        // What runs in there is done soon; then the next command, of whoever, clears the rest.
        wait_until("nothing is left", || {
            let mut ps = Command::new(qfence()?);
            ps.arg("ps");
            let ps = to_end(ps)?;
            ensure!(ps.code() == Some(0), "{call} {nth}: {ps:?}");
            Ok(remains::of(&name)?.is_empty())
        })
        .with_context(|| format!("{call} {nth}: {:?}", remains::of(&name)))?;
        self.ensure_was_fenced(&name, &report, run)
            .with_context(|| format!("killed at {call} {nth}"))?;
        Ok(run)
    }

    fn ensure_was_fenced(&self, name: &str, report: &Path, run: Run) -> Result<()> {
        let text = fs::read_to_string(report).unwrap_or_default();
        ensure!(run == Run::Killed || !text.is_empty(), "it did not run");
        if !text.is_empty() {
            ensure!(text.contains(&format!("/qfence/{name}\n")), "ran in {text}");
        }
        let arrivals = self.services.arrivals();
        ensure!(arrivals.is_empty(), "the host was reached: {arrivals:?}");
        Ok(())
    }

    /// Kills at calls of a kind, each so many after the one before; how many there are, or up to that many more.
    fn run_all(&self, call: &str, stride: u32) -> Result<u32> {
        let first = 1 + u32::try_from(RandomState::new().hash_one(call) % u64::from(stride))?;
        for nth in (first..ENDLESS).step_by(usize::try_from(stride)?) {
            if self.run(call, nth)? == Run::Whole {
                return Ok(nth - 1);
            }
        }
        anyhow::bail!("there is no end of {call}")
    }
}

#[test]
fn a_supervisor_killed_at_any_step_leaves_nothing_unfenced() -> Result<()> {
    // The control: without the fence, the script's attempts arrive.
    let control = Scene::new()?;
    let report = control.dir.path().join("control");
    let mut outside = control.world.host.command("sh");
    outside.args(["-c", &Scene::script(&report)?]);
    ensure!(to_end(outside)?.code() == Some(0));
    assert_eq!(control.services.arrivals().len(), 2);

    let is_whole = env::var_os(workspace::WHOLE).is_some();
    let stride = if is_whole { 1 } else { STRIDE };
    let calls = Mutex::new(CALLS.to_vec());
    let counts = Mutex::new(Vec::new());
    let work = || -> Result<()> {
        let scene = Scene::new()?;
        loop {
            let Some(call) = calls.lock().map_or(None, |mut calls| calls.pop()) else {
                return Ok(());
            };
            let count = scene.run_all(call, stride)?;
            if let Ok(mut counts) = counts.lock() {
                counts.push((call, count));
            }
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..3).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| {
            let ended = worker.join();
            ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })?;
    let counts = counts.into_inner().unwrap_or_default();
    for (call, least) in AT_LEAST {
        let found = counts.iter().find(|(name, _)| *name == call);
        assert!(
            found.is_some_and(|(_, count)| *count >= least),
            "{call}: {counts:?}"
        );
    }
    Ok(())
}
