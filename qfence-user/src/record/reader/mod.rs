//! Turns the kernel's attempts into lines: events immediately, counts once per second, or once per minute while a flood
//! lasts.

mod drops;
mod held;
mod keys;
mod ledger;

use std::{
    cmp::Reverse,
    sync::{Arc, mpsc::Receiver},
};

use anyhow::{Context, Result};
use jiff::Timestamp;
use qfence_common::{AttemptKey, Event, Hook, Repeats, unix::Name};

use held::Held;
use keys::Keys;
use ledger::{Ledger, Second, Told};

use super::{
    budget::Budget,
    devices::DeviceNames,
    files::{RecordAppender, RecordFiles},
    line::{Allowed, Attempt, Body, Line, VERSION, at, boot_time},
    process::Processes,
    stamp,
};
use crate::{
    base::console::notify,
    kernel::{Attempts, Counts, Maps, local_in::Drained},
    record::rule_names::RuleNames,
};

/// The maximum number of events in one write.
const BATCH: usize = 64;

/// The maximum size of the event ring, in bytes, on kernels with large pages.
const RING: usize = 64 * 1024;

/// The inputs of a [`Reader`].
pub struct Sources {
    /// What the fence is attached to, if others have started that.
    pub workload: Option<Arc<str>>,
    /// The kernel's events and counts.
    pub attempts: Attempts,
    /// The fence's counters.
    pub maps: Maps,
    /// The names of its rules.
    pub names: RuleNames,
    /// The files of the record.
    pub files: RecordFiles,
    /// Looks up processes.
    pub processes: Processes,
    /// The names of its network devices.
    pub devices: DeviceNames,
    /// What the second layer for frames has dropped, if the fence has devices.
    pub drops: Option<Receiver<Drained>>,
}

/// Reads the attempts of one fence.
pub struct Reader {
    attempts: Attempts,
    maps: Maps,
    names: RuleNames,
    processes: Processes,
    devices: DeviceNames,
    drops: Option<Receiver<Drained>>,
    /// The number of attempts on lines that the fence's own counters do not have: those of the second layer for frames.
    beside: u64,
    appender: RecordAppender,
    fence: Arc<str>,
    workload: Option<Arc<str>>,
    budget: Budget,
    /// The known keys among those that the kernel counts.
    keys: Keys,
    folded: Folded,
    /// The counts that wait for the next summary.
    held: Held,
    /// What was told of what is let through; `None` if the fence does not log it.
    ledger: Option<Ledger>,
    /// The number of the last line, and the number of attempts that all lines report.
    seq: u64,
    total: u64,
    /// The lines that were not yet returned.
    lines: Vec<Arc<Line>>,
    text: String,
    /// Whether the last write to the record failed, and this was reported.
    has_failed: bool,
    /// The number of attempts on lines that could not be written and are not yet reported as missing.
    unkept: u64,
}

/// The lines that exceeded the limit since the last summary.
#[derive(Clone, Copy, Default)]
struct Folded {
    lines: u64,
    attempts: u64,
}

impl Reader {
    /// Continues the record of a fence.
    ///
    /// # Errors
    /// If the record cannot be written.
    pub fn new(sources: Sources, fence: Arc<str>) -> Result<Self> {
        let (appender, last) = RecordAppender::open(sources.files)?;
        sources.processes.prepare();
        let ledger = sources.maps.flows()?.map(|flows| match &last {
            // Another reader has told what there was.
            Some(_) => Ledger::after(&flows),
            None => Ledger::default(),
        });
        Ok(Self {
            attempts: sources.attempts,
            maps: sources.maps,
            names: sources.names,
            processes: sources.processes,
            devices: sources.devices,
            drops: sources.drops,
            beside: 0,
            appender,
            fence,
            workload: sources.workload,
            budget: Budget::default(),
            keys: Keys::default(),
            folded: Folded::default(),
            held: Held::default(),
            ledger,
            seq: last.as_ref().map_or(0, |line| line.seq),
            total: last.as_ref().map_or(0, |line| line.total),
            lines: Vec::new(),
            text: String::new(),
            has_failed: false,
            unkept: 0,
        })
    }

    /// The source of events, to wait for them.
    #[must_use]
    pub fn attempts(&self) -> &Attempts {
        &self.attempts
    }

