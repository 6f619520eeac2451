//! The policy of a fence is changed while it runs.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tests::{
    fence::{Fence, qfence},
    listener::Listeners,
    probe::ProbeResult,
    run::{Ended, to_end, wait_until},
    shell::Shell,
    world::{GATEWAY_V4, GATEWAY_V6, HOST_V4, HOST_V6, SERVER_V4, SERVER_V6, World},
};

const PORT: u16 = 8080;
const OTHER: u16 = 8081;

/// A host and an internet with services, and a shell in a fence.
struct Scene {
    world: World,
    fence: Fence,
    inside: Shell,
    _services: Vec<Listeners>,
}

impl Scene {
    fn new(label: &str, options: &[&str]) -> Result<Self> {
        let world = World::new()?;
        Self::on(world, label, options)
    }

    fn on(world: World, label: &str, options: &[&str]) -> Result<Self> {
        let mut services = Vec::new();
        for port in [PORT, OTHER] {
            services.push(Listeners::everywhere(&world.host, port)?);
            services.push(Listeners::everywhere(&world.internet, port)?);
        }
        let fence = Fence::new(label)?.with(&["--user", "nobody"]).with(options);
        let inside = Shell::start(fence.command(&world.host, "sh"))?;
        Ok(Self {
            world,
            fence,
            inside,
            _services: services,
        })
    }

    fn set(&self, options: &[&str]) -> Result<Ended> {
        let mut command = self.world.host.command(qfence()?);
        command.args(["set", self.fence.name()]).args(options);
        to_end(command)
    }

    /// Whether `ps` says that nothing is refused.
    fn listed_as_monitored(&self) -> Result<Option<bool>> {
        let mut command = self.world.host.command(qfence()?);
        command.args(["ps", "--json"]);
        let fences: serde_json::Value = serde_json::from_str(&to_end(command)?.stdout)?;
        let all = fences.as_array().context("a list")?;
        let own = all.iter().find(|fence| fence["name"] == self.fence.name());
        Ok(own.context("the fence is listed")?["monitor"].as_bool())
    }

    /// Changes the policy, which must work without a word.
    fn change(&self, options: &[&str]) -> Result<()> {
        let ended = self.set(options)?;
        assert_eq!(ended.code(), Some(0), "{options:?}: {ended:?}");
        assert_eq!((&*ended.stdout, &*ended.stderr), ("", ""), "{options:?}");
        Ok(())
    }

    fn attempt(
        &mut self,
        way: &str,
        address: impl std::fmt::Display,
        port: u16,
    ) -> Result<ProbeResult> {
        let attempt = format!("{way}/{address}/{port}");
        let outcomes = self.inside.attempt(&["--timeout-ms", "1000", &attempt])?;
        outcomes.into_iter().next().context("one outcome")
    }

    /// Makes sure that TCP and UDP alike reach a port, or are refused.
    #[track_caller]
    fn assert_all(
        &mut self,
        reached: bool,
        targets: &[(&dyn std::fmt::Display, u16)],
    ) -> Result<()> {
        for (address, port) in targets {
            for way in ["tcp", "udp"] {
                let outcome = self.attempt(way, address, *port)?;
                let as_it_should = if reached {
                    outcome.is_reached()
                } else {
                    outcome.failed_with("ECONNREFUSED")
                };
                assert!(as_it_should, "{outcome:?}");
            }
        }
        Ok(())
    }
}

#[test]
fn a_rule_is_in_force_when_the_command_returns() -> Result<()> {
    let mut scene = Scene::new("set", &[])?;
    for (host, server) in [(HOST_V4, SERVER_V4), (HOST_V6, SERVER_V6)] {
        scene.assert_all(false, &[(&host, PORT)])?;
        scene.assert_all(true, &[(&server, PORT)])?;

        scene.change(&[
            "--allow",
            &rule("", host, PORT),
            "--deny",
            &rule("", server, PORT),
        ])?;
        scene.assert_all(true, &[(&host, PORT), (&server, OTHER)])?;
        scene.assert_all(false, &[(&host, OTHER), (&server, PORT)])?;

        // What is given later goes before; one protocol alone.
        scene.change(&["--deny", &rule("tcp:", host, PORT)])?;
        assert!(
            scene
                .attempt("tcp", host, PORT)?
                .failed_with("ECONNREFUSED")
        );
        assert!(scene.attempt("udp", host, PORT)?.is_reached());

        scene.change(&["--allow", &rule("", host, PORT)])?;
        scene.assert_all(true, &[(&host, PORT)])?;
    }
    Ok(())
}

