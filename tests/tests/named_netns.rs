//! `--netns`: as in `ip netns exec`, in the namespace of that name and with its files of /etc.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use nix::{
    mount::{MsFlags, mount},
    sys::signal::Signal,
};
use serde_json::Value;
use tests::{
    fence::{Fence, qfence},
    listener::Listeners,
    probe::ProbeResult,
    run::{to_end, wait_until, without_sudo},
    shell::Shell,
    world::{GATEWAY_V4, HOST_V4, SERVER_V4, World},
};

const PORT: u16 = 8080;
const NAME: &str = "other";

/// A world whose internet has a name on its host.
fn world() -> Result<World> {
    let world = World::new()?;
    world.write_etc(
        &format!("netns/{NAME}/resolv.conf"),
        "nameserver 127.0.0.77\n",
    )?;
    world.write_etc(&format!("netns/{NAME}/no-such-file"), "x\n")?;
    const NONE: Option<&str> = None;
    world.host.run(|| {
        fs::create_dir_all("/run/netns")?;
        let tmpfs = Some("tmpfs");
        mount(tmpfs, "/run/netns", tmpfs, MsFlags::empty(), NONE).context("cover /run/netns")?;
        let path = format!("/run/netns/{NAME}");
        fs::write(&path, "")?;
        mount(
            Some(&world.internet.path()),
            path.as_str(),
            NONE,
            MsFlags::MS_BIND,
            NONE,
        )
        .context("name a namespace")
    })?;
    Ok(world)
}

#[test]
fn the_namespace_is_the_host_and_its_files_are_in_etc() -> Result<()> {
    let world = world()?;
    let _there = Listeners::everywhere(&world.internet, PORT)?;
    let _dns = Listeners::everywhere(&world.internet, 53)?;
    let _here = Listeners::everywhere(&world.host, PORT)?;
    for options in [
        &["--user", "nobody"][..],
        &["--user", "root"],
        &["--user", "nobody", "--strict"],
    ] {
        // The probe is a file that a strict command can read only if it is named.
        let program = tests::probe::program()?;
        let program = program.to_str().context("a path")?;
        let read = ["--allow-read", program];
        let fence = Fence::new("netns")?.with(&["--netns", NAME]).with(options);
        let fence = if options.contains(&"--strict") {
            fence.with(&read)
        } else {
            fence
        };
        let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
        assert_eq!(
            shell.ask("cat /etc/resolv.conf")?,
            ["nameserver 127.0.0.77"],
            "{options:?}"
        );
        let outcomes = shell.attempt(&[
            &format!("tcp/{SERVER_V4}/{PORT}"),
            &format!("tcp/127.0.0.1/{PORT}"),
            &format!("tcp/{HOST_V4}/{PORT}"),
            "tcp/127.0.0.77/53",
        ])?;
        let [own, loopback, other, dns] = &outcomes[..] else {
            panic!("{outcomes:?}");
        };
        assert!(own.failed_with("ECONNREFUSED"), "{options:?} {own:?}");
        assert!(
            loopback.failed_with("ECONNREFUSED"),
            "{options:?} {loopback:?}"
        );
        assert!(other.is_reached(), "{options:?} {other:?}");
        assert!(dns.is_reached(), "{options:?} {dns:?}");
        let said = format!("warning: the command does not have /etc/netns/{NAME}/no-such-file");
        assert_eq!(
            shell.stderr().matches(&said).count(),
            1,
            "{}",
            shell.stderr()
        );
        // It is followed.
        world.write_etc(
            &format!("netns/{NAME}/resolv.conf"),
            "nameserver 127.0.0.78\n",
        )?;
        wait_until("the nameserver is another", || {
            Ok(shell
                .attempt(&["tcp/127.0.0.78/53"])?
                .iter()
                .all(ProbeResult::is_reached))
        })?;
        world.write_etc(
            &format!("netns/{NAME}/resolv.conf"),
            "nameserver 127.0.0.77\n",
        )?;
    }
    Ok(())
}

#[test]
fn a_name_that_is_none_is_an_error() -> Result<()> {
    let world = world()?;
    for (name, said) in [
        (
            "no-such",
            "--netns: there is no network namespace \"no-such\" (see `ip netns`)",
        ),
        (
            "../netns/other",
            "--netns: \"../netns/other\" is no name of a network namespace",
        ),
        ("", "--netns: \"\" is no name of a network namespace"),
    ] {
        let fence = Fence::new("netns")?.with(&["--netns", name]);
        let mut command = fence.command(&world.host, "true");
        without_sudo(&mut command);
        let ended = to_end(command)?;
        assert_eq!(ended.code(), Some(125));
        assert!(ended.stderr.contains(said), "{ended:?}");
    }
    Ok(())
}

/// What `policy show` says of a fence.
fn shown(world: &World, fence: &Fence) -> Result<Value> {
    let mut command = world.host.command(qfence()?);
    command.args(["policy", "show", fence.name(), "--json"]);
    Ok(serde_json::from_str(&to_end(command)?.stdout)?)
}

fn set(world: &World, fence: &Fence, options: &[&str]) -> Result<()> {
    let mut command = world.host.command(qfence()?);
    command.args(["set", fence.name()]).args(options);
    let ended = to_end(command)?;
    ensure!(ended.code() == Some(0), "{options:?}: {ended:?}");
    Ok(())
}

/// The gateway and nameserver of the namespace count, and not those of the namespace in which the command runs. They count as
/// soon as the command has ended, whether or not a supervisor follows them.
#[test]
fn a_change_from_outside_is_made_by_the_facts_of_the_namespace() -> Result<()> {
    let world = world()?;
    // The host is the gateway there.
    world
        .internet
        .ip(&format!("route add default via {HOST_V4}"))?;
    let _dns = Listeners::everywhere(&world.internet, 53)?;
    let _services = Listeners::everywhere(&world.host, PORT)?;
    let attempts = [
        format!("tcp/{HOST_V4}/{PORT}"),
        "tcp/127.0.0.77/53".to_owned(),
        "tcp/127.0.0.78/53".to_owned(),
    ];
    let attempts: Vec<&str> = attempts.iter().map(String::as_str).collect();
    for is_orphan in [false, true] {
        let options = ["--user", "nobody", "--netns", NAME, "--dns", "deny"];
        let fence = Fence::new("outside")?.with(&options);
        let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
        let mut reached = || -> Result<Vec<bool>> {
            let outcomes = shell.attempt(&attempts)?;
            Ok(outcomes.iter().map(ProbeResult::is_reached).collect())
        };
        assert_eq!(reached()?, [true, false, false], "the control");
        if is_orphan {
            tests::process::signal(tests::job::supervisor(&fence)?, Signal::SIGKILL)?;
        }
        set(&world, &fence, &["--dns", "auto"])?;
        assert_eq!(reached()?, [true, true, false], "{is_orphan}");
        set(&world, &fence, &["--deny", "gateway"])?;
        let shown = shown(&world, &fence)?;
        let sets = shown["sets"].as_array().context("sets")?;
        let gateway = sets.iter().find(|set| set["set"] == "gateway");
        let members = gateway.context("the set")?["members"].to_string();
        let is_theirs = members.contains(&HOST_V4.to_string());
        assert!(is_theirs, "{is_orphan}: {members}");
        let is_ours = members.contains(&format!("{GATEWAY_V4}\""));
        assert!(!is_ours, "{is_orphan}: {members}");
        assert_eq!(reached()?, [false, true, false], "{is_orphan}");
    }
    Ok(())
}
