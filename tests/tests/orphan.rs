//! A fence outlives its supervisor: whatever becomes of that, the host stays out of reach.

use std::process::Command;

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tests::{
    fence::{Fence, qfence},
    job::supervisor,
    listener::Listeners,
    namespace::NOBODY,
    probe::{self, ProbeResult},
    remains,
    run::{fenced, to_end, wait_until},
    shell::{Shell, state_of},
    world::{HOST_LINK_LOCAL, SERVER_V4, SERVER_V6, World},
};

use crate::objects::Objects;

const PORT: u16 = 8080;

/// A host and an internet with services on every address.
struct Scene {
    world: World,
    host: Listeners,
    _internet: Listeners,
}

impl Scene {
    fn new() -> Result<Self> {
        let world = World::new()?;
        let host = Listeners::everywhere(&world.host, PORT)?;
        let internet = Listeners::everywhere(&world.internet, PORT)?;
        Ok(Self {
            world,
            host,
            _internet: internet,
        })
    }

    fn attempts(addresses: &[String]) -> Vec<String> {
        let both = |address: &String| ["tcp", "udp"].map(|way| format!("{way}/{address}/{PORT}"));
        addresses.iter().flat_map(both).collect()
    }

    fn to_host() -> Vec<String> {
        let mut addresses: Vec<String> = World::host_addresses().map(|ip| ip.to_string()).into();
        addresses.extend(["127.0.0.1", "::1", "0.0.0.0", "::ffff:192.0.2.10"].map(String::from));
        addresses.push(format!("{HOST_LINK_LOCAL}%eth0"));
        Self::attempts(&addresses)
    }

    /// The positive control: the same attempts arrive without a fence.
    fn ensure_host_answers(&self) -> Result<()> {
        let before = self.host.arrivals().len();
        let attempts = Self::to_host();
        let attempts: Vec<&str> = attempts.iter().map(String::as_str).collect();
        let outcomes = probe::run_as(NOBODY, &self.world.host, &attempts)?;
        assert!(
            outcomes.iter().all(ProbeResult::is_reached),
            "{outcomes:#?}"
        );
        assert_eq!(self.host.arrivals().len(), before + attempts.len());
        Ok(())
    }

    /// From the shell the host is refused and hears nothing, and the internet answers.
    fn ensure_fenced(&self, shell: &mut Shell) -> Result<()> {
        let before = self.host.arrivals();
        let attempts = Self::to_host();
        let attempts: Vec<&str> = attempts.iter().map(String::as_str).collect();
        for outcome in shell.attempt(&attempts)? {
            assert!(outcome.failed_with("ECONNREFUSED"), "{outcome:?}");
        }
        assert_eq!(self.host.arrivals(), before);
        let servers = Self::attempts(&[SERVER_V4, SERVER_V6].map(|ip| ip.to_string()));
        let servers: Vec<&str> = servers.iter().map(String::as_str).collect();
        let outcomes = shell.attempt(&servers)?;
        assert_eq!(outcomes.len(), 4);
        assert!(
            outcomes.iter().all(ProbeResult::is_reached),
            "{outcomes:#?}"
        );
        Ok(())
    }
}

/// What `ps --json` says of a fence; `null` if nothing.
fn listed(fence: &Fence) -> Result<Value> {
    let mut ps = Command::new(qfence()?);
    ps.args(["ps", "--json"]);
    let ended = to_end(ps)?;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let rows: Vec<Value> = serde_json::from_str(&ended.stdout)?;
    let found = rows.into_iter().find(|row| row["name"] == fence.name());
    Ok(found.unwrap_or(Value::Null))
}

/// Has `rm` end the fence, with these options; there is nothing left afterwards.
fn remove(fence: &Fence, options: &[&str]) -> Result<()> {
    let mut rm = Command::new(qfence()?);
    rm.arg("rm").args(options).arg(fence.name());
    let ended = to_end(rm)?;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    remains::ensure_none(fence.name())?;
    assert_eq!(listed(fence)?, Value::Null);
    Ok(())
}

fn is_gone(pid: u32) -> bool {
    state_of(pid).is_none_or(|state| state == 'Z')
}

#[test]
fn after_kill_9_of_the_supervisor_the_command_stays_fenced_until_rm() -> Result<()> {
    let scene = Scene::new()?;
    let fence = Fence::new("orphan")?.with(&["--user", "nobody"]);
    let mut shell = Shell::start(fence.command(&scene.world.host, "sh"))?;
    let pid = shell.pid()?;
    let objects = Objects::of_supervisor(shell.started())?;
    scene.ensure_host_answers()?;
    scene.ensure_fenced(&mut shell)?;
    let running = listed(&fence)?;
    assert_eq!(running["state"], "running", "{running}");
    assert_eq!(running["supervisor"], shell.started(), "{running}");

    shell.kill_supervisor()?;
    scene.ensure_fenced(&mut shell)?;
    scene.ensure_host_answers()?;
    let orphaned = listed(&fence)?;
    assert_eq!(orphaned["state"], "orphaned", "{orphaned}");
    assert_eq!(orphaned["pids"], serde_json::json!([pid]), "{orphaned}");
    assert_eq!(orphaned["command"], serde_json::json!(["sh"]), "{orphaned}");
    remains::ensure_whole(fence.name())?;
    // Maps that only the supervisor needs, such as the traces', may be gone; what fences is not.
    let left = objects.left();
    assert_eq!(left.programs, objects.programs);
    assert_eq!(left.links, objects.links);
    // Whoever comes by, to list or to start another, leaves it alone.
    let other = Fence::new("passer-by")?.with(&["--user", "nobody"]);
    assert_eq!(to_end(fenced(&other, &["true"]))?.code(), Some(0));
    scene.ensure_fenced(&mut shell)?;

    remove(&fence, &[])?;
    assert!(is_gone(pid));
    objects.wait_until_gone()
}

