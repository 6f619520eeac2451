//! `logs`: the record of a fence, also of one that has lost its supervisor.

use std::{
    io::{self, Write as _},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::require_root;
use crate::{
    audit::{
        filter::Filter,
        process::Processes,
        reader::{Reader, Sources},
        record::Line,
    },
    cli::Logs,
    fences::{Condition, Fences},
    kernel::{Attempts, Maps},
    name::check_name,
    paths::Paths,
    policy::names::Known,
    say::say,
    snapshot::Snapshot,
};

/// How often it is looked whether there is more.
const LOOK: Duration = Duration::from_millis(100);
/// How often what was counted is summed up, where there is no supervisor to do so.
const TICK: Duration = Duration::from_secs(1);

/// Runs `logs`.
///
/// # Errors
/// If there is no such fence, or its record cannot be read, or standard output cannot be written to.
pub fn run(options: &Logs, paths: &Paths) -> Result<()> {
    require_root()?;
    let name = options.name.as_str();
    check_name(name)?;
    let fences = Fences::open(paths)?;
    fences.condition(name)?;
    let stored = fences.store(name).read()?;
    let sets = stored.map(|stored| stored.sets).unwrap_or_default();
    let filter = Filter::new(options.since, options.dest.as_ref(), &sets)?;
    let mut shown = Shown {
        filter,
        json: options.json,
        seq: 0,
    };
    let mut reader = take_over(&fences, name, paths)?;
    read_on(reader.as_mut())?;
    if shown.show(&fences, name)? && options.follow {
        follow(&fences, paths, name, reader, &mut shown)?;
    }
    // A fence that has ended has no counters any more.
    if let Ok(Snapshot { counts, .. }) = Snapshot::of(&fences.pins(name)) {
        say(format_args!(
            "{} attempts: {} the first of their kind, {} repeated, {} lost",
            counts.on_record(),
            counts.first,
            counts.repeated,
            counts.lost
        ));
    }
    Ok(())
}

/// Shows what comes, until the fence ends or nobody reads any more.
fn follow(
    fences: &Fences,
    paths: &Paths,
    name: &str,
    mut reader: Option<Reader>,
    shown: &mut Shown,
) -> Result<()> {
    let mut next = Instant::now() + TICK;
    loop {
        thread::sleep(LOOK);
        // Before the last look: what was written until then is shown.
        let is_there = fences.condition(name).is_ok();
        if Instant::now() >= next && is_there {
            if reader.is_none() {
                // It may end at any moment, and then there is nothing to take over.
                reader = take_over(fences, name, paths).ok().flatten();
            }
            read_on(reader.as_mut())?;
            next = Instant::now() + TICK;
        } else if let Some(reader) = &mut reader {
            reader.events();
        }
        if !shown.show(fences, name)? || !is_there {
            return Ok(());
        }
    }
}

/// Becomes the reader of a fence's attempts, if it has no supervisor and nobody else is.
fn take_over(fences: &Fences, name: &str, paths: &Paths) -> Result<Option<Reader>> {
    if fences.condition(name)? == Condition::Running {
        return Ok(None);
    }
    let pins = fences.pins(name);
    // What is not whole has a record all the same.
    let (Ok(Some(attempts)), Ok(Some(stored))) = (Attempts::open(&pins), fences.store(name).read())
    else {
        return Ok(None);
    };
    let sources = Sources {
        attempts,
        maps: Maps::open(&pins)?,
        names: Known::new(&stored.policy, fences.store(name)),
        kept: fences.kept(name),
        processes: Processes::new(paths.proc.clone()),
    };
    Reader::new(sources, Arc::from(name)).map(Some)
}

/// Puts on record what the kernel has.
fn read_on(reader: Option<&mut Reader>) -> Result<()> {
    let Some(reader) = reader else {
        return Ok(());
    };
    while reader.events().1 {}
    reader.summarize()?;
    Ok(())
}

/// What was shown.
struct Shown {
    filter: Filter,
    json: bool,
    /// The number of the last line that was looked at.
    seq: u64,
}

impl Shown {
    /// Shows what is new; false if nobody reads any more.
    fn show(&mut self, fences: &Fences, name: &str) -> Result<bool> {
        let mut out = io::stdout().lock();
        for line in fences.kept(name).lines()? {
            if line.seq <= self.seq {
                continue;
            }
            self.seq = line.seq;
            if !self.filter.wants(&line) {
                continue;
            }
            match writeln!(out, "{}", self.text(&line)?) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(false),
                written => written.context("cannot write to standard output")?,
            }
        }
        Ok(true)
    }

    fn text(&self, line: &Line) -> Result<String> {
        if self.json {
            Ok(line.to_json()?)
        } else {
            Ok(line.to_string())
        }
    }
}
