//! A process that leaves the fence's cgroup is killed, unless `--on-leave report` is given. Root moves it here; systemd
//! would do it on request.

use std::{
    fs,
    path::{Path, PathBuf},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context as _, Result};
use tests::{
    fence::Fence,
    remains,
    run::wait_until,
    shell::{Shell, state_of},
    world::World,
};

/// Longer than the time between two looks of the supervisor.
const LOOK: Duration = Duration::from_millis(1500);

/// The end of the report about a process that was killed.
const KILLED: &str = "it was killed (--on-leave report leaves it)";

/// A fence with a shell, and processes that the shell has started.
struct Scene {
    _world: World,
    fence: Fence,
    shell: Shell,
}

impl Scene {
    fn new(options: &[&str]) -> Result<Self> {
        let world = World::new()?;
        let fence = Fence::new("leaving")?
            .with(&["--user", "nobody"])
            .with(options);
        let shell = Shell::start(fence.command(&world.host, "sh"))?;
        Ok(Self {
            _world: world,
            fence,
            shell,
        })
    }

    /// Starts a process in the fence.
    fn sleeper(&mut self) -> Result<u32> {
        let pid = self.shell.ask("sleep 1000 > /dev/null 2>&1 & echo $!")?;
        pid.first().context("a number")?.parse().context("a number")
    }

    /// The file that moves a process to the fence's cgroup.
    fn inside(&self) -> Result<PathBuf> {
        remains::cgroup(self.fence.name())
    }

    /// Waits until the supervisor has reported that a process has left, with the consequence.
    fn await_report(&self, pid: u32, consequence: &str) -> Result<()> {
        wait_until("the supervisor reports it", || {
            let said = self.shell.stderr();
            let mut lines = said.lines();
            let begin = format!("error: process {pid} (");
            Ok(lines.any(|line| {
                line.contains(&begin)
                    && line.contains(
                        " has left the fence's cgroup: the sockets that it makes are NOT FENCED",
                    )
                    && line.ends_with(consequence)
            }))
        })
    }
}

/// Moves a process to the root of the hierarchy.
fn take_out(pid: u32) -> Result<()> {
    let procs = remains::cgroup2_mount()?.join("cgroup.procs");
    fs::write(procs, pid.to_string()).context("move a process out of its fence")
}

fn is_alive(pid: u32) -> bool {
    !matches!(state_of(pid), None | Some('Z' | 'X'))
}

/// Takes a process out of the fence until the supervisor has noticed it. The supervisor knows a process only after it has
/// listed it once, so the process is put back for a while, and taken out again.
fn take_out_until(scene: &Scene, pid: u32, is_noticed: impl Fn() -> bool) -> Result<()> {
    let root = remains::cgroup2_mount()?.join("cgroup.procs");
    take_to_until(scene, &root, pid, is_noticed)
}

/// As [`take_out_until`], to the cgroup of this `cgroup.procs`.
fn take_to_until(scene: &Scene, to: &Path, pid: u32, is_noticed: impl Fn() -> bool) -> Result<()> {
    let procs = scene.inside()?.join("cgroup.procs");
    wait_until("the supervisor notices a process that leaves", || {
        // A process that was killed cannot be moved.
        let _ = fs::write(&procs, pid.to_string());
        sleep(LOOK);
        let _ = fs::write(to, pid.to_string());
        sleep(LOOK);
        Ok(is_noticed())
    })
}

/// Starts a process, takes it out, and sees it killed.
fn await_look(scene: &mut Scene) -> Result<()> {
    let pid = scene.sleeper()?;
    take_out_until(scene, pid, || !is_alive(pid))?;
    scene.await_report(pid, KILLED)
}

#[test]
fn a_process_that_leaves_is_killed_and_others_are_not() -> Result<()> {
    let mut scene = Scene::new(&[])?;
    let [stays, below] = [scene.sleeper()?, scene.sleeper()?];
    let child = scene.inside()?.join("below");
    fs::create_dir(&child)?;
    fs::write(child.join("cgroup.procs"), below.to_string())?;
    await_look(&mut scene)?;
    assert!(is_alive(stays) && is_alive(below));
    assert_eq!(scene.shell.ask("echo here")?, ["here"]);
    Ok(())
}

#[test]
fn the_command_itself_is_killed() -> Result<()> {
    let mut scene = Scene::new(&[])?;
    await_look(&mut scene)?;
    let command = scene.shell.pid()?;
    take_out(command)?;
    scene.await_report(command, KILLED)?;
    assert_eq!(scene.shell.wait_for_code()?, 128 + 9);
    Ok(())
}

#[test]
fn it_is_only_reported_if_that_is_wanted() -> Result<()> {
    let mut scene = Scene::new(&["--on-leave", "report"])?;
    let pid = scene.sleeper()?;
    let stays = scene.sleeper()?;
    let named = format!("process {pid} (sleep");
    take_out_until(&scene, pid, || scene.shell.stderr().contains(&named))?;
    scene.await_report(pid, "NOT FENCED")?;
    assert!(is_alive(pid) && is_alive(stays));
    assert!(!scene.shell.stderr().contains(&format!("process {stays} ")));
    // It is not in the fence any more, so nothing else ends it.
    fs::write(scene.inside()?.join("cgroup.procs"), pid.to_string())?;
    Ok(())
}

#[test]
fn a_cgroup_of_the_same_name_elsewhere_is_outside() -> Result<()> {
    let mut scene = Scene::new(&[])?;
    let pid = scene.sleeper()?;
    let top = remains::cgroup2_mount()?.join(format!("elsewhere-{}", std::process::id()));
    let twin = top.join("qfence").join(scene.fence.name());
    fs::create_dir_all(&twin)?;
    let noticed = take_to_until(&scene, &twin.join("cgroup.procs"), pid, || !is_alive(pid));
    // A process that is still there is moved, so that the cgroups can be removed.
    let _ = take_out(pid);
    wait_until("the cgroup is empty", || Ok(fs::remove_dir(&twin).is_ok()))?;
    fs::remove_dir(top.join("qfence"))?;
    fs::remove_dir(&top)?;
    noticed
}
