//! What the kernel says that its programs take.

use std::{
    fs::{self, File},
    os::fd::OwnedFd,
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    programs::loaded_programs,
    sys::{Stats, enable_stats},
};
use qfence_common::Hook;
use qfence_user::{
    compile::compile,
    hostset::{host_set, many_set},
    kernel::{Maps, query},
    pins::Pins,
    policy::Sets,
};
use tests::{
    bench::{Options, Series},
    fence::Fence,
    probe::{self, CONNECTED, Flood},
    remains,
    shell::Shell,
    workspace,
    world::World,
};

use crate::policies::Case;

const HOOKS: [Hook; 2] = [Hook::Connect4, Hook::Connect6];

/// A fence, a load in it, and the kernel's clocks.
pub(crate) struct Bench {
    pub(crate) maps: Maps,
    fence: Fence,
    inside: Shell,
    dir: tempfile::TempDir,
    rounds: usize,
    round_ms: u32,
    _world: World,
    /// The kernel measures as long as this is open: not after this process, however it ends.
    _stats: OwnedFd,
}

/// How long a program has run, and how often.
#[derive(Clone, Copy)]
struct Clock {
    ns: u128,
    runs: u64,
}

impl Bench {
    pub(crate) fn new(options: &Options) -> Result<Self> {
        let world = World::new()?;
        let fence = Fence::new("bench")?.with(&["--user", "nobody"]);
        let inside = Shell::start(fence.command(&world.host, "sh"))?;
        let pins = Pins::new(Path::new("/sys/fs/bpf")).directory(fence.name());
        let dir = tempfile::tempdir()?;
        workspace::make_readable(dir.path())?;
        Ok(Self {
            maps: Maps::open(&pins)?,
            fence,
            inside,
            dir,
            rounds: options.either(3, 15),
            round_ms: options.either(500, 500),
            _world: world,
            _stats: enable_stats(Stats::RunTime).context("have the kernel measure programs")?,
        })
    }

    /// Measures all of them, round by round, so that what else the machine does falls on all alike: a series
    /// for each hook.
    pub(crate) fn verdicts(&mut self, what: &str, cases: &[Case]) -> Result<[Series; 2]> {
        let mut series = HOOKS.map(|hook| Series::new(format!("{what}, {}", hook.name()), "ns"));
        for _ in 0..self.rounds {
            for &case in cases {
                for (series, ns) in series.iter_mut().zip(self.round(case)?) {
                    series.push(&case.name(), ns);
                }
            }
        }
        Ok(series)
    }

    fn round(&mut self, case: Case) -> Result<Vec<f64>> {
        let sets = Sets {
            host: host_set([]),
            many: many_set([]),
            ..Sets::default()
        };
        self.maps
            .publish(&compile(&case.policy()?.rules(), &sets, false)?)?;
        let file = self.dir.path().join("destinations");
        fs::write(&file, case.lines())?;
        workspace::make_readable(&file)?;
        let before = self.clocks()?;
        let script = format!(
            "{} --for-ms {} --connect-each {}",
            probe::program()?.display(),
            self.round_ms,
            file.display()
        );
        let floods: Vec<Flood> = probe::read_lines(&self.inside.ask(&script)?.join("\n"))?;
        for flood in floods {
            ensure!(
                flood.ended(CONNECTED) == flood.count,
                "not allowed: {flood:?}"
            );
        }
        let after = self.clocks()?;
        let mut found = Vec::new();
        for ((hook, before), after) in HOOKS.into_iter().zip(before).zip(after) {
            let runs = after.runs - before.runs;
            ensure!(runs > 0, "{} did not run", hook.name());
            let ns = u32::try_from(after.ns - before.ns).context("a round is short")?;
            let calls = u32::try_from(runs).context("a round is short")?;
            found.push(f64::from(ns) / f64::from(calls));
        }
        Ok(found)
    }

    fn clocks(&self) -> Result<[Clock; 2]> {
        let cgroup = File::open(remains::cgroup(self.fence.name())?)?;
        let mut clocks = [Clock { ns: 0, runs: 0 }; 2];
        for (hook, clock) in HOOKS.into_iter().zip(&mut clocks) {
            let ids = query::attached(&cgroup, hook)?.programs;
            let [id] = ids[..] else {
                anyhow::bail!("{} programs at {}", ids.len(), hook.name());
            };
            let program = loaded_programs()
                .flatten()
                .find(|program| program.id() == id);
            let program = program.with_context(|| format!("there is no program {id}"))?;
            *clock = Clock {
                ns: program.run_time().as_nanos(),
                runs: program.run_count(),
            };
        }
        Ok(clocks)
    }
}