    /// Reads some events. Returns their lines, and whether there may be more events.
    pub fn events(&mut self) -> (Vec<Arc<Line>>, bool) {
        let boot_time = boot_time();
        let mut count = 0;
        while count < BATCH {
            match self.attempts.event() {
                Ok(Some((event, name))) => self.first(&event, name, boot_time),
                Ok(None) => break,
                Err(error) => notify(format_args!("{error:#}")),
            }
            count += 1;
        }
        (self.hand_on(), count == BATCH)
    }

    /// Reads the counts since the last call, and returns their lines. To be called once per second. Afterwards, every
    /// attempt that was counted before the call is reported, or waits for the next summary of a flood.
    ///
    /// # Errors
    /// If the counters cannot be read.
    pub fn summarize(&mut self) -> Result<Vec<Arc<Line>>> {
        let read = self.count();
        if !self.budget.is_saving() {
            self.tell_held();
        }
        self.budget.renew();
        self.tell_drops();
        let read = read.and_then(|()| self.allowed(false));
        read.map(|()| self.hand_on())
    }

    /// Like [`Reader::summarize`], at the end: no attempt waits afterwards.
    ///
    /// # Errors
    /// As [`Reader::summarize`]; the lines are in the record then.
    pub fn finish(&mut self) -> Result<Vec<Arc<Line>>> {
        let read = self.count();
        self.tell_held();
        self.tell_drops();
        let read = read.and_then(|()| self.allowed(true));
        let lines = self.hand_on();
        read.map(|()| lines)
    }

    /// The number of attempts that are reported, or wait for a summary.
    fn known(&self) -> u64 {
        self.total.saturating_sub(self.beside) + self.folded.attempts + self.held.attempts()
    }

    /// Reads the counts since the last call.
    fn count(&mut self) -> Result<()> {
        let counts = self.maps.counts()?;
        if counts.on_record() != self.known() || self.keys.has_old() {
            self.keys.forget();
            let mut counted = self.attempts.take(&self.keys.known())?;
            // An event precedes the repeats of its key.
            self.rest_of_events();
            // If there is no room for all, there is for the largest.
            counted.sort_by_key(|(key, repeats)| (Reverse(repeats.count), *key));
            for (key, repeats) in counted.iter().filter(|(_, repeats)| repeats.count > 0) {
                // The key is not old while it is held.
                self.keys.seen_again(key, repeats);
                if !self.held.add(key, repeats) {
                    self.folded.lines += 1;
                    self.folded.attempts += repeats.count;
                }
            }
            let missing = counts.on_record().saturating_sub(self.known());
            self.held.add_lost(missing);
        }
        Ok(())
    }

    /// Adds the lines of what was let through.
    fn allowed(&mut self, is_end: bool) -> Result<()> {
        let Some(ledger) = &mut self.ledger else {
            return Ok(());
        };
        let Second { lines, idle } = ledger.next(&self.maps.flows()?.unwrap_or_default(), is_end);
        for told in lines {
            let names = self.names.now();
            let body = match told {
                Told::First(key, flow) => {
                    Body::Allowed(Allowed::one(&key, &flow, names.name(flow.rule)).into())
                }
                Told::Again(key, flow) => {
                    Body::Traffic(Allowed::one(&key, &flow, names.name(flow.rule)).into())
                }
                Told::Several(count, flow) => Body::Traffic(Allowed::several(count, &flow).into()),
            };
            // These lines have a limit of their own.
            self.push(Timestamp::now(), body, 0);
        }
        idle.iter().try_for_each(|key| self.maps.forget_flow(key))
    }

    /// Adds the lines of all that is held.
    fn tell_held(&mut self) {
        let (counts, lost) = self.held.take();
        let boot_time = boot_time();
        for (key, repeats) in &counts {
            self.repeats(key, repeats, boot_time);
        }
        self.fold();
        if lost > 0 {
            self.add(Timestamp::now(), Body::Lost, lost);
        }
    }

    fn rest_of_events(&mut self) {
        let boot_time = boot_time();
        for _ in 0..RING / size_of::<Event>() {
            match self.attempts.event() {
                Ok(Some((event, name))) => self.first(&event, name, boot_time),
                Ok(None) => break,
                Err(error) => notify(format_args!("{error:#}")),
            }
        }
    }

