//! The terminal, or a process in the fence, stops the supervisor or blocks its output. The host's addresses and nameservers
//! are followed nevertheless.

mod following;
mod job;
mod kept;
mod output;
mod stand_in;

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use tests::{
    fence::Fence,
    job::{launch, supervisor},
    listener::Listener,
    namespace::NOBODY,
    probe::{self, ProbeResult},
    run::wait_until,
    shell::state_of,
    terminal::Terminal,
    world::World,
};

const PORT: u16 = 8080;

/// An address that the host gets while the fence runs, and the broadcast address of its subnet.
const LATE: &str = "198.18.5.1/24";
const LATE_BROADCAST: &str = "198.18.5.255";

/// A server on the internet, which must stay reachable.
const INTERNET: &str = "udp/198.51.100.7/8080";

/// The worker, which runs beside the command: it executes the files that the test writes, one after the other.
const WORKER: &str = r#"i=1
while :; do
    while ! [ -e "$1/do.$i" ]; do sleep 0.02; done
    sh "$1/do.$i" >"$1/said.$i" 2>&1
    echo $? >"$1/end.new"
    mv "$1/end.new" "$1/end.$i"
    i=$((i + 1))
done
"#;

/// A host with a listener for broadcasts, an internet that answers, and a fenced job in a terminal of the host.
struct Scene {
    world: World,
    host: Listener,
    _internet: Listener,
    fence: Fence,
    terminal: Terminal,
    dir: tempfile::TempDir,
    told: u32,
}

impl Scene {
    fn new(label: &str) -> Result<Self> {
        let world = World::new()?;
        let any = (std::net::Ipv4Addr::UNSPECIFIED, PORT).into();
        let host = Listener::udp(&world.host, any)?;
        let internet = Listener::udp(&world.internet, any)?;
        let dir = tempfile::Builder::new().prefix("qfence-stop-").tempdir()?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777))?;
        fs::write(dir.path().join("worker"), WORKER)?;
        let terminal = Terminal::start_in(&world.host)?;
        Ok(Self {
            world,
            host,
            _internet: internet,
            fence: Fence::new(label)?.with(&["--user", "nobody"]),
            terminal,
            dir,
            told: 0,
        })
    }

    /// Starts a shell as a job of the terminal, and waits until it runs. The shell runs `first`, starts the worker, and runs
    /// `then`. Returns the supervisor.
    fn launch(&mut self, first: &str, then: &str) -> Result<u32> {
        let worker = self.path("worker");
        let script = format!(
            "{first} sh {} {} & echo be\"\"gun; {then}",
            worker.display(),
            self.dir.path().display()
        );
        launch(
            &mut self.terminal,
            &self.fence,
            &format!("sh -c '{script}'"),
        )?;
        self.terminal.expect("begun\r\n")?;
        supervisor(&self.fence)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Lets the worker in the fence run a line. Returns its output.
    fn ask(&mut self, line: &str) -> Result<String> {
        self.told += 1;
        let number = self.told;
        let new = self.path("do.new");
        fs::write(&new, line)?;
        fs::rename(&new, self.path(&format!("do.{number}")))?;
        let end = self.path(&format!("end.{number}"));
        wait_until("the worker is done", || Ok(end.exists()))?;
        Ok(fs::read_to_string(self.path(&format!("said.{number}")))?)
    }

    /// Lets the worker make an attempt.
    fn attempt(&mut self, attempt: &str) -> Result<ProbeResult> {
        let probe = probe::program()?;
        let said = self.ask(&format!("{} --timeout-ms 1000 {attempt}", probe.display()))?;
        let outcomes = probe::read_lines(&said)?;
        outcomes.into_iter().next().context("one outcome")
    }

    /// The positive control: the attempt arrives if it is made outside the fence.
    fn ensure_arrives_without_fence(&self, attempt: &str) -> Result<()> {
        let before = self.host.arrivals().len();
        let outcomes = probe::run_as(NOBODY, &self.world.host, &[attempt])?;
        ensure!(outcomes.iter().all(ProbeResult::is_reached), "{outcomes:?}");
        ensure!(self.host.arrivals().len() > before, "nothing arrived");
        Ok(())
    }

    /// Gives the host another address while the supervisor cannot act. Checks that broadcasts to it are refused.
    fn ensure_late_broadcasts_are_refused(&mut self) -> Result<()> {
        let broadcast = format!("udp/{LATE_BROADCAST}/{PORT}");
        let outcome = self.attempt(INTERNET)?;
        ensure!(outcome.is_reached(), "the internet: {outcome:?}");
        self.world
            .host_ip(&format!("address add {LATE} brd + dev br0"))?;
        self.await_in_policy(LATE_BROADCAST)?;
        self.ensure_arrives_without_fence(&broadcast)?;
        let before = self.host.arrivals();
        let outcome = self.attempt(&broadcast)?;
        assert_eq!(self.host.arrivals(), before, "{outcome:?}");
        ensure!(outcome.failed_with("ECONNREFUSED"), "{outcome:?}");
        let outcome = self.attempt(INTERNET)?;
        ensure!(outcome.is_reached(), "the internet: {outcome:?}");
        Ok(())
    }

    /// The stored policy.
    fn stored_policy(&self) -> Result<String> {
        let path = format!("/run/qfence/{}.policy", self.fence.name());
        fs::read_to_string(&path).with_context(|| format!("read {path}"))
    }

    /// Waits until the policy has an address. A refusal alone proves less: without a follower all broadcasts are refused.
    fn await_in_policy(&self, text: &str) -> Result<()> {
        wait_until(&format!("{text} is in the policy"), || {
            Ok(self.stored_policy()?.contains(text))
        })
    }
}

fn ensure_gone(pid: u32) -> Result<()> {
    wait_until("it is gone", || {
        Ok(state_of(pid).is_none_or(|state| state == 'Z'))
    })
}
