//! The ways to run a command that are compared: a fence, and what else keeps a command from the host or gives it
//! another user. None of them does the same; each says what it does.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    mount::{MsFlags, mount},
    unistd::setsid,
};
use tests::{
    bench::{Report, Series, turns},
    fence::{other_build, qfence, unique_name},
    run::without_sudo,
    world::World,
};

/// What is measured.
const GROUP: &str = "run `true` to its end";
/// Between two starts: what the kernel clears up of the one is not to be in the figure of the other.
const PAUSE: Duration = Duration::from_millis(10);
/// How long a way that cannot be relied on may take when it is first tried, in seconds.
const TRIAL: &str = "20";
/// Where systemd leaves word that it is the one that was booted (sd_booted(3)).
const SYSTEMD: &str = "/run/systemd/system";
/// Where `ip netns` keeps the names of namespaces.
const NAMES: &str = "/run/netns";

/// A way to run a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// With nothing around it.
    Plain,
    /// In a fence.
    Fence,
    /// In a fence of another build (`cargo xtask bench --against`).
    OtherBuild,
    /// As another user.
    Sudo,
    /// In another network namespace, which is there already.
    Netns,
    /// In a network namespace of its own that leads nowhere.
    Bubblewrap,
    /// The same, and what else firejail does without a profile.
    Firejail,
    /// In a cgroup that systemd makes and attaches a program of its own to.
    Systemd,
}

impl Way {
    pub(crate) const ALL: [Self; 8] = [
        Self::Plain,
        Self::Fence,
        Self::OtherBuild,
        Self::Sudo,
        Self::Netns,
        Self::Bubblewrap,
        Self::Firejail,
        Self::Systemd,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain spawn",
            Self::Fence => "qfence-user exec --user nobody",
            Self::OtherBuild => "the same, with the other build",
            Self::Sudo => "sudo -u nobody (another user alone)",
            Self::Netns => "ip netns exec (a network that is there)",
            Self::Bubblewrap => "bwrap --unshare-net (no network)",
            Self::Firejail => "firejail --net=none (no network)",
            Self::Systemd => "systemd-run --scope -p IPAddressDeny=localhost",
        }
    }

    /// Whether there is nothing to measure without it.
    fn is_needed(self) -> bool {
        matches!(self, Self::Plain | Self::Fence | Self::OtherBuild)
    }

    /// Whether a fence is to start sooner.
    pub(crate) fn is_beaten(self) -> bool {
        matches!(self, Self::Bubblewrap | Self::Firejail | Self::Systemd)
    }

    fn words(self, netns: &str) -> Result<Vec<String>> {
        let exec = |program: &Path| format!("{} exec --user nobody --", program.display());
        let fence = exec(&qfence()?);
        let other = other_build()?.map_or_else(String::new, |program| exec(&program));
        let netns = format!("ip netns exec {netns}");
        let before = match self {
            Self::Plain => "",
            Self::Fence => &fence,
            Self::OtherBuild => &other,
            Self::Sudo => "sudo -u nobody",
            Self::Netns => &netns,
            Self::Bubblewrap => "bwrap --dev-bind / / --unshare-net --",
            Self::Firejail => "firejail --quiet --noprofile --net=none --",
            Self::Systemd => "systemd-run --scope --quiet -p IPAddressDeny=localhost --",
        };
        let words = before.split_whitespace().map(str::to_owned);
        Ok(words.chain(["/bin/true".to_owned()]).collect())
    }
}

/// Where all of them are started: on a host of the test's own.
struct Scene {
    world: World,
    netns: String,
}

/// Starts `true` in each way, round by round; what cannot be done here is put on the report.
pub(crate) fn measure(rounds: usize, report: &mut Report) -> Result<Series> {
    let scene = Scene::new()?;
    let mut ways = Vec::new();
    let is_compared = other_build()?.is_some();
    let all = Way::ALL.into_iter();
    for way in all.filter(|way| is_compared || *way != Way::OtherBuild) {
        match scene.attempt(way) {
            Ok(()) => ways.push(way),
            Err(error) if way.is_needed() => return Err(error),
            Err(error) => report.miss(GROUP, way.name(), format!("{error:#}")),
        }
    }
    let mut series = Series::new(GROUP, "ms");
    for round in 0..rounds {
        let mut samples = vec![0.0; ways.len()];
        for at in turns(round, ways.len()) {
            thread::sleep(PAUSE);
            samples[at] = scene.time(ways[at])?.as_secs_f64() * 1000.0;
        }
        for (way, ms) in ways.iter().zip(samples) {
            series.push(way.name(), ms);
        }
    }
    Ok(series)
}

impl Scene {
    fn new() -> Result<Self> {
        let world = World::new()?;
        // The names are the host's own, so that they go with its mounts, however this process ends.
        world.host.run(|| {
            fs::create_dir_all(NAMES).with_context(|| format!("make {NAMES}"))?;
            let flags = MsFlags::empty();
            mount(Some("tmpfs"), NAMES, Some("tmpfs"), flags, None::<&str>)
                .with_context(|| format!("mount a tmpfs on {NAMES}"))
        })?;
        let netns = unique_name("start");
        world.host.ip(&format!("netns add {netns}"))?;
        Ok(Self { world, netns })
    }

    /// Whether a way leads anywhere on this machine, and if not, why.
    fn attempt(&self, way: Way) -> Result<()> {
        if way == Way::Systemd && !Path::new(SYSTEMD).exists() {
            bail!("systemd does not run here");
        }
        let mut words = vec!["timeout".to_owned(), TRIAL.to_owned()];
        words.extend(way.words(&self.netns)?);
        let output = self.command(&words).output().context("run timeout")?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let status = output.status;
        bail!(
            "{status}: {}",
            said.lines().last().unwrap_or("nothing said")
        )
    }

    fn time(&self, way: Way) -> Result<Duration> {
        let mut command = self.command(&way.words(&self.netns)?);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let start = Instant::now();
        let status = command.status().with_context(|| way.name())?;
        let took = start.elapsed();
        ensure!(status.success(), "{}: {status}", way.name());
        Ok(took)
    }

    fn command(&self, words: &[String]) -> Command {
        let mut command = self.world.host.command(&words[0]);
        command.args(&words[1..]).stdin(Stdio::null());
        without_sudo(&mut command);
        // Away from the terminal, if there is one: sudo and firejail do more at one.
        // SAFETY: setsid is a plain system call, allowed between fork and exec.
        unsafe {
            command.pre_exec(|| Ok(setsid().map(drop)?));
        }
        command
    }
}
