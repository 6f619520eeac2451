//! The life of an attached fence: its supervisor is killed, it is removed, it is left to itself, its cgroup ends.

use std::fs;

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tests::{
    fence::{Fence, qfence},
    listener::Listeners,
    run::{to_end, wait_until},
    shell::{Shell, state_of},
    world::{HOST_V4, World},
};

use super::{
    PORT,
    scene::{Attached, Place, attach, left, listed, remove},
};

/// A host with a service, and a process in a cgroup of its own.
struct Scene {
    world: World,
    _services: Listeners,
    fence: Fence,
    place: Place,
    shell: Shell,
}

impl Scene {
    fn new(label: &str) -> Result<Self> {
        let world = World::new()?;
        let services = Listeners::everywhere(&world.host, PORT)?;
        let fence = Fence::new(label)?;
        let place = Place::new(&fence)?;
        let shell = place.shell(&world.host)?;
        let mut scene = Self {
            world,
            _services: services,
            fence,
            place,
            shell,
        };
        scene.ensure_open()?;
        Ok(scene)
    }

    fn target(&mut self) -> Result<String> {
        Ok(self.shell.pid()?.to_string())
    }

    fn start(&mut self, options: &[&str]) -> Result<Attached> {
        let pid = self.target()?;
        let words = [&["--pid", &pid], options].concat();
        Attached::start(&self.fence, &self.world.host, &words)
    }

    /// The process is not fenced.
    fn ensure_open(&mut self) -> Result<()> {
        let outcomes = self.shell.attempt(&[&format!("tcp/{HOST_V4}/{PORT}")])?;
        ensure!(
            outcomes.iter().all(tests::probe::ProbeResult::is_reached),
            "{outcomes:?}"
        );
        Ok(())
    }

    /// The process is fenced.
    fn ensure_fenced(&mut self) -> Result<()> {
        let outcomes = self.shell.attempt(&[&format!("tcp/{HOST_V4}/{PORT}")])?;
        let refused = outcomes
            .iter()
            .all(|outcome| outcome.failed_with("ECONNREFUSED"));
        ensure!(refused, "{outcomes:?}");
        Ok(())
    }
}

#[test]
fn a_killed_supervisor_leaves_the_fence_and_rm_kills_nobody() -> Result<()> {
    let mut scene = Scene::new("attach-killed")?;
    let mut attached = scene.start(&[])?;
    scene.ensure_fenced()?;
    attached.signal(Signal::SIGKILL)?;
    attached.wait()?;
    scene.ensure_fenced()?;
    let row = listed(&scene.fence)?;
    assert_eq!(row["state"], "orphaned", "{row}");
    assert_eq!(row["place"], scene.fence.name(), "{row}");
    remove(&scene.fence)?;
    scene.ensure_open()?;
    assert!(left(&scene.fence).is_empty(), "{:?}", left(&scene.fence));
    Ok(())
}

#[test]
fn rm_of_a_supervised_fence_lets_go_and_ends_the_supervisor() -> Result<()> {
    let mut scene = Scene::new("attach-rm")?;
    let mut attached = scene.start(&[])?;
    scene.ensure_fenced()?;
    remove(&scene.fence)?;
    scene.ensure_open()?;
    attached.ensure_success()?;
    let said = attached.stderr();
    assert!(
        said.contains("was removed") && !said.contains("not whole"),
        "{said}"
    );
    assert!(left(&scene.fence).is_empty());
    Ok(())
}

#[test]
fn a_signal_lets_go_or_keeps() -> Result<()> {
    let mut scene = Scene::new("attach-signal")?;
    let mut attached = scene.start(&["--on-exit", "keep"])?;
    attached.signal(Signal::SIGTERM)?;
    attached.ensure_success()?;
    scene.ensure_fenced()?;
    assert_eq!(listed(&scene.fence)?["state"], "orphaned");
    remove(&scene.fence)?;
    scene.ensure_open()?;
    let mut attached = scene.start(&[])?;
    scene.ensure_fenced()?;
    attached.signal(Signal::SIGTERM)?;
    attached.ensure_success()?;
    scene.ensure_open()?;
    assert!(left(&scene.fence).is_empty());
    Ok(())
}

#[test]
fn a_fence_that_is_left_to_itself_is_shown_so_and_can_be_changed() -> Result<()> {
    let mut scene = Scene::new("attach-detach")?;
    let pid = scene.target()?;
    let ended = attach(
        &scene.fence,
        &scene.world.host,
        &["--pid", &pid, "--detach"],
    )?;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert!(ended.stderr.contains("has no supervisor"), "{ended:?}");
    scene.ensure_fenced()?;
    let row = listed(&scene.fence)?;
    assert_eq!(row["state"], "detached", "{row}");
    assert_eq!(row["workload"], format!("process sh ({pid})"), "{row}");
    let mut set = scene.world.host.command(qfence()?);
    set.args([
        "set",
        scene.fence.name(),
        "--allow",
        &format!("tcp:{HOST_V4}:{PORT}"),
    ]);
    let ended = to_end(set)?;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    scene.ensure_open()?;
    remove(&scene.fence)?;
    assert!(state_of(pid.parse()?).is_some_and(|state| state != 'Z'));
    Ok(())
}

