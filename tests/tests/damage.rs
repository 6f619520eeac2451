//! What is taken away from a running fence is reported, by name, within moments; and what is left of
//! the fence goes on holding.

use std::{fs, process::Command};

use anyhow::{Context as _, Result, ensure};
use aya::maps::loaded_maps;
use tests::{
    fence::Fence,
    job::supervisor,
    listener::Listeners,
    remains,
    run::{to_end, wait_until},
    shell::{Shell, state_of},
    world::{SERVER_V4, World},
};

use crate::objects::Objects;

const PORT: u16 = 8080;

struct Scene {
    world: World,
    fence: Fence,
    shell: Shell,
    objects: Objects,
}

impl Scene {
    fn new(label: &str) -> Result<Self> {
        Self::with(label, &[])
    }

    /// A fence that is ended when it is damaged.
    fn ended_by_damage(label: &str) -> Result<Self> {
        Self::with(label, &["--on-damage", "kill", "--keep"])
    }

    fn with(label: &str, options: &[&str]) -> Result<Self> {
        let world = World::new()?;
        let fence = Fence::new(label)?.with(&["--user", "nobody"]).with(options);
        let shell = Shell::start(fence.command(&world.host, "sh"))?;
        let objects = Objects::of_supervisor(supervisor(&fence)?)?;
        Ok(Self {
            world,
            fence,
            shell,
            objects,
        })
    }

    fn pin(&self, hook: &str) -> String {
        format!("/sys/fs/bpf/qfence/{}/{hook}", self.fence.name())
    }

    /// Waits until the supervisor has said it.
    fn await_report(&self, of: &str) -> Result<()> {
        let whole = format!("error: the fence {} is not whole: ", self.fence.name());
        wait_until(of, || {
            let said = self.shell.stderr();
            Ok(said
                .lines()
                .any(|line| line.contains(&whole) && line.contains(of)))
        })
        .with_context(|| self.shell.stderr())
    }

    /// Waits until all that runs in the fence has been ended for `why`, and nothing is left of it.
    fn await_end(mut self, why: &str, others: &[u32]) -> Result<()> {
        let code = self.shell.wait_for_code()?;
        let said = self.shell.stderr();
        assert_eq!(code, 125, "{said}");
        assert!(
            said.contains(&format!("{why}; its processes are killed")),
            "{said}"
        );
        let last = format!(
            "qfence: error: the fence {} was damaged, so all processes in it were ended (--on-damage kill)",
            self.fence.name()
        );
        assert!(said.lines().any(|line| line == last), "{said}");
        for pid in others {
            wait_until("the others are gone", || {
                Ok(state_of(*pid).is_none_or(|state| state == 'Z'))
            })?;
        }
        remains::ensure_none(self.fence.name())?;
        self.objects.wait_until_gone()
    }

    /// A process beside the shell.
    fn bystander(&mut self) -> Result<u32> {
        let pid = self.shell.ask("sleep 1000 > /dev/null 2>&1 & echo $!")?;
        Ok(pid.first().context("a process id")?.parse()?)
    }

    fn empty_policy(&self) -> Result<()> {
        let policy = loaded_maps()
            .flatten()
            .find(|map| {
                self.objects.maps.contains(&map.id()) && map.name_as_str() == Some("POLICY")
            })
            .context("the policy map")?;
        let id = policy.id().to_string();
        bpftool(&["map", "delete", "id", &id, "key", "0", "0", "0", "0"])
    }

    /// Ends the shell; the supervisor then clears what is left.
    fn end(self) -> Result<()> {
        let Self {
            fence,
            mut shell,
            objects,
            ..
        } = self;
        shell.tell("exit 0")?;
        assert_eq!(shell.wait_for_code()?, 0, "{}", shell.stderr());
        remains::ensure_none(fence.name())?;
        objects.wait_until_gone()
    }
}

fn bpftool(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("bpftool");
    command.args(arguments);
    let ended = to_end(command)?;
    ensure!(ended.code() == Some(0), "bpftool {arguments:?}: {ended:?}");
    Ok(())
}

