//! Turns events and counts into lines.

use std::sync::Arc;

use jiff::Timestamp;
use qfence_common::{AttemptKey, Event, Hook, Repeats, unix::Name};

use super::{Folded, Reader};
use crate::{
    base::console::notify,
    record::{
        devices::DeviceNames,
        line::{Attempt, Body, at, boot_time},
    },
};

impl Reader {
    /// Adds the lines of all that is held.
    pub(super) fn tell_held(&mut self) {
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

    /// Reads at most `most` events, and adds their lines. Returns the number of events.
    pub(super) fn read_events(&mut self, most: usize) -> usize {
        let boot_time = boot_time();
        for count in 0..most {
            match self.attempts.event() {
                Ok(Some((event, name))) => self.first(&event, name, boot_time),
                Ok(None) => return count,
                Err(error) => notify(format_args!("{error:#}")),
            }
        }
        most
    }

    /// Adds the line of the first attempt of a key.
    fn first(&mut self, Event { repeats, key }: &Event, name: Option<Name>, boot_time: Timestamp) {
        let origin = &repeats.origin;
        let (process, workload) = if self.budget.has_event() {
            let (pid, device) = subject_of(&self.devices, key);
            let process = self.processes.look_up(pid, origin.tid, origin.boot_ns);
            let rule = self.names.now().name(key.rule);
            let attempt = match Attempt::new(key, name.as_ref(), origin, rule, &process) {
                Ok(attempt) => attempt.at(device).named(&self.resolved),
                // The next summary counts this attempt as lost.
                Err(error) => return notify(format_args!("error: {error}")),
            };
            let workload = self.workloads.of(attempt.cgroup);
            let time = at(boot_time, origin.boot_ns);
            let body = Body::Attempt(attempt.into());
            self.add_of(workload.clone(), (time, body, 1));
            (Some(process), workload)
        } else {
            self.folded.lines += 1;
            self.folded.attempts += 1;
            (None, None)
        };
        let seen = self.keys.seen_first(*key, *origin);
        seen.name = name;
        seen.process = process;
        seen.workload = workload;
    }

    /// Adds the line of further attempts of a key.
    fn repeats(&mut self, key: &AttemptKey, repeats: &Repeats, boot_time: Timestamp) {
        let seen = self.keys.seen_again(key, repeats);
        if !self.budget.has_summary() {
            self.folded.lines += 1;
            self.folded.attempts += repeats.count;
            return;
        }
        // The origin is that of the first attempt of the key. The process may have changed since.
        let (pid, device) = subject_of(&self.devices, key);
        let who = (pid, repeats.origin.tid);
        let when = (repeats.origin.boot_ns, repeats.last_ns);
        let process = self.processes.look_again(seen.process.take(), who, when);
        let rule = self.names.now().name(key.rule);
        let attempt = Attempt::new(key, seen.name.as_ref(), &repeats.origin, rule, &process);
        seen.process = Some(process);
        let attempt = match attempt {
            Ok(attempt) => attempt.at(device).named(&self.resolved),
            Err(error) => return notify(format_args!("error: {error}")),
        };
        if seen.workload.is_none() {
            seen.workload = self.workloads.of(attempt.cgroup);
        }
        let workload = seen.workload.clone();
        let time = at(boot_time, repeats.last_ns);
        let body = Body::Repeats(attempt.into());
        self.add_of(workload, (time, body, repeats.count));
    }

    /// Adds the line of what exceeded the limit.
    fn fold(&mut self) {
        let Folded { lines, attempts } = std::mem::take(&mut self.folded);
        if attempts > 0 {
            self.add(Timestamp::now(), Body::Folded { lines }, attempts);
        }
    }
}

/// The process of an attempt and, if the attempt was at a hook for frames, the name of its network device. Such a hook knows
/// no process: the process is 0 then.
fn subject_of(devices: &DeviceNames, key: &AttemptKey) -> (u32, Option<Arc<str>>) {
    match Hook::from_number(key.hook) {
        Some(hook) if hook.is_frame() => (0, Some(devices.name(key.pid))),
        _ => (key.pid, None),
    }
}
