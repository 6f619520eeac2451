//! `logs`: shows the record of a fence, with or without a supervisor.

use std::{
    io::{self, Write as _},
    os::fd::AsFd as _,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use super::require_root;
use crate::{
    base::{console::notify, name::check_name, paths::Paths},
    cli::Logs,
    fence::{
        id::Ids,
        registry::{Condition, Fences},
    },
    kernel::{Attempts, Maps, snapshot::Snapshot},
    record::{
        devices::DeviceNames,
        filter::Filter,
        line::Line,
        process::Processes,
        reader::{Reader, Sources},
        resolved_names::ResolvedNames,
        rule_names::RuleNames,
        tail::{Gap, Piece, Tail},
        workloads::Workloads,
    },
};

/// The interval of checks for new lines.
const LOOK: Duration = Duration::from_millis(100);
/// The interval of summaries, if this process reads the attempts.
const TICK: Duration = Duration::from_secs(1);

/// Runs `logs`.
///
/// # Errors
/// If the fence does not exist, its record cannot be read, or standard output cannot be written.
pub fn run(options: &Logs, paths: &Paths) -> Result<()> {
    require_root()?;
    let name = options.name.as_str();
    check_name(name)?;
    let fences = Fences::look(paths)?;
    let ids = fences.ids(name)?;
    fences.condition(name)?;
    let stored = fences.policy_file(name).read()?;
    let sets = stored.map(|stored| stored.sets).unwrap_or_default();
    let filter = Filter::new(options.since, options.dest.as_ref(), &sets)?
        .of_workload(options.workload.clone());
    let mut shown = Shown {
        filter,
        json: options.json,
        record: Tail::new(fences.record_files(name)),
    };
    let mut reader = take_over(&fences, name, paths)?;
    read_on(reader.as_mut())?;
    let mut is_read = shown.show()?;
    if is_read && options.follow {
        is_read = match follow(&fences, paths, (name, &ids), &mut reader, &mut shown)? {
            End::Closed => false,
            End::Ended => true,
            End::Replaced => {
                notify(format_args!(
                    "the fence {name} has ended, and another fence has the name now: `qfence-user logs -f {name}` shows \
                     that one"
                ));
                return Ok(());
            }
        };
    }
    if let Some(reader) = &mut reader {
        // If the fence has ended, there is nothing to read any more.
        let _ = reader.finish();
        if is_read {
            shown.show()?;
        }
    }
    // A fence that has ended has no counters.
    if let Ok(Snapshot { counts, .. }) = fences.counted(name) {
        notify(format_args!(
            "{} attempts: {} first, {} repeated, {} lost",
            counts.on_record(),
            counts.first,
            counts.repeated,
            counts.lost
        ));
    }
    Ok(())
}

/// Why `logs -f` ends.
enum End {
    /// Standard output was closed.
    Closed,
    /// The fence has ended.
    Ended,
    /// The fence has ended, and another one has its name.
    Replaced,
}

/// Shows new lines, until the fence with these ids ends or standard output is closed.
fn follow(
    fences: &Fences,
    paths: &Paths,
    (name, ids): (&str, &Ids),
    reader: &mut Option<Reader>,
    shown: &mut Shown,
) -> Result<End> {
    let mut next = Instant::now() + TICK;
    loop {
        if !wait_while_read(LOOK)? {
            return Ok(End::Closed);
        }
        if fences.has_another(name, ids) {
            // Its maps and its record are those of the fence before. Dropping it writes nothing.
            *reader = None;
            return Ok(match shown.show_rest()? {
                true => End::Replaced,
                false => End::Closed,
            });
        }
        // Checked before the last read, so that all lines until then are shown.
        let is_there = fences.condition(name).is_ok();
        if Instant::now() >= next && is_there {
            if reader.is_none() {
                // If the fence has just ended, there is nothing to take over.
                *reader = take_over(fences, name, paths).ok().flatten();
            }
            read_on(reader.as_mut())?;
            next = Instant::now() + TICK;
        } else if let Some(reader) = reader {
            reader.events();
        }
        if !shown.show()? {
            return Ok(End::Closed);
        }
        if !is_there {
            return Ok(End::Ended);
        }
    }
}

/// Waits. Returns false immediately if standard output has no reader any more.
fn wait_while_read(patience: Duration) -> Result<bool> {
    let stdout = io::stdout();
    let mut polled = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    match poll(&mut polled, PollTimeout::try_from(patience)?) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(errno) => return Err(errno).context("cannot poll standard output"),
    }
    // A pipe without a reader, or a terminal after a hang-up. If standard output is not open, the next write reports
    // that.
    let ends = PollFlags::POLLERR | PollFlags::POLLHUP;
    let [stdout] = polled;
    Ok(!stdout.revents().is_some_and(|seen| seen.intersects(ends)))
}

/// Becomes the reader of a fence's attempts, if the fence has no supervisor and no other reader.
fn take_over(fences: &Fences, name: &str, paths: &Paths) -> Result<Option<Reader>> {
    if fences.condition(name)? == Condition::Running {
        return Ok(None);
    }
    let pins = fences.pins(name);
    // An incomplete fence still has a record.
    let (Ok(Some(attempts)), Ok(Some(stored))) =
        (Attempts::open(&pins), fences.policy_file(name).read())
    else {
        return Ok(None);
    };
    let description = fences.description(name);
    let devices = DeviceNames::default();
    for device in description.iter().flat_map(|found| &found.devices) {
        devices.set(device.index, &device.name);
    }
    let attached = description
        .as_ref()
        .and_then(|found| found.attached.as_ref());
    let sources = Sources {
        lookups: None,
        resolved: ResolvedNames::default(),
        workloads: attached.map_or_else(Workloads::default, |attached| {
            let place = fences.hierarchy().mount().join(&attached.cgroup);
            Workloads::new(&attached.workload, &place)
        }),
        attempts,
        maps: Maps::open(&pins)?,
        names: RuleNames::new(&stored.policy, fences.policy_file(name)),
        files: fences.record_files(name),
        processes: Processes::new(paths.proc.clone(), description.and_then(|state| state.qemu)),
        devices,
        // How many of them are on the record already is not known.
        drops: None,
    };
    Reader::new(sources, Arc::from(name)).map(Some)
}

/// Records the kernel's events and counts.
fn read_on(reader: Option<&mut Reader>) -> Result<()> {
    let Some(reader) = reader else {
        return Ok(());
    };
    while reader.events().1 {}
    reader.summarize()?;
    Ok(())
}

/// The lines that were shown.
struct Shown {
    filter: Filter,
    json: bool,
    /// The position in the record.
    record: Tail,
}

impl Shown {
    /// Shows new lines, and reports missing ones. Returns false if standard output is closed.
    fn show(&mut self) -> Result<bool> {
        let (pieces, read) = self.record.read();
        Ok(self.print(pieces)? && read.map(|()| true)?)
    }

    /// Like [`Shown::show`], for a fence that another one has replaced.
    fn show_rest(&mut self) -> Result<bool> {
        let (pieces, read) = self.record.read_rest();
        Ok(self.print(pieces)? && read.map(|()| true)?)
    }

    fn print(&self, pieces: Vec<Piece>) -> Result<bool> {
        let mut out = io::stdout().lock();
        for piece in pieces {
            let line = match piece {
                Piece::Line(line) => line,
                Piece::Gap(Gap { lines, attempts }) => {
                    notify(format_args!(
                        "{lines} lines of the record, with {attempts} attempts, are missing: newer lines replaced them \
                         before they were read"
                    ));
                    continue;
                }
            };
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