#[test]
fn a_whole_fence_is_not_reported() -> Result<()> {
    let scene = Scene::new("whole")?;
    std::thread::sleep(std::time::Duration::from_millis(2500));
    assert_eq!(scene.shell.stderr(), "");
    scene.end()
}

#[test]
fn a_pin_that_is_removed_is_reported_and_held_on_to() -> Result<()> {
    let mut scene = Scene::new("pin")?;
    let services = Listeners::everywhere(&scene.world.host, PORT)?;
    for hook in ["connect4", "sendmsg4", "egress"] {
        fs::remove_file(scene.pin(hook))?;
        scene.await_report(&format!("the pin of its link for {hook} was removed"))?;
    }
    for way in ["tcp", "udp"] {
        let outcome = scene.shell.attempt(&[&format!("{way}/127.0.0.1/{PORT}")])?;
        assert!(outcome[0].failed_with("ECONNREFUSED"), "{outcome:?}");
    }
    assert_eq!(services.arrivals(), []);
    assert!(!scene.shell.stderr().contains("NOT FENCED"));
    scene.end()
}

#[test]
fn a_link_that_is_detached_is_reported() -> Result<()> {
    let scene = Scene::new("link")?;
    for hook in ["connect6", "ingress", "sock_create", "device"] {
        bpftool(&["link", "detach", "pinned", &scene.pin(hook)])?;
        scene.await_report(&format!(
            "its eBPF program for {hook} is detached: this hook is NOT FENCED"
        ))?;
    }
    scene.end()
}

#[test]
fn a_policy_that_is_removed_is_reported_and_everything_refused() -> Result<()> {
    let mut scene = Scene::new("policy")?;
    let server = Listeners::everywhere(&scene.world.internet, PORT)?;
    let internet = format!("tcp/{SERVER_V4}/{PORT}");
    let before = scene.shell.attempt(&[&internet])?;
    assert!(before[0].is_reached(), "control: {before:?}");

    scene.empty_policy()?;
    scene.await_report("its policy was removed: everything is refused")?;
    let after = scene.shell.attempt(&[&internet])?;
    assert!(after[0].failed_with("ECONNREFUSED"), "{after:?}");
    assert_eq!(server.arrivals().len(), 1);
    scene.end()
}

#[test]
fn a_command_that_is_moved_out_and_a_cgroup_that_is_removed_are_reported() -> Result<()> {
    let mut scene = Scene::with("moved", &["--on-leave", "report"])?;
    let pid = scene.shell.pid()?;
    let root = remains::cgroup2_mount()?.join("cgroup.procs");
    fs::write(&root, pid.to_string())?;
    scene.await_report(
        "the command has left its cgroup: the sockets that it makes are NOT FENCED",
    )?;
    let cgroup = remains::cgroup(scene.fence.name())?;
    fs::remove_dir(&cgroup)?;
    scene.await_report("its cgroup was removed: nothing is fenced any more")?;
    scene.end()
}

#[test]
fn a_pin_of_another_object_is_reported() -> Result<()> {
    let scene = Scene::new("other")?;
    let (mine, other) = (scene.pin("connect4"), scene.pin("connect6"));
    fs::remove_file(&mine)?;
    // The link of another hook, under the name of this one.
    let id = bpftool_id(&other)?;
    bpftool(&["link", "pin", "id", &id, &mine])?;
    scene.await_report("the pin of its link for connect4 was removed")?;
    scene.end()
}

/// The id of the link that is pinned there.
fn bpftool_id(pin: &str) -> Result<String> {
    let mut command = Command::new("bpftool");
    command.args(["link", "show", "pinned", pin]);
    let ended = to_end(command)?;
    let id = ended.stdout.split(':').next().context("an id")?;
    Ok(id.to_owned())
}