#[test]
fn what_is_kept_stays_fenced_and_supervised_until_rm() -> Result<()> {
    let scene = Scene::new()?;
    let fence = Fence::new("kept")?.with(&["--user", "nobody", "--keep"]);
    let mut command = fence.command(&scene.world.host, "sh");
    // The shell that talks is not the command but what that leaves behind.
    command.args(["-c", "exec 3<&0; setsid sh <&3 3<&- & exit 6"]);
    let mut shell = Shell::start(command)?;
    let pid = shell.pid()?;
    assert_eq!(shell.wait_for_code()?, 6);
    let stderr = shell.stderr();
    let name = fence.name();
    let supervisor = supervisor(&fence)?;
    assert_eq!(
        stderr,
        format!(
            "qfence: processes remain in the fence {name}; end them with `qfence-user rm {name}`; process {supervisor} \
             supervises it in the background\n"
        )
    );
    let running = listed(&fence)?;
    assert_eq!(running["state"], "running", "{running}");
    assert_eq!(running["pids"], serde_json::json!([pid]), "{running}");
    scene.ensure_host_answers()?;
    scene.ensure_fenced(&mut shell)?;
    remove(&fence, &[])?;
    assert!(is_gone(pid));
    wait_until("the supervisor has ended", || Ok(is_gone(supervisor)))
}

#[test]
fn with_keep_and_nothing_to_keep_nothing_is_kept() -> Result<()> {
    let fence = Fence::new("kept")?.with(&["--user", "nobody", "--keep"]);
    let ended = to_end(fenced(&fence, &["sh", "-c", "exit 6"]))?;
    assert_eq!((ended.code(), ended.stderr.as_str()), (Some(6), ""));
    remains::ensure_none(fence.name())
}

#[test]
fn without_keep_what_the_command_leaves_is_killed() -> Result<()> {
    let fence = Fence::new("left")?.with(&["--user", "nobody"]);
    let script = "trap '' TERM HUP; setsid sleep 1000 >/dev/null 2>&1 & echo $!; exit 6";
    let ended = to_end(fenced(&fence, &["sh", "-c", script]))?;
    assert_eq!(ended.code(), Some(6), "{ended:?}");
    let pid = ended.stdout.trim().parse().context(ended.stdout)?;
    assert!(is_gone(pid), "{pid} is in state {:?}", state_of(pid));
    remains::ensure_none(fence.name())
}

#[test]
fn rm_ends_a_running_fence() -> Result<()> {
    for setting in ["true", "trap '' HUP"] {
        let fence = Fence::new("running")?.with(&["--user", "nobody"]);
        let mut shell = Shell::start(fenced(&fence, &["sh"]))?;
        let objects = Objects::of_supervisor(shell.started())?;
        shell.ask(setting)?;
        remove(&fence, &[])?;
        assert_eq!(shell.wait_for_code()?, 143);
        assert_eq!(shell.stderr(), "");
        objects.wait_until_gone()?;
    }
    Ok(())
}

#[test]
fn rm_kills_what_does_not_end() -> Result<()> {
    let fence = Fence::new("stubborn")?.with(&["--user", "nobody"]);
    let mut shell = Shell::start(fenced(&fence, &["sh"]))?;
    shell.ask("trap 'echo no' TERM")?;
    shell.tell("while :; do sleep 0.02; done")?;
    remove(&fence, &["--time", "1"])?;
    assert_eq!(shell.next_line()?, "no");
    assert_eq!(shell.wait_for_code()?, 137);
    Ok(())
}

#[test]
fn rm_ends_a_fence_that_is_stopped() -> Result<()> {
    let fence = Fence::new("stopped")?.with(&["--user", "nobody"]);
    let mut shell = Shell::start(fenced(&fence, &["sh"]))?;
    let pid = shell.pid()?;
    for pid in [pid, shell.started()] {
        kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGSTOP)?;
        wait_until("it has stopped", || Ok(state_of(pid) == Some('T')))?;
    }
    remove(&fence, &[])?;
    assert_eq!(shell.wait_for_code()?, 143);
    Ok(())
}

#[test]
fn rm_of_several_tries_them_all() -> Result<()> {
    let fence = Fence::new("several")?.with(&["--user", "nobody"]);
    let mut shell = Shell::start(fenced(&fence, &["sh"]))?;
    let mut rm = Command::new(qfence()?);
    rm.args(["rm", "no-such-fence", "a/b", fence.name()]);
    let ended = to_end(rm)?;
    assert_eq!(ended.code(), Some(125));
    assert_eq!(
        ended.stderr,
        "qfence: error: there is no fence named \"no-such-fence\"\n\
         qfence: error: \"a/b\" cannot be the name of a fence: it must be a file name of at most \
         80 bytes, without control characters, and not begin with \"cgroup.\"\n"
    );
    assert_eq!(shell.wait_for_code()?, 143);
    remains::ensure_none(fence.name())
}
