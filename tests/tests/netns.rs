//! Network namespaces: one that was made outside, by the same user, is no way to the host.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use nix::{
    mount::{MsFlags, mount},
    sys::stat::{Mode, SFlag, makedev, mknod},
};
use tests::{
    fence::Fence,
    listener::Listeners,
    namespace::NOBODY,
    probe::{self, ProbeResult},
    process::Process,
    run::{to_end, wait_until},
    world::World,
};

const PORT: u16 = 8080;

/// A rootless container's network: a user and network namespace of nobody's, whose way out is a pasta that runs outside
/// of any fence. The gateway's address leads to the host's loopback, as by default.
struct Container {
    world: World,
    services: Listeners,
    _pasta: Process,
    /// A process in it.
    pid: u32,
}

impl Container {
    fn new() -> Result<Self> {
        let world = World::new()?;
        let services = Listeners::everywhere(&world.host, PORT)?;
        world.host.run(give_tun)?;
        let script = "echo $$ >&2; exec sleep 1000";
        let file = tempfile::NamedTempFile::new()?;
        let mut command = world.host.command_as(NOBODY, "pasta");
        command
            .args([
                "--config-net",
                "--foreground",
                "--quiet",
                "--",
                "sh",
                "-c",
                script,
            ])
            .stderr(file.reopen()?);
        let pasta = Process::spawn(command).context("start pasta (package passt)")?;
        let said = || -> Result<String> { Ok(fs::read_to_string(file.path())?) };
        wait_until("the container's network is up", || {
            Ok(said()?.contains('\n') && child_of(pasta.id()).is_some())
        })
        .with_context(|| said().unwrap_or_default())?;
        let pid = child_of(pasta.id()).context("pasta has a child")?;
        let container = Self {
            world,
            services,
            _pasta: pasta,
            pid,
        };
        wait_until("the container has a route", || {
            let mut route = Command::new("nsenter");
            route.args(["-n", "-t", &pid.to_string(), "ip", "route"]);
            Ok(probe::output(&mut route)?.contains("default"))
        })?;
        Ok(container)
    }

    /// What goes before a program that is to run in the container's network, as a process joins it: with no privilege
    /// but its owner's.
    fn joining(&self) -> Vec<String> {
        let pid = self.pid.to_string();
        ["nsenter", "--preserve-credentials", "-U", "-n", "-t", &pid]
            .map(str::to_owned)
            .into()
    }

    /// Tries the host from there, after a launcher.
    fn attempt(&self, launcher: &[String], words: &[String]) -> Result<ProbeResult> {
        // The descriptors of the namespaces are there for whoever is let inherit them.
        let script = format!(
            "exec 3</proc/{0}/ns/user 4</proc/{0}/ns/net; exec \"$@\"",
            self.pid
        );
        let mut command = self.world.host.command("sh");
        command
            .args(["-c", &script, "sh"])
            .args(launcher)
            .args(words)
            .arg(probe::program()?)
            .args(["--timeout-ms", "1000", &format!("tcp/192.0.2.1/{PORT}")]);
        probe::run_command(&mut command)?
            .into_iter()
            .next()
            .context("one outcome")
    }
}

/// What goes before a program that joins by descriptors that it was handed.
fn by_descriptors() -> Vec<String> {
    [
        "nsenter",
        "--preserve-credentials",
        "--user=/proc/self/fd/3",
        "--net=/proc/self/fd/4",
    ]
    .map(str::to_owned)
    .into()
}

/// What makes root nobody, outside of a fence.
fn as_nobody() -> Vec<String> {
    let id = NOBODY.uid.to_string();
    ["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"]
        .map(str::to_owned)
        .into()
}

