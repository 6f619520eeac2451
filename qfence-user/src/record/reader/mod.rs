//! Turns the kernel's attempts into lines: events immediately, counts once per second, or once per minute while a flood
//! lasts.

mod attempts;
mod drops;
mod held;
mod keys;
mod ledger;
mod lookups;
mod writing;

use std::{
    cmp::Reverse,
    sync::{Arc, mpsc::Receiver},
};

use anyhow::{Context, Result};
use jiff::Timestamp;
use qfence_common::{Event, Flow, FlowKey};

use held::Held;
use keys::Keys;
use ledger::{Ledger, Second, Told};
use lookups::Lookups;

use super::{
    budget::Budget,
    devices::DeviceNames,
    files::{RecordAppender, RecordFiles},
    line::{Allowed, Attempt, Body, Line, Missing},
    lookups::LookupReceiver,
    process::Processes,
    resolved_names::ResolvedNames,
};
use crate::{
    kernel::{Attempts, Counts, Maps, local_in::Drained},
    record::{rule_names::RuleNames, workloads::Workloads},
};

/// The maximum number of events in one write.
const BATCH: usize = 64;

/// The maximum size of the event ring, in bytes, on kernels with large pages.
const RING: usize = 64 * 1024;

/// The inputs of a [`Reader`].
pub struct Sources {
    /// What the fence is attached to, if others have started that, and its members.
    pub workloads: Workloads,
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
    /// The look-ups of names, if the fence has a resolver.
    pub lookups: Option<LookupReceiver>,
    /// The names behind addresses.
    pub resolved: ResolvedNames,
}

/// Reads the attempts of one fence.
pub struct Reader {
    attempts: Attempts,
    maps: Maps,
    names: RuleNames,
    processes: Processes,
    devices: DeviceNames,
    drops: Option<Receiver<Drained>>,
    lookups: Option<Lookups>,
    resolved: ResolvedNames,
    /// The number of attempts, on lines or waiting for one, that the fence's own counters do not have: those of the second
    /// layer for frames.
    beside: u64,
    appender: RecordAppender,
    fence: Arc<str>,
    workloads: Workloads,
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
    /// The lines that could not be written and are not yet reported as missing.
    unkept: Missing,
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
            lookups: sources.lookups.map(Lookups::new),
            resolved: sources.resolved,
            beside: last.as_ref().map_or(0, |line| line.beside),
            appender,
            fence,
            workloads: sources.workloads,
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
            unkept: Missing::default(),
        })
    }

    /// Adds a line: the target was open for so long before its fence.
    pub fn tell_open(&mut self, milliseconds: u64) {
        self.add(Timestamp::now(), Body::Open { milliseconds }, 0);
    }

    /// The source of events, to wait for them.
    #[must_use]
    pub fn attempts(&self) -> &Attempts {
        &self.attempts
    }

    /// Reads some events. Returns their lines, and whether there may be more events.
    pub fn events(&mut self) -> (Vec<Arc<Line>>, bool) {
        let count = self.read_events(BATCH);
        self.tell_first_lookups();
        (self.hand_on(), count == BATCH)
    }

    /// Reads the counts since the last call, and returns their lines. To be called once per second. Afterwards, every
    /// attempt that was counted before the call is reported, or waits for the next summary of a flood.
    ///
    /// # Errors
    /// If the counters cannot be read.
    pub fn summarize(&mut self) -> Result<Vec<Arc<Line>>> {
        self.workloads.look();
        let read = self.count();
        if !self.budget.is_saving() {
            self.tell_held();
        }
        self.tell_drops();
        self.budget.renew();
        self.tell_lookups(false);
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
        // What exceeded the limit.
        self.tell_held();
        self.tell_lookups(true);
        let read = read.and_then(|()| self.allowed(true));
        let lines = self.hand_on();
        read.map(|()| lines)
    }

    /// The number of attempts that are reported, or wait for a summary.
    fn known(&self) -> u64 {
        let all = self.total + self.folded.attempts + self.held.attempts();
        all.saturating_sub(self.beside)
    }

    /// Reads the counts since the last call.
    fn count(&mut self) -> Result<()> {
        let counts = self.maps.counts()?;
        if counts.on_record() != self.known() || self.keys.has_old() {
            self.keys.forget();
            let mut counted = self.attempts.take(&self.keys.known())?;
            // An event precedes the repeats of its key.
            self.read_events(RING / size_of::<Event>());
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
            let one = |key: &FlowKey, flow: &Flow| {
                Allowed::one(&key.to, flow, names.name(flow.rule), &self.resolved).into()
            };
            let (cgroup, body) = match told {
                Told::First(key, flow) => (key.cgroup, Body::Allowed(one(&key, &flow))),
                Told::Again(key, flow) => (key.cgroup, Body::Traffic(one(&key, &flow))),
                Told::Several(count, flow) => {
                    (0, Body::Traffic(Allowed::several(count, &flow).into()))
                }
            };
            let workload = self.workloads.of(cgroup);
            // These lines have a limit of their own.
            let line = Line {
                workload,
                ..self.line(Timestamp::now(), body, 0)
            };
            self.push(line);
        }
        idle.iter().try_for_each(|key| self.maps.forget_flow(key))
    }

    /// The number of attempts that the record should have besides the fence's own counters: those of the second layer.
    #[must_use]
    pub fn beside(&self) -> u64 {
        self.beside
    }

    /// The counters of the fence.
    ///
    /// # Errors
    /// If the counters cannot be read.
    pub fn counts(&self) -> Result<Counts> {
        self.maps.counts().context("cannot read the counters")
    }
}