#[test]
fn what_runs_in_a_whole_fence_is_not_ended() -> Result<()> {
    let mut scene = Scene::ended_by_damage("wholekill")?;
    let bystander = scene.bystander()?;
    // Policies that come and go are no damage.
    for round in 0..60 {
        let deny = format!("any:{}", 1000 + round);
        let mut command = Command::new(tests::fence::qfence()?);
        command.args(["set", scene.fence.name(), "--deny", &deny]);
        let ended = to_end(command)?;
        ensure!(ended.code() == Some(0), "{ended:?}");
    }
    // On a busy machine `set` can have the lock of the policy for long, which the supervisor says.
    let said = scene.shell.stderr();
    let following = "the host's addresses and nameservers";
    let others: Vec<&str> = said
        .lines()
        .filter(|line| !line.contains(following))
        .collect();
    assert!(others.is_empty(), "{others:?}");
    assert!(state_of(bystander).is_some());
    scene.shell.tell(&format!("kill {bystander}; wait"))?;
    scene.end()
}

#[test]
fn what_runs_in_a_fence_is_ended_when_a_link_is_detached() -> Result<()> {
    let mut scene = Scene::ended_by_damage("linkkill")?;
    let bystander = scene.bystander()?;
    bpftool(&["link", "detach", "pinned", &scene.pin("egress")])?;
    scene.await_end(
        "its eBPF program for egress is detached: this hook is NOT FENCED",
        &[bystander],
    )
}

#[test]
fn what_runs_in_a_fence_is_ended_when_a_link_is_replaced() -> Result<()> {
    let mut scene = Scene::ended_by_damage("replaced")?;
    let bystander = scene.bystander()?;
    let cgroup = remains::cgroup(scene.fence.name())?.display().to_string();
    // Another fence's program in its place: it has that one's policy.
    let world = World::new()?;
    let other = Fence::new("donor")?.with(&["--user", "nobody"]);
    let _shell = Shell::start(other.command(&world.host, "sh"))?;
    let pin = format!("/sys/fs/bpf/qfence/{}/connect4", other.name());
    let program = bpftool_program(&pin)?;
    bpftool(&["link", "detach", "pinned", &scene.pin("connect4")])?;
    let id = [
        "cgroup", "attach", &cgroup, "connect4", "id", &program, "multi",
    ];
    bpftool(&id)?;
    let ended = scene.await_end(
        "its eBPF program for connect4 is detached: this hook is NOT FENCED",
        &[bystander],
    );
    drop(world);
    ended
}

/// The id of the program that a pinned link has attached.
fn bpftool_program(pin: &str) -> Result<String> {
    let mut command = Command::new("bpftool");
    command.args(["link", "show", "pinned", pin]);
    let ended = to_end(command)?;
    let words: Vec<&str> = ended.stdout.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "prog");
    let id = at.and_then(|at| words.get(at + 1));
    Ok((*id.context("a program")?).to_owned())
}

#[test]
fn what_runs_in_a_fence_is_ended_when_its_pins_are_removed() -> Result<()> {
    let mut scene = Scene::ended_by_damage("pinkill")?;
    let bystander = scene.bystander()?;
    fs::remove_file(scene.pin("sock_create"))?;
    scene.await_end("the pin of its link for sock_create was removed: the link lasts only as long as the supervisor lives", &[bystander])
}

#[test]
fn what_runs_in_a_fence_is_ended_when_its_policy_is_removed() -> Result<()> {
    let mut scene = Scene::ended_by_damage("policykill")?;
    let bystander = scene.bystander()?;
    scene.empty_policy()?;
    scene.await_end(
        "its policy was removed: everything is refused",
        &[bystander],
    )
}

#[test]
fn a_command_that_left_its_cgroup_is_ended_too() -> Result<()> {
    let options = ["--on-damage", "kill", "--keep", "--on-leave", "report"];
    let mut scene = Scene::with("leftkill", &options)?;
    let bystander = scene.bystander()?;
    let command = scene.shell.pid()?;
    let root = remains::cgroup2_mount()?.join("cgroup.procs");
    fs::write(&root, command.to_string())?;
    scene.await_end(
        "the command has left its cgroup: the sockets that it makes are NOT FENCED",
        &[bystander, command],
    )
}
