//! A fence on a cgroup with several workloads tells them apart in its record.

use std::{collections::BTreeMap, fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use tests::{
    fence::{Fence, qfence},
    listener::Listeners,
    run::{to_end, wait_until},
    shell::{Shell, state_of},
    world::{HOST_V4, SERVER_V4, World},
};

use super::{
    PORT,
    scene::{Attached, Place, remove},
};

/// Members of the place, by the name of the cgroup and as lines name them.
const WEB: (&str, &str) = ("web.service", "unit web.service");
const DB: (&str, &str) = ("vms.slice/vms-a.slice/db.service", "unit db.service");

/// A place with processes in cgroups below it.
struct Scene {
    world: World,
    fence: Fence,
    place: Place,
    /// Starts processes.
    shell: Shell,
}

impl Scene {
    fn new(label: &str) -> Result<Self> {
        let world = World::new()?;
        let fence = Fence::new(label)?;
        let place = Place::new(&fence)?;
        let shell = Shell::start(world.host.command("sh"))?;
        Ok(Self {
            world,
            fence,
            place,
            shell,
        })
    }

    fn member(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn make(&self, name: &str) -> Result<()> {
        fs::create_dir_all(self.member(name)).context("make a cgroup")
    }

    /// A process in the cgroup of a member tries a port of the host, and ends.
    fn attempt(&mut self, member: &str, port: u16) -> Result<()> {
        let answer = self.probe(member, &format!("tcp/{HOST_V4}/{port}"))?;
        ensure!(answer.contains("ECONNREFUSED"), "{answer}");
        Ok(())
    }

    /// A process in the cgroup of a member makes attempts, and ends. Returns what they came to.
    fn probe(&mut self, member: &str, attempts: &str) -> Result<String> {
        let procs = self.member(member).join("cgroup.procs");
        let answer = self.shell.ask(&format!(
            "(echo 0 >{}; exec {} {attempts})",
            procs.display(),
            tests::probe::program()?.display()
        ))?;
        Ok(answer.concat())
    }

    fn start(&self) -> Result<Attached> {
        self.start_at("", &[])
    }

    /// Fences the place, or a member of it.
    fn start_at(&self, member: &str, options: &[&str]) -> Result<Attached> {
        let path = self.member(member).display().to_string();
        let words = [&["--cgroup", &path], options].concat();
        Attached::start(&self.fence, &self.world.host, &words)
    }

    /// Waits for the line about attempts to reach a port of the host. Returns its workload.
    fn workload(&self, port: u16) -> Result<Value> {
        let mut found = None;
        wait_until("the attempt is a line", || {
            let lines = self.fence.lines()?;
            found = lines.into_iter().find(|line| line["port"] == port);
            Ok(found.is_some())
        })?;
        let found = found.context("a line")?;
        Ok(found["workload"].clone())
    }

    /// The output of a command that succeeds.
    fn qfence(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new(qfence()?);
        command.args(words);
        let ended = to_end(command)?;
        ensure!(ended.code() == Some(0), "{ended:?}");
        Ok(ended.stdout)
    }

    /// The ports on the lines that `logs` shows of a workload.
    fn logged(&self, workload: &str) -> Result<Vec<u64>> {
        let name = self.fence.name();
        let shown = self.qfence(&["logs", name, "--json", "--workload", workload])?;
        let lines = shown.lines().map(|line| {
            let line: Value = serde_json::from_str(line)?;
            line["port"].as_u64().with_context(|| line.to_string())
        });
        lines.collect()
    }
}

#[test]
fn a_line_names_the_member_and_logs_selects_it() -> Result<()> {
    let mut scene = Scene::new("members")?;
    for (name, _) in [WEB, DB] {
        scene.make(name)?;
    }
    // What a member makes in its own cgroup is the member's.
    scene.make("web.service/other.service")?;
    let mut attached = scene.start()?;
    scene.attempt(WEB.0, 1)?;
    scene.attempt(DB.0, 2)?;
    scene.attempt("web.service/other.service", 3)?;
    scene.attempt("", 4)?;
    let own = format!("cgroup {}", scene.fence.name());
    for (port, workload) in [(1, WEB.1), (2, DB.1), (3, WEB.1), (4, &own)] {
        assert_eq!(scene.workload(port)?, workload, "{port}");
    }
    assert_eq!(scene.logged("web")?, [1, 3]);
    assert_eq!(scene.logged("db.service")?, [2]);
    assert_eq!(scene.logged("unit")?, Vec::<u64>::new());

    // Without a supervisor `logs` is the reader.
    attached.signal(Signal::SIGKILL)?;
    attached.wait()?;
    scene.attempt(DB.0, 5)?;
    assert_eq!(scene.logged("db")?, [2, 5]);
    remove(&scene.fence)
}

#[test]
fn a_member_that_is_gone_is_named_if_it_was_there_long_enough() -> Result<()> {
    let mut scene = Scene::new("members-gone")?;
    scene.make(WEB.0)?;
    scene.make(DB.0)?;
    let attached = scene.start()?;
    // Members were listed before repeats are lines. The attempts are of one process.
    let mut shell = Shell::start(scene.world.host.command("bash"))?;
    let pid = shell.pid()?;
    fs::write(scene.member(DB.0).join("cgroup.procs"), pid.to_string())?;
    let again = |line: &Value| line["kind"] == "repeats" && line["workload"] == DB.1;
    wait_until("repeats are a line", || {
        shell.ask(&format!("echo 2>/dev/null >/dev/tcp/{HOST_V4}/1; true"))?;
        Ok(scene.fence.lines()?.iter().any(again))
    })?;

    attached.signal(Signal::SIGSTOP)?;
    let supervisor = attached.pid();
    wait_until("it has stopped", || Ok(state_of(supervisor) == Some('T')))?;
    scene.make("late.service")?;
    for (name, port) in [(WEB.0, 2), ("late.service", 3)] {
        scene.attempt(name, port)?;
        fs::remove_dir(scene.member(name)).context("remove a cgroup")?;
    }
    attached.signal(Signal::SIGCONT)?;
    assert_eq!(scene.workload(2)?, WEB.1);
    assert_eq!(scene.workload(3)?, Value::Null);
    assert_eq!(scene.logged("web")?, [2]);
    Ok(())
}

/// What `--log-allowed` told of a port, by workload: calls, and packets in both directions.
fn told(lines: &[Value], port: u16) -> BTreeMap<String, [u64; 3]> {
    let mut told: BTreeMap<String, [u64; 3]> = BTreeMap::new();
    let is_told = |line: &&Value| {
        line["port"] == port && matches!(line["kind"].as_str(), Some("allowed" | "traffic"))
    };
    for line in lines.iter().filter(is_told) {
        let workload = line["workload"].as_str().unwrap_or_default();
        let sums = told.entry(workload.to_owned()).or_default();
        for (sum, field) in sums
            .iter_mut()
            .zip(["calls", "sent_packets", "received_packets"])
        {
            *sum += line[field].as_u64().unwrap_or_default();
        }
    }
    told
}

#[test]
fn what_is_let_through_is_told_by_member() -> Result<()> {
    let mut scene = Scene::new("members-allowed")?;
    let _server = Listeners::everywhere(&scene.world.internet, PORT)?;
    scene.make(DB.0)?;
    // Several cgroups of a member have lines of their own with its name.
    scene.make("web.service/other.service")?;
    let mut attached = scene.start_at("", &["--log-allowed"])?;
    let both = format!("tcp/{SERVER_V4}/{PORT} udp/{SERVER_V4}/{PORT}");
    for (member, times) in [(WEB.0, 1), ("web.service/other.service", 1), (DB.0, 3)] {
        for _ in 0..times {
            let answer = scene.probe(member, &both)?;
            ensure!(answer.matches("hello from").count() == 2, "{answer}");
        }
    }
    wait_until("each member has a line", || {
        let told = told(&scene.fence.lines()?, PORT);
        Ok([WEB, DB].iter().all(|(_, name)| told.contains_key(*name)))
    })?;
    let of_db = scene.logged("db")?;
    ensure!(!of_db.is_empty() && of_db.iter().all(|port| *port == u64::from(PORT)));
    let shown = scene.qfence(&["logs", scene.fence.name()])?;
    let words = format!("allowed tcp {SERVER_V4}:{PORT} of {} calls ", DB.1);
    ensure!(shown.contains(&words), "{shown}");
    let suggested = scene.qfence(&["policy", "suggest", "--allowed", scene.fence.name()])?;
    let rule = format!("tcp:{SERVER_V4}:{PORT}");
    ensure!(suggested.matches(&rule).count() == 1, "{suggested}");

    attached.signal(Signal::SIGTERM)?;
    attached.ensure_success()?;
    let told = told(&scene.fence.lines()?, PORT);
    let calls = told.iter().map(|(name, [calls, ..])| (&**name, *calls));
    let calls: Vec<_> = calls.collect();
    assert_eq!(calls, [(DB.1, 6), (WEB.1, 4)], "{told:?}");
    // A connection and a datagram have at least this many packets.
    for (name, [calls, sent, received]) in &told {
        ensure!(*sent >= 2 * calls && received >= calls, "{name}: {told:?}");
    }
    Ok(())
}

/// One workload has one line for a destination, whatever cgroups it makes.
#[test]
fn the_cgroups_of_one_workload_are_told_together() -> Result<()> {
    let mut scene = Scene::new("members-one")?;
    let _server = Listeners::everywhere(&scene.world.internet, PORT)?;
    scene.make("web.service/other.service")?;
    let mut attached = scene.start_at(WEB.0, &["--log-allowed"])?;
    for member in [WEB.0, "web.service/other.service"] {
        let answer = scene.probe(member, &format!("tcp/{SERVER_V4}/{PORT}"))?;
        ensure!(answer.contains("hello from"), "{answer}");
    }
    attached.signal(Signal::SIGTERM)?;
    attached.ensure_success()?;
    let lines = scene.fence.lines()?;
    let first: Vec<_> = lines
        .iter()
        .filter(|line| line["kind"] == "allowed")
        .collect();
    ensure!(first.len() == 1, "{lines:?}");
    let told = told(&lines, PORT);
    let calls: Vec<_> = told.values().map(|[calls, ..]| *calls).collect();
    assert_eq!(calls, [2], "{told:?}");
    Ok(())
}
