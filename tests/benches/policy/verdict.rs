//! What the kernel says that its programs take.

use std::{fs, path::Path};

use anyhow::{Result, ensure};
use qfence_common::Hook;
use qfence_user::{
    compile::compile,
    kernel::{Maps, pins::Pins},
    policy::{
        Sets,
        hostset::{host_set, many_set},
    },
};
use tests::{
    bench::{Options, Series},
    fence::Fence,
    probe::{self, CONNECTED, Flood},
    shell::Shell,
    workspace,
    world::World,
};

use crate::{clocks::Clocks, policies::Case};

/// How long a round takes.
const ROUND_MS: u32 = 500;

const HOOKS: [Hook; 2] = [Hook::Connect4, Hook::Connect6];

/// A fence, a load in it, and the kernel's clocks.
pub(crate) struct Bench {
    pub(crate) maps: Maps,
    _fence: Fence,
    inside: Shell,
    dir: tempfile::TempDir,
    rounds: usize,
    _world: World,
    clocks: Clocks,
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
            clocks: Clocks::start(fence.name())?,
            _fence: fence,
            inside,
            dir,
            rounds: options.either(3, 15),
            _world: world,
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
        let clocks = || HOOKS.map(|hook| self.clocks.read(hook));
        let before = clocks();
        let script = format!(
            "{} --for-ms {} --connect-each {}",
            probe::program()?.display(),
            ROUND_MS,
            file.display()
        );
        let floods: Vec<Flood> = probe::read_lines(&self.inside.ask(&script)?.join("\n"))?;
        for flood in floods {
            ensure!(
                flood.ended(CONNECTED) == flood.count,
                "not allowed: {flood:?}"
            );
        }
        before
            .into_iter()
            .zip(clocks())
            .map(|(before, after)| before?.each(after?))
            .collect()
    }
}