/// An address in a rule; IPv6 stands in brackets.
fn rule(protocol: &str, address: std::net::IpAddr, port: u16) -> String {
    format!("{protocol}{}", std::net::SocketAddr::new(address, port))
}

#[test]
fn a_default_a_profile_and_dns_can_be_changed() -> Result<()> {
    let mut scene = Scene::new("profile", &[])?;
    let servers: [(&dyn std::fmt::Display, u16); 2] = [(&SERVER_V4, PORT), (&SERVER_V6, PORT)];
    scene.change(&["--default", "deny"])?;
    scene.assert_all(false, &servers)?;
    scene.change(&["--default", "allow"])?;
    scene.assert_all(true, &servers)?;
    scene.change(&["--profile", "locked", "--default", "deny"])?;
    scene.assert_all(false, &servers)?;
    scene.change(&["--profile", "host", "--default", "allow"])?;
    scene.assert_all(true, &servers)
}

#[test]
fn a_profile_is_what_it_was_until_it_is_read_anew() -> Result<()> {
    let world = World::new()?;
    let profile = |port: u16| {
        format!(
            "default = \"allow\"\n[[rule]]\ncomment = \"the test service\"\n\
             allow = [\"{HOST_V4}:{port}\", \"[{HOST_V6}]:{port}\"]\n[[rule]]\ndeny = \"host\"\n"
        )
    };
    world.write_etc("qfence/profiles.d/test.toml", &profile(PORT))?;
    let mut scene = Scene::on(world, "reload", &["--profile", "test"])?;
    scene.assert_all(true, &[(&HOST_V4, PORT), (&HOST_V6, PORT)])?;
    scene.assert_all(false, &[(&HOST_V4, OTHER), (&HOST_V6, OTHER)])?;

    let write =
        |scene: &Scene, text: &str| scene.world.write_etc("qfence/profiles.d/test.toml", text);
    write(&scene, &profile(OTHER))?;
    scene.change(&["--deny", "192.0.2.77"])?;
    scene.assert_all(false, &[(&HOST_V4, OTHER), (&HOST_V6, OTHER)])?;
    scene.change(&["--reload"])?;
    scene.assert_all(true, &[(&HOST_V4, OTHER), (&HOST_V6, OTHER)])?;
    scene.assert_all(false, &[(&HOST_V4, PORT), (&HOST_V6, PORT)])?;

    // One that is no good changes nothing, and says where.
    write(
        &scene,
        "default = \"allow\"\n[[rule]]\nallow = \"localhost\"\n",
    )?;
    let ended = scene.set(&["--reload", "--default", "deny"])?;
    assert_eq!(ended.code(), Some(125), "{ended:?}");
    assert!(
        ended.stderr.contains("/etc/qfence/profiles.d/test.toml:3:"),
        "{ended:?}"
    );
    scene.assert_all(true, &[(&HOST_V4, OTHER), (&SERVER_V4, PORT)])?;
    scene.assert_all(false, &[(&HOST_V4, PORT)])
}

#[test]
fn what_is_not_understood_changes_nothing() -> Result<()> {
    let mut scene = Scene::new("bad", &[])?;
    for (options, message) in [
        (&["--allow", "tcp:localhost:80"][..], "localhost"),
        (&["--allow", "host:70000"], "70000"),
        (&["--default", "perhaps"], "perhaps"),
        (&["--profile", "no-such-profile"], "no-such-profile"),
        (&["--profile", "/dev/null/x.toml"], "/dev/null/x.toml"),
        (&["--monitor", "--enforce"], "--enforce"),
        (&["--profile", "host", "--reload"], "--reload"),
        (&["--keep-established"], "--allow"),
        (&[], "--allow"),
    ] {
        let ended = scene.set(options)?;
        assert_eq!(ended.code(), Some(125), "{options:?}: {ended:?}");
        assert!(ended.stderr.contains(message), "{options:?}: {ended:?}");
    }
    let mut command = scene.world.host.command(qfence()?);
    let ended = to_end({
        command.args(["set", "t-no-such-fence", "--default", "deny"]);
        command
    })?;
    assert_eq!(ended.code(), Some(125), "{ended:?}");
    assert!(
        ended.stderr.contains("no fence named \"t-no-such-fence\""),
        "{ended:?}"
    );
    scene.assert_all(false, &[(&HOST_V4, PORT), (&HOST_V6, PORT)])?;
    scene.assert_all(true, &[(&SERVER_V4, PORT), (&SERVER_V6, PORT)])
}