/// As a unit or container that restarts: another cgroup gets the path.
#[test]
fn a_cgroup_that_ends_takes_its_fence_with_it() -> Result<()> {
    let mut scene = Scene::new("attach-gone")?;
    let mut attached = scene.start(&[])?;
    scene.place.remove()?;
    fs::create_dir(scene.place.path())?;
    attached.ensure_success()?;
    assert!(
        attached.stderr().contains("its cgroup is gone"),
        "{}",
        attached.stderr()
    );
    assert!(left(&scene.fence).is_empty());

    // Nobody notices the end of one that is left to itself, until the next command.
    scene.shell = scene.place.shell(&scene.world.host)?;
    scene.ensure_open()?;
    let pid = scene.target()?;
    let ended = attach(
        &scene.fence,
        &scene.world.host,
        &["--pid", &pid, "--detach"],
    )?;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    scene.ensure_fenced()?;
    scene.place.remove()?;
    fs::create_dir(scene.place.path())?;
    wait_until("it is cleared", || {
        Ok(listed(&scene.fence)?.is_null() && left(&scene.fence).is_empty())
    })
}

/// Fences on a cgroup and on one below it: what either refuses is refused.
#[test]
fn fences_above_and_below_each_other_both_judge() -> Result<()> {
    let mut scene = Scene::new("attach-nested")?;
    let above = Fence::new("attach-nested-above")?;
    let path = scene.place.path().join("below");
    fs::create_dir(&path)?;
    fs::write(path.join("cgroup.procs"), scene.target()?)?;
    let outer = scene.place.path().display().to_string();
    let inner = path.display().to_string();
    let open = ["--default", "allow", "--allow", "any"];
    for is_inner_first in [true, false] {
        for (of_inner, of_outer) in [(&[][..], &open[..]), (&open[..], &[][..])] {
            let mut order = [(&scene.fence, &inner, of_inner), (&above, &outer, of_outer)];
            if !is_inner_first {
                order.reverse();
            }
            for (place, (fence, cgroup, options)) in order.into_iter().enumerate() {
                let words = [&["--cgroup", cgroup, "--detach"], options].concat();
                let ended = attach(fence, &scene.world.host, &words)?;
                ensure!(ended.code() == Some(0), "{ended:?}");
                let names_other = ended.stderr.contains("what either refuses is refused");
                ensure!(names_other == (place == 1), "{ended:?}");
            }
            scene.ensure_fenced()?;
            // The control: the one that allows everything lets the process reach the host alone.
            let inner_denies = of_inner.is_empty();
            remove(if inner_denies { &scene.fence } else { &above })?;
            scene.ensure_open()?;
            remove(if inner_denies { &above } else { &scene.fence })?;
        }
    }
    Ok(())
}

/// The process that takes back a rule for a while is the supervisor's child if it does so late.
#[test]
fn the_process_for_an_overdue_rule_is_reaped() -> Result<()> {
    let mut scene = Scene::new("attach-overdue")?;
    let attached = scene.start(&[])?;
    let mut set = scene.world.host.command(qfence()?);
    set.args(["set", scene.fence.name(), "--for", "2s", "--allow"]);
    set.arg(format!("{HOST_V4}:{PORT}"));
    let ended = to_end(set)?;
    ensure!(ended.code() == Some(0), "{ended:?}");
    scene.ensure_open()?;
    // The process that waits for the time.
    let mut timers = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let words = fs::read(path.join("cmdline")).unwrap_or_default();
        let mut words = words.split(|byte| *byte == 0).skip(1);
        let name = scene.fence.name().as_bytes();
        if words.next() == Some(b"timer") && words.any(|word| word == name) {
            let name = path.file_name().and_then(|name| name.to_str());
            timers.push(name.context("a number")?.parse()?);
        }
    }
    let [timer] = timers[..] else {
        bail!("{timers:?}")
    };
    kill(Pid::from_raw(timer), Signal::SIGKILL)?;
    wait_until("it is taken back", || Ok(scene.ensure_fenced().is_ok()))?;
    let children = format!("/proc/{0}/task/{0}/children", attached.pid());
    wait_until("nobody is left", || {
        let text = fs::read_to_string(&children)?;
        let pids = text.split_whitespace().map(str::parse);
        let pids = pids.collect::<Result<Vec<u32>, _>>()?;
        Ok(pids.into_iter().all(|pid| state_of(pid) != Some('Z')))
    })?;
    Ok(())
}
