//! What many fences at a time cost: how long until all of them run, what memory they take, how long until all are
//! gone, and whether each of them holds. `cargo xtask bench` runs it.
//!
//! `many [--quick] [--json FILE]`

mod crowd;
mod member;
mod trial;

use std::{
    collections::BTreeMap,
    env,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use crowd::Crowd;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tests::bench::{self, Goal, Options, Report, Series};
use trial::Trial;

/// How many fences at a time, and how often that is measured.
const SIZES: [(u32, usize); 4] = [(1, 5), (10, 3), (100, 2), (1000, 1)];
/// For a first look.
const FEW: [(u32, usize); 3] = [(1, 3), (10, 1), (100, 1)];
/// How many fences are to run after how long.
const GOAL: u32 = 1000;
const GOAL_S: f64 = 20.0;
/// Descriptors that are not for a fence.
const DESCRIPTORS: u64 = 256;
/// After this the rest is not waited for.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    // What is started in each fence.
    if env::args().nth(1).as_deref() == Some(member::MEMBER) {
        return member::main();
    }
    bench::main("many", measure)
}

fn name(size: u32) -> String {
    match size {
        1 => "1 fence".to_owned(),
        size => format!("{size} fences"),
    }
}

/// Has this process have a pipe to each of so many.
fn allow_descriptors(fences: u32) -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = u64::from(fences) + DESCRIPTORS;
    ensure!(most >= wanted, "{most} open files are allowed: too few");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("raise RLIMIT_NOFILE")
}

/// What is measured.
struct Found {
    running: Series,
    each: Series,
    memory: Series,
    share: Series,
    own: Series,
    gone: Series,
    /// How many hold of so many, in the round in which the fewest did.
    holding: BTreeMap<u32, u32>,
}

fn measure(options: &Options, report: &mut Report) -> Result<()> {
    let sizes: &[_] = options.either(&FEW, &SIZES);
    let most = sizes.iter().map(|(size, _)| *size).max().unwrap_or(0);
    allow_descriptors(most)?;
    let trial = Trial::new()?;
    let mut found = Found::new();
    let rounds = sizes.iter().map(|(_, rounds)| *rounds).max().unwrap_or(0);
    for round in 0..rounds {
        for (size, _) in sizes.iter().filter(|(_, rounds)| round < *rounds) {
            bench::progress(&format!("{} at a time", name(*size)));
            found.measure(&trial, *size, report)?;
        }
    }
    for series in found.all() {
        report.add(series);
    }
    for (size, holding) in found.holding {
        report.goals.push(Goal::at_least(
            &format!("of {} that hold", name(size)),
            f64::from(holding),
            f64::from(size),
        ));
    }
    Ok(())
}

impl Found {
    fn new() -> Self {
        Self {
            running: Series::new("from the first start until all run", "s"),
            each: Series::new("of that for each fence", "ms"),
            memory: Series::new("memory of all supervisors (Pss)", "MB"),
            share: Series::new("of that for each supervisor", "MB"),
            own: Series::new("of no file for each supervisor (RssAnon)", "MB"),
            gone: Series::new("from the first end until all are gone", "s"),
            holding: BTreeMap::new(),
        }
    }

    fn all(&self) -> [&Series; 6] {
        [
            &self.running,
            &self.each,
            &self.memory,
            &self.share,
            &self.own,
            &self.gone,
        ]
    }

    fn measure(&mut self, trial: &Trial, size: u32, report: &mut Report) -> Result<()> {
        let name = name(size);
        let start = Instant::now();
        let mut crowd = Crowd::start(trial, size, start + PATIENCE)?;
        let running = crowd.await_all(start + PATIENCE)?;
        let seconds = start.elapsed().as_secs_f64();
        if running < size {
            report.miss(
                self.running.group(),
                &name,
                format!("{running} of them ran after {seconds:.0} s"),
            );
        } else {
            self.running.push(&name, seconds);
            self.each.push(&name, seconds * 1000.0 / f64::from(size));
            let memory = crowd.memory()?;
            self.memory.push(&name, memory.share);
            self.share.push(&name, memory.share / f64::from(size));
            self.own.push(&name, memory.anonymous / f64::from(size));
        }
        if size == GOAL {
            report.goals.push(Goal::at_least(
                &format!("of {name} that run after {seconds:.1} s"),
                f64::from(running),
                f64::from(GOAL),
            ));
            report.goals.push(Goal::at_most(
                &format!("until {name} run, in s"),
                seconds,
                GOAL_S,
            ));
        }
        let holding = trial.holding(&mut crowd)?;
        let fewest = self.holding.entry(size).or_insert(size);
        *fewest = holding.min(*fewest);
        if running == size {
            let start = Instant::now();
            crowd.end()?;
            self.gone.push(&name, start.elapsed().as_secs_f64());
        }
        Ok(())
    }
}
