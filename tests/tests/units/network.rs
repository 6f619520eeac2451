//! What a fenced unit reaches and answers, however it is fenced and whatever becomes of it.

use std::fs;

use anyhow::{Context as _, Result};
use tests::{
    dns::Dns,
    listener::Listeners,
    probe::{self, ProbeResult, read_lines},
    run::wait_until,
    systemd::Machine,
    world::{HOST_V4, SERVER_V4, World},
};

use super::{Scene, UNIT};

/// Where services of the host and of the internet listen.
const PORT: u16 = 8080;

/// Where the unit's own service listens.
const OWN: u16 = 9000;

/// The nameserver on the host.
const NAMESERVER: &str = "127.0.0.53";

/// The test's program on the machine, and what its attempts came to.
const PROBE: &str = "/usr/local/bin/probe";
const RESULT: &str = "/tmp/result";

/// A unit of the machine, a host with services, and an internet.
struct Unit {
    scene: Scene,
    world: World,
    _services: [Listeners; 2],
    _dns: Dns,
}

impl Unit {
    fn new() -> Result<Self> {
        let world = World::new()?;
        let names = [("www.example", SERVER_V4)];
        let dns = Dns::start(&world.host, NAMESERVER.parse()?, &names)?;
        let services = [
            Listeners::everywhere(&world.host, PORT)?,
            Listeners::everywhere(&world.internet, PORT)?,
        ];
        let scene = Scene::on(Machine::boot_in(&world.host)?)?;
        scene.output(&["rm", "-f", "/etc/resolv.conf"])?;
        let resolv_conf = format!("nameserver {NAMESERVER}\n");
        scene.machine.write("/etc/resolv.conf", &resolv_conf)?;
        fs::copy(probe::built()?, scene.machine.path(PROBE)).context("copy the probe")?;
        Ok(Self {
            scene,
            world,
            _services: services,
            _dns: dns,
        })
    }

    /// The command of the unit: it makes attempts, and then serves.
    fn command() -> String {
        let attempts = [
            format!("tcp/{HOST_V4}/{PORT}"),
            format!("udp/127.0.0.1/{PORT}"),
            format!("tcp/{SERVER_V4}/{PORT}"),
            format!("udp/{SERVER_V4}/{PORT}"),
            format!("dns/{NAMESERVER}/www.example"),
        ];
        let attempts = attempts.join(" ");
        format!(
            "sh -c 'umask 0; {PROBE} {attempts} >{RESULT}.new; mv {RESULT}.new {RESULT}; \
             exec {PROBE} --serve tcp/{OWN} udp/{OWN}'"
        )
    }

    /// What the attempts of the unit came to, which was started just now.
    fn results(&self) -> Result<Vec<ProbeResult>> {
        let path = self.scene.machine.path(RESULT);
        let made = wait_until("the attempts are made", || Ok(path.exists()));
        made.with_context(|| self.scene.journal())?;
        let results = read_lines(&fs::read_to_string(&path)?)?;
        fs::remove_file(&path)?;
        assert_eq!(results.len(), 5, "{results:?}");
        Ok(results)
    }

    /// The unit, started just now, reaches nothing of the host but its nameserver, and the internet.
    fn assert_fenced(&self) -> Result<()> {
        let results = self.results()?;
        for refused in &results[..2] {
            assert!(refused.failed_with("ECONNREFUSED"), "{refused:?}");
        }
        for reached in &results[2..] {
            assert!(reached.is_reached(), "{reached:?}");
        }
        Ok(())
    }

    /// The unit's service answers others, and the host.
    fn assert_answers(&self) -> Result<()> {
        for from in [&self.world.internet, &self.world.host] {
            for protocol in ["tcp", "udp"] {
                let attempt = format!("{protocol}/{HOST_V4}/{OWN}");
                wait_until(&format!("{attempt} answers"), || {
                    let results = probe::run(from, &["--timeout-ms", "1000", &attempt])?;
                    Ok(results
                        .iter()
                        .all(|result| result.says("hello from the probe")))
                })?;
            }
        }
        Ok(())
    }

    /// Starts the unit, pauses and resumes it, restarts it, kills it, starts it again, and stops it. It is fenced throughout.
    fn assert_life(&self) -> Result<()> {
        let systemctl =
            |verb: &[&str]| self.scene.output(&[&["systemctl"], verb, &[UNIT]].concat());
        systemctl(&["start"])?;
        self.assert_fenced()?;
        self.assert_answers()?;
        systemctl(&["freeze"])?;
        systemctl(&["thaw"])?;
        self.assert_answers()?;
        systemctl(&["restart"])?;
        self.assert_fenced()?;
        systemctl(&["kill", "--signal=KILL"])?;
        wait_until("the unit has failed", || {
            let state = self.scene.run(&["systemctl", "is-failed", UNIT])?;
            Ok(state.stdout.trim() == "failed")
        })?;
        systemctl(&["start"])?;
        self.assert_fenced()?;
        self.assert_answers()?;
        systemctl(&["stop"])?;
        let state = self.scene.run(&["systemctl", "is-active", UNIT])?;
        assert_eq!(state.stdout, "inactive\n", "{}", self.scene.journal());
        Ok(())
    }
}

#[test]
fn a_unit_reaches_the_internet_and_answers_however_it_is_fenced() -> Result<()> {
    let unit = Unit::new()?;
    let scene = &unit.scene;
    let plain = format!("ExecStart={}\n", Unit::command());
    // The control: without a fence it reaches everything.
    scene.start(&plain)?;
    for result in unit.results()? {
        assert!(result.is_reached(), "control: {result:?}");
    }
    scene.output(&["systemctl", "stop", UNIT])?;

    // The command ends by SIGTERM, and qfence with 143.
    let exec = scene.exec("", &Unit::command());
    scene.write_unit(&format!("SuccessExitStatus=143\n{exec}"))?;
    unit.assert_life().context("exec in ExecStart=")?;
    scene.await_nothing()?;

    let drop_in = format!("/etc/systemd/system/{UNIT}.d/qfence.conf");
    scene.install("qfence-unit.conf", &drop_in)?;
    scene.write_unit(&plain)?;
    unit.assert_life().context("a drop-in")?;
    scene.await_nothing()?;
    scene.output(&["rm", &drop_in])?;

    let service = "/etc/systemd/system/qfence@.service";
    scene.install("qfence@.service", service)?;
    scene
        .machine
        .write("/etc/qfence/slices.d/vms", "OPTIONS=\n")?;
    let in_slice =
        "Slice=qfence-vms.slice\n[Unit]\nRequires=qfence@vms.service\nAfter=qfence@vms.service\n";
    scene.write_unit(&format!("{plain}{in_slice}"))?;
    unit.assert_life().context("a slice")?;
    scene.output(&["systemctl", "stop", "qfence@vms.service"])?;
    scene.await_nothing()?;
    unit.scene.machine.end()
}
