//! A fence on a cgroup with several workloads tells them apart in its record.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use tests::{
    fence::{Fence, qfence},
    run::{to_end, wait_until},
    shell::{Shell, state_of},
    world::{HOST_V4, World},
};

use super::scene::{Attached, Place, remove};

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
        let procs = self.member(member).join("cgroup.procs");
        let answer = self.shell.ask(&format!(
            "(echo 0 >{}; exec {} tcp/{HOST_V4}/{port})",
            procs.display(),
            tests::probe::program()?.display()
        ))?;
        ensure!(answer.concat().contains("ECONNREFUSED"), "{answer:?}");
        Ok(())
    }

    fn start(&self) -> Result<Attached> {
        let path = self.place.path().display().to_string();
        Attached::start(&self.fence, &self.world.host, &["--cgroup", &path])
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

    /// The ports on the lines that `logs` shows of a workload.
    fn logged(&self, workload: &str) -> Result<Vec<u64>> {
        let mut logs = Command::new(qfence()?);
        let name = self.fence.name();
        logs.args(["logs", name, "--json", "--workload", workload]);
        let ended = to_end(logs)?;
        ensure!(ended.code() == Some(0), "{ended:?}");
        let lines = ended.stdout.lines().map(|line| {
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