#[test]
fn monitor_mode_comes_and_goes() -> Result<()> {
    let mut scene = Scene::new("monitor", &[])?;
    let hosts: [(&dyn std::fmt::Display, u16); 2] = [(&HOST_V4, PORT), (&HOST_V6, PORT)];
    scene.assert_all(false, &hosts)?;
    assert_eq!(scene.listed_as_monitored()?, Some(false));
    scene.change(&["--monitor"])?;
    assert_eq!(scene.listed_as_monitored()?, Some(true));
    scene.assert_all(true, &hosts)?;
    for (address, _) in hosts {
        let address = address.to_string();
        let seen = scene.fence.await_refusal(|refusal| {
            refusal.verdict == "would-deny" && refusal.destination == address
        })?;
        assert_eq!(seen.rule, "deny host");
    }
    // Another change leaves it on.
    scene.change(&["--deny", "10.0.0.1"])?;
    scene.assert_all(true, &hosts)?;
    scene.change(&["--enforce"])?;
    scene.assert_all(false, &hosts)
}

#[test]
fn the_supervisor_goes_on_from_there() -> Result<()> {
    let mut scene = Scene::new("goes-on", &[])?;
    scene.change(&["--allow", "tcp:host:8080", "--deny", &SERVER_V4.to_string()])?;
    // It takes the change in within a second; and then its own occasions come.
    thread::sleep(Duration::from_millis(1500));
    let fresh: std::net::IpAddr = "192.0.2.99".parse()?;
    scene.world.add_host_address(fresh, "eth0")?;
    let _service = Listeners::everywhere(&scene.world.host, 8082)?;
    wait_until("the new address is the host", || {
        Ok(scene
            .attempt("udp", fresh, 8082)?
            .failed_with("ECONNREFUSED"))
    })?;
    assert!(scene.attempt("tcp", HOST_V4, PORT)?.is_reached());
    assert!(
        scene
            .attempt("udp", HOST_V4, PORT)?
            .failed_with("ECONNREFUSED")
    );
    scene.assert_all(false, &[(&SERVER_V4, PORT)])?;

    // The log knows the rules that came later.
    let refusal = scene
        .fence
        .await_refusal(|refusal| refusal.destination == SERVER_V4.to_string())?;
    assert_eq!(refusal.rule, format!("deny {SERVER_V4}"));
    Ok(())
}

#[test]
fn nameservers_are_followed_once_a_rule_names_them() -> Result<()> {
    let world = World::new()?;
    let mut scene = Scene::on(world, "dns", &["--dns", "deny"])?;
    let attempt = format!("tcp/{HOST_V4}/53");
    let _server = Listeners::everywhere(&scene.world.host, 53)?;
    scene
        .world
        .write_resolv_conf(&format!("nameserver {HOST_V4}\n"))?;
    assert!(scene.inside.attempt(&[&attempt])?[0].failed_with("ECONNREFUSED"));
    scene.change(&["--dns", "auto"])?;
    assert!(scene.inside.attempt(&[&attempt])?[0].is_reached());
    // By its supervisor, from then on.
    thread::sleep(Duration::from_millis(1500));
    scene
        .world
        .write_resolv_conf(&format!("nameserver {HOST_V6}\n"))?;
    wait_until("the nameserver is another", || {
        Ok(scene
            .attempt("tcp", HOST_V4, 53)?
            .failed_with("ECONNREFUSED"))
    })?;
    assert!(scene.attempt("tcp", HOST_V6, 53)?.is_reached());
    Ok(())
}

