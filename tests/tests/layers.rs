//! Each layer carries weight: with one of them taken away from a running fence, named cases fail that
//! hold with both.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use tests::{
    fence::Fence,
    listener::Listeners,
    probe::ProbeResult,
    run::to_end,
    shell::Shell,
    world::{SERVER_V4, World},
};

const PORT: u16 = 8080;

/// The address hooks, and what they alone do: a refusal that says so at once.
const ADDRESS_HOOKS: [(&str, &[&str]); 4] = [
    ("connect4", &["tcp/127.0.0.1/8080", "tcp/192.0.2.10/8080"]),
    ("connect6", &["tcp/::1/8080", "tcp/::ffff:127.0.0.1/8080"]),
    (
        "sendmsg4",
        &["udp/127.0.0.1/8080", "udp/::ffff:192.0.2.10/8080"],
    ),
    ("sendmsg6", &["udp/::1/8080", "udp/fe80::10%eth0/8080"]),
];

/// What only the packet layer stops.
const PACKETS: [&str; 4] = [
    "ping/127.0.0.1",
    "ping/192.0.2.10",
    "ping/::1",
    "ping/2001:db8:3::5",
];

struct Scene {
    world: World,
    services: Listeners,
    fence: Fence,
    shell: Shell,
}

impl Scene {
    /// A shell in a fence.
    fn new(label: &str) -> Result<Self> {
        Self::with(label, &[])
    }

    fn with(label: &str, options: &[&str]) -> Result<Self> {
        let world = World::new()?;
        let services = Listeners::everywhere(&world.host, PORT)?;
        let fence = Fence::new(label)?.with(&["--user", "nobody"]).with(options);
        let shell = Shell::start(fence.command(&world.host, "sh"))?;
        Ok(Self {
            world,
            services,
            fence,
            shell,
        })
    }

    fn take_away(&self, hook: &str) -> Result<()> {
        let pin = format!("/sys/fs/bpf/qfence/{}/{hook}", self.fence.name());
        let mut bpftool = Command::new("bpftool");
        bpftool.args(["link", "detach", "pinned", &pin]);
        let ended = to_end(bpftool)?;
        ensure!(ended.code() == Some(0), "{ended:?}");
        Ok(())
    }

    fn attempt(&mut self, attempt: &str) -> Result<ProbeResult> {
        let outcomes = self.shell.attempt(&["--timeout-ms", "500", attempt])?;
        outcomes.into_iter().next().context("one outcome")
    }
}

#[test]
fn without_the_address_hooks_refusals_do_not_come_at_once_and_nothing_arrives() -> Result<()> {
    let mut scene = Scene::new("no-hooks")?;
    let all = ADDRESS_HOOKS.iter().flat_map(|(_, attempts)| *attempts);
    for attempt in all {
        let outcome = scene.attempt(attempt)?;
        assert!(outcome.failed_with("ECONNREFUSED"), "both: {outcome:?}");
    }
    for (hook, attempts) in ADDRESS_HOOKS {
        scene.take_away(hook)?;
        for attempt in attempts {
            let outcome = scene.attempt(attempt)?;
            assert!(!outcome.is_reached(), "without {hook}: {outcome:?}");
            assert!(
                !outcome.failed_with("ECONNREFUSED"),
                "{hook} does nothing: {outcome:?}"
            );
        }
    }
    assert_eq!(scene.services.arrivals(), []);
    Ok(())
}

/// The kernel loops an IPv4 broadcast back before its egress hook runs (`ip_mc_output` clones the
/// packet, and a clone has no socket): here the address hooks are all there is.
#[test]
fn without_the_address_hooks_a_broadcast_arrives() -> Result<()> {
    const BROADCASTS: [&str; 2] = ["udp/192.0.2.255/8080", "udp-connected/192.0.2.255/8080"];
    // Without a rule that allows some broadcast no socket can: that would be a third layer.
    let mut scene = Scene::with("no-broadcast-hooks", &["--allow", "udp:203.0.113.255:9"])?;
    for attempt in BROADCASTS {
        let outcome = scene.attempt(attempt)?;
        assert!(outcome.failed_with("ECONNREFUSED"), "both: {outcome:?}");
    }
    assert_eq!(scene.services.arrivals(), []);
    for hook in ["connect4", "sendmsg4"] {
        scene.take_away(hook)?;
    }
    for attempt in BROADCASTS {
        scene.attempt(attempt)?;
    }
    assert_eq!(scene.services.arrivals().len(), BROADCASTS.len());
    Ok(())
}

#[test]
fn without_the_packet_layer_pings_reach_the_host() -> Result<()> {
    let mut scene = Scene::new("no-packets")?;
    for attempt in PACKETS {
        let outcome = scene.attempt(attempt)?;
        assert!(!outcome.is_reached(), "both: {outcome:?}");
    }
    scene.take_away("egress")?;
    for attempt in PACKETS {
        // Let out; the answer is not let in.
        let outcome = scene.attempt(attempt)?;
        assert!(!outcome.is_reached(), "ingress does nothing: {outcome:?}");
    }
    scene.take_away("ingress")?;
    for attempt in PACKETS {
        let outcome = scene.attempt(attempt)?;
        assert!(outcome.is_reached(), "egress does nothing: {outcome:?}");
    }
    // The other layer holds on.
    for (_, attempts) in ADDRESS_HOOKS {
        for attempt in attempts {
            let outcome = scene.attempt(attempt)?;
            assert!(outcome.failed_with("ECONNREFUSED"), "{outcome:?}");
        }
    }
    assert_eq!(scene.services.arrivals(), []);
    Ok(())
}

#[test]
fn without_the_memory_of_peers_nobody_on_the_host_is_answered() -> Result<()> {
    const INSIDE: u16 = 5000;
    let mut scene = Scene::new("no-memory")?;
    let serve = tests::probe::program()?;
    scene
        .shell
        .tell(&format!("{} --serve udp/{INSIDE} &", serve.display()))?;
    assert_eq!(scene.shell.next_line()?, "serving");
    let ask = |world: &World| {
        let attempt = format!("udp/127.0.0.1/{INSIDE}");
        tests::probe::run(&world.host, &["--timeout-ms", "500", &attempt])
    };
    let with = ask(&scene.world)?;
    assert!(with[0].is_reached(), "{with:?}");
    scene.take_away("ingress")?;
    let without = ask(&scene.world)?;
    assert!(!without[0].is_reached(), "{without:?}");
    Ok(())
}

#[test]
fn without_either_the_internet_is_there() -> Result<()> {
    let mut scene = Scene::new("internet")?;
    let _server = Listeners::everywhere(&scene.world.internet, PORT)?;
    for hook in ["connect4", "egress"] {
        scene.take_away(hook)?;
        let outcome = scene.attempt(&format!("tcp/{SERVER_V4}/{PORT}"))?;
        assert!(outcome.is_reached(), "{outcome:?}");
    }
    Ok(())
}