/// The child of a process, which has one.
fn child_of(pid: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// Lets everybody open /dev/net/tun, as most hosts do.
fn give_tun() -> Result<()> {
    let none: Option<&str> = None;
    mount(
        Some("tun"),
        "/mnt",
        Some("tmpfs"),
        MsFlags::empty(),
        Some("mode=755"),
    )?;
    let node = Path::new("/mnt/tun");
    let everybody = Mode::from_bits_truncate(0o666);
    mknod(node, SFlag::S_IFCHR, everybody, makedev(10, 200))?;
    nix::sys::stat::fchmodat(
        nix::fcntl::AT_FDCWD,
        node,
        everybody,
        nix::sys::stat::FchmodatFlags::FollowSymlink,
    )?;
    mount(Some(node), "/dev/net/tun", none, MsFlags::MS_BIND, none)?;
    Ok(())
}

fn nobody(label: &str) -> Result<Fence> {
    Ok(Fence::new(label)?.with(&["--user", "nobody"]))
}

#[test]
fn a_namespace_that_was_made_outside_is_no_way_to_the_host() -> Result<()> {
    let container = Container::new()?;
    let words = by_descriptors();
    let control = container.attempt(&as_nobody(), &words)?;
    ensure!(control.is_reached(), "control: {control:?}");
    let before = container.services.arrivals().len();
    assert_eq!(before, 1);

    let fence = nobody("foreign")?.with(&["--preserve-fds", "2"]);
    let outcome = container.attempt(&fence.launcher(), &words)?;
    assert!(outcome.failed_with("EPERM"), "{outcome:?}");
    let refusal = fence.await_refusal(|refusal| refusal.hook == "sock_create")?;
    assert_eq!(refusal.rule, "deny-foreign-netns", "{refusal:?}");
    assert_eq!(container.services.arrivals().len(), before);

    let allowed = nobody("joined")?.with(&["--preserve-fds", "2", "--allow-foreign-netns"]);
    let outcome = container.attempt(&allowed.launcher(), &words)?;
    assert!(outcome.is_reached(), "with the option: {outcome:?}");
    Ok(())
}

/// In a namespace of its user's a process has all capabilities, and packet sockets that no program sees. So it cannot
/// even join one, unless somebody hands it a descriptor.
#[test]
fn a_namespace_that_was_made_outside_cannot_be_joined() -> Result<()> {
    let container = Container::new()?;
    let words = container.joining();
    let control = container.attempt(&as_nobody(), &words)?;
    ensure!(control.is_reached(), "control: {control:?}");
    for options in [&[][..], &["--allow-new-privs"]] {
        let fence = nobody("join")?.with(options);
        let mut command = fence.command(&container.world.host, &words[0]);
        command.args(&words[1..]).arg("true");
        let ended = to_end(command)?;
        assert_eq!(ended.code(), Some(1), "{options:?}: {ended:?}");
        ensure!(ended.stderr.contains("Permission denied"), "{ended:?}");
    }
    Ok(())
}

/// Within the fence one process joins another's, and signals it.
#[test]
fn what_is_made_inside_can_be_joined_inside() -> Result<()> {
    let world = World::new()?;
    let fence = nobody("within")?;
    let script = "unshare -Urn sleep 1000 & sleep 0.5; \
                  nsenter --preserve-credentials -U -n -t $! true && kill $! && echo joined";
    let mut command = fence.command(&world.host, "sh");
    let said = probe::output(command.args(["-c", script]))?;
    assert_eq!(said.trim(), "joined");
    Ok(())
}

/// Whoever makes one is alone in it.
#[test]
fn namespaces_that_are_made_inside_can_be_used() -> Result<()> {
    let world = World::new()?;
    let probe = probe::program()?.display().to_string();
    let attempt = format!("{probe} tcp/198.51.100.7/{PORT}");
    for script in [
        format!("unshare -Urn {attempt}"),
        // One within another, and by a process in a cgroup namespace of its own.
        format!("unshare -Urn unshare -n {attempt}"),
        format!("unshare -UrnC {attempt}"),
    ] {
        let fence = nobody("made")?;
        let mut command = fence.command(&world.host, "sh");
        let outcomes = probe::run_command(command.args(["-c", &script]))?;
        // There is a socket, and no way from there.
        assert!(
            outcomes[0].failed_with("ENETUNREACH"),
            "{script}: {outcomes:?}"
        );
    }
    Ok(())
}

/// To join one and to make another there is to be alone again.
#[test]
fn a_namespace_made_inside_of_one_from_outside_can_be_used() -> Result<()> {
    let container = Container::new()?;
    let fence = nobody("again")?.with(&["--preserve-fds", "2"]);
    let words = [by_descriptors(), vec!["unshare".into(), "-n".into()]].concat();
    let outcome = container.attempt(&fence.launcher(), &words)?;
    assert!(outcome.failed_with("ENETUNREACH"), "{outcome:?}");
    Ok(())
}