#[test]
fn an_orphaned_fence_can_be_changed_too() -> Result<()> {
    let mut scene = Scene::new("orphan", &[])?;
    scene.inside.kill_supervisor()?;
    scene.assert_all(false, &[(&HOST_V4, PORT), (&HOST_V6, PORT)])?;
    // The host's addresses are looked at anew: nobody follows them any more.
    let fresh: std::net::IpAddr = "192.0.2.98".parse()?;
    scene.world.add_host_address(fresh, "eth0")?;
    let allowed = [rule("", HOST_V4, PORT), rule("", HOST_V6, PORT)];
    scene.change(&["--allow", &allowed[0], "--allow", &allowed[1]])?;
    scene.assert_all(
        true,
        &[(&HOST_V4, PORT), (&HOST_V6, PORT), (&SERVER_V4, PORT)],
    )?;
    scene.assert_all(
        false,
        &[(&HOST_V4, OTHER), (&HOST_V6, OTHER), (&fresh, PORT)],
    )?;
    scene.change(&["--profile", "locked", "--default", "deny", "--deny", "any"])?;
    scene.assert_all(false, &[(&SERVER_V4, PORT), (&SERVER_V6, PORT)])
}

#[test]
fn neighbours_are_not_the_host_until_a_rule_says_so() -> Result<()> {
    let mut scene = Scene::new("neighbours", &[])?;
    let neighbours: [(&dyn std::fmt::Display, u16); 2] = [(&GATEWAY_V4, PORT), (&GATEWAY_V6, PORT)];
    scene.assert_all(true, &neighbours)?;
    scene.change(&["--deny", "192.0.2.0/24", "--deny", "2001:db8:1::/64"])?;
    scene.assert_all(false, &neighbours)?;
    scene.assert_all(true, &[(&SERVER_V4, PORT), (&SERVER_V6, PORT)])
}

#[test]
fn many_changes_at_once_are_all_made() -> Result<()> {
    let mut scene = Scene::new("at-once", &["--default", "deny"])?;
    let start = Instant::now();
    let mut changes = Vec::new();
    for index in 0..8 {
        let rules = [SERVER_V4, SERVER_V6].map(|ip| rule("tcp:", ip, 9000 + index));
        let mut command = scene.world.host.command(qfence()?);
        command.args([
            "set",
            scene.fence.name(),
            "--allow",
            &rules[0],
            "--allow",
            &rules[1],
        ]);
        changes.push(thread::spawn(move || to_end(command)));
    }
    for change in changes {
        let ended = change.join().expect("no panic")?;
        assert_eq!(ended.code(), Some(0), "{ended:?}");
    }
    assert!(start.elapsed() < Duration::from_secs(60));
    let services: Result<Vec<_>> = (0..8)
        .map(|index| Listeners::everywhere(&scene.world.internet, 9000 + index))
        .collect();
    let _services = services?;
    for index in 0..8 {
        for address in [SERVER_V4, SERVER_V6] {
            assert!(scene.attempt("tcp", address, 9000 + index)?.is_reached());
        }
    }
    scene.assert_all(false, &[(&SERVER_V4, PORT)])
}

/// Whoever is about to change the policy may be stopped, or very slow: the supervisor goes about its work.
#[test]
fn a_change_that_hangs_does_not_hold_up_the_supervisor() -> Result<()> {
    let mut scene = Scene::new("hang", &[])?;
    let pins = format!("/sys/fs/bpf/qfence/{}", scene.fence.name());
    let lock = nix::fcntl::Flock::lock(
        std::fs::File::open(pins)?,
        nix::fcntl::FlockArg::LockExclusive,
    );
    let lock = lock.map_err(|(_, errno)| errno)?;
    let fresh: std::net::IpAddr = "192.0.2.97".parse()?;
    scene.world.add_host_address(fresh, "eth0")?;
    let _service = Listeners::everywhere(&scene.world.host, 8083)?;
    thread::sleep(Duration::from_millis(1500));
    // It logs all the while.
    assert!(
        scene
            .attempt("tcp", HOST_V4, PORT)?
            .failed_with("ECONNREFUSED")
    );
    scene
        .fence
        .await_refusal(|refusal| refusal.destination == HOST_V4.to_string())?;
    // And takes the new address in once it can.
    drop(lock);
    wait_until("the new address is the host", || {
        Ok(scene
            .attempt("udp", fresh, 8083)?
            .failed_with("ECONNREFUSED"))
    })
}