    fn first(&mut self, Event { repeats, key }: &Event, name: Option<Name>, boot_time: Timestamp) {
        let origin = &repeats.origin;
        let process = if self.budget.has_event() {
            let device = device_of(&self.devices, key);
            let pid = if device.is_some() { 0 } else { key.pid };
            let process = self.processes.look_up(pid, origin.tid, origin.boot_ns);
            let rule = self.names.now().name(key.rule);
            match Attempt::new(key, name.as_ref(), origin, rule, &process) {
                Ok(attempt) => self.add(
                    at(boot_time, origin.boot_ns),
                    Body::Attempt(attempt.at(device).into()),
                    1,
                ),
                // The next summary counts this attempt as lost.
                Err(error) => return notify(format_args!("error: {error}")),
            }
            Some(process)
        } else {
            self.folded.lines += 1;
            self.folded.attempts += 1;
            None
        };
        self.keys.seen_first(*key, *origin, name, process);
    }

    fn repeats(&mut self, key: &AttemptKey, repeats: &Repeats, boot_time: Timestamp) {
        let seen = self.keys.seen_again(key, repeats);
        if !self.budget.has_summary() {
            self.folded.lines += 1;
            self.folded.attempts += repeats.count;
            return;
        }
        // The origin is that of the first attempt of the key. The process may have changed since.
        let device = device_of(&self.devices, key);
        let pid = if device.is_some() { 0 } else { key.pid };
        let who = (pid, repeats.origin.tid);
        let when = (repeats.origin.boot_ns, repeats.last_ns);
        let process = self.processes.look_again(seen.process.take(), who, when);
        let rule = self.names.now().name(key.rule);
        let attempt = Attempt::new(key, seen.name.as_ref(), &repeats.origin, rule, &process);
        seen.process = Some(process);
        let attempt = match attempt {
            Ok(attempt) => attempt,
            Err(error) => return notify(format_args!("error: {error}")),
        };
        let time = at(boot_time, repeats.last_ns);
        self.add(
            time,
            Body::Repeats(attempt.at(device).into()),
            repeats.count,
        );
    }

    fn fold(&mut self) {
        let Folded { lines, attempts } = std::mem::take(&mut self.folded);
        if attempts > 0 {
            self.add(Timestamp::now(), Body::Folded { lines }, attempts);
        }
    }

    fn add(&mut self, time: Timestamp, body: Body, count: u64) {
        let length = self.push(time, body, count);
        self.budget.take(length);
    }

    /// Adds a line without a budget. Returns its length, in bytes.
    fn push(&mut self, time: Timestamp, body: Body, count: u64) -> usize {
        let mut length = 0;
        self.seq += 1;
        self.total += count;
        let line = Line {
            v: VERSION,
            time,
            fence: Arc::clone(&self.fence),
            workload: self.workload.clone(),
            seq: self.seq,
            body,
            count,
            total: self.total,
        };
        match line.to_json() {
            Ok(json) => {
                let kept = stamp::stamped(&json);
                length = kept.len();
                self.text.push_str(&kept);
                self.text.push('\n');
            }
            Err(error) => notify(format_args!("cannot write a line of the record: {error}")),
        }
        self.lines.push(Arc::new(line));
        length
    }

    /// Writes the new lines to the record, and returns them. The sinks get them even if that write fails.
    fn hand_on(&mut self) -> Vec<Arc<Line>> {
        let lines = std::mem::take(&mut self.lines);
        if let Some(first) = lines.first() {
            match self.keep(first) {
                Ok(()) => {
                    self.has_failed = false;
                    self.unkept = 0;
                }
                Err(error) => {
                    self.unkept += lines.iter().map(|line| line.count).sum::<u64>();
                    // Reported once, until a write succeeds.
                    if !self.has_failed {
                        notify(format_args!("error: {error:#}"));
                        self.has_failed = true;
                    }
                }
            }
            self.text.clear();
        }
        lines
    }

    /// Writes the new lines, of which `first` is the first, after a line that reports missing ones.
    fn keep(&mut self, first: &Line) -> Result<()> {
        if self.unkept > 0 {
            let missing = stamp::stamped(&first.dropped_before(self.unkept).to_json()?);
            self.text.insert_str(0, &format!("{missing}\n"));
        }
        Ok(self.appender.write(&self.text)?)
    }

    /// The counters of the fence.
    ///
    /// # Errors
    /// If the counters cannot be read.
    pub fn counts(&self) -> Result<Counts> {
        self.maps.counts().context("cannot read the counters")
    }
}

/// The name of the network device of an attempt at the hooks for frames.
fn device_of(devices: &DeviceNames, key: &AttemptKey) -> Option<Arc<str>> {
    let hook = Hook::from_number(key.hook);
    hook.filter(|hook| hook.is_frame())
        .map(|_| devices.name(key.pid))
}
