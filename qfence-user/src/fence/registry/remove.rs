//! Ends the processes of a fence, and removes it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{Fences, Note, stays, whereabouts::Whereabouts};
use crate::{
    fence::{
        guard::{KILL_PATIENCE, fail_with_all},
        id::Ids,
        place::Place,
    },
    kernel::handover::HandOver,
};

/// How long a supervisor may take to clean up after its command has ended. It may take ten seconds before it treats a
/// command that a tracer keeps as ended (`ending.rs`).
const SUPERVISOR_PATIENCE: Duration = Duration::from_secs(20);

impl Fences {
    /// Ends the processes of a fence and removes it. They get SIGTERM, and after `patience` SIGKILL. A dead fence is
    /// cleared; `tell` gets reports on that.
    ///
    /// # Errors
    /// If there is no such fence, or a part of it cannot be removed.
    pub fn remove(
        &self,
        name: &str,
        patience: Duration,
        tell: &mut dyn FnMut(&Note),
    ) -> Result<()> {
        self.check_version(name)?;
        let place = self.place(name);
        let registry = self.lock()?;
        if place.id()?.is_none() {
            let leftover =
                self.pins.directory(name).exists() || self.descriptions.read(name).is_some();
            registry.clear(tell)?;
            return if leftover && self.whereabouts(name, None) == Whereabouts::Gone {
                Ok(())
            } else {
                Err(self.why_not_here(name))
            };
        }
        let found = self.ids(name)?;
        if !place.is_own() {
            // Its supervisor notices that it is gone.
            return fail_with_all(self.remove_all(name, &place, found.cgroup));
        }
        // Others need not wait while processes end.
        drop(registry);

        place.ask_to_end(patience)?;
        place.empty(KILL_PATIENCE).with_context(|| stays(name))?;

        self.wait_for_supervisor(name)?;
        // A supervisor removes the rest after the place, and keeps these locks until then.
        let _registry = self.lock()?;
        if is_another(&found, &self.ids(name)?) {
            return Ok(());
        }
        // The process that removed the place may not have removed the rest yet.
        fail_with_all(self.remove_all(name, &place, found.cgroup))
    }

    /// The ids of the fence that has this name now: that of its place, and the one in its description.
    ///
    /// # Errors
    /// If the place cannot be read.
    pub fn ids(&self, name: &str) -> Result<Ids> {
        let cgroup = self.place(name).id()?;
        // Without a readable description the place identifies it.
        let described = self.descriptions.look(name).ok().flatten();
        let described = described.unwrap_or_default().ids;
        let id = described.id.filter(|_| described.cgroup == cgroup);
        Ok(Ids { id, cgroup })
    }

    /// Whether the name has another fence now than the one with these ids. If that cannot be read, it has not.
    #[must_use]
    pub fn has_another(&self, name: &str, before: &Ids) -> bool {
        self.ids(name).is_ok_and(|now| is_another(before, &now))
    }

    /// Waits for the supervisor, if there is one. Its command has ended, so it is about to remove the fence.
    fn wait_for_supervisor(&self, name: &str) -> Result<()> {
        if !self.is_supervised(name)? {
            return Ok(());
        }
        let supervisor = self
            .descriptions
            .read(name)
            .map(|description| description.supervisor);
        if let Some(pid) = supervisor {
            // It may be stopped, as after Ctrl-Z.
            let _ = kill(Pid::from_raw(pid), Signal::SIGCONT);
        }
        let deadline = Instant::now() + SUPERVISOR_PATIENCE;
        while self.is_supervised(name)? {
            if Instant::now() >= deadline {
                bail!(
                    "nothing runs in the fence {name} any more, but its supervisor (pid {}) has \
                     not removed it",
                    supervisor.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string())
                );
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Begins to hand the programs of a fence over to its own cgroup, which is about to be removed. `None` if that is not
    /// possible: then its links are kept until the last socket is gone.
    fn hand_over(&self, name: &str, place: &Place, id: Option<u64>) -> Option<HandOver> {
        let cgroup = place.is_own().then(|| place.cgroup().open())?.ok()?;
        self.pins.hand_over(name, cgroup, id?).ok()
    }

    /// Removes the links, the place and the description of a fence without processes. Tries every step, and returns
    /// the errors. `id` is that of its cgroup, if it had one here.
    ///
    /// Processes in a place of others are let go: the programs are detached from it.
    pub(crate) fn remove_all(
        &self,
        name: &str,
        place: &Place,
        id: Option<u64>,
    ) -> Vec<anyhow::Error> {
        // The links must exist as long as processes can be in the fence.
        match place.is_own().then(|| place.is_populated()).transpose() {
            Ok(None | Some(false)) => {}
            Ok(Some(true)) => return vec![anyhow!("the fence {name} has processes: not removed")],
            Err(error) => return vec![error.into()],
        }
        // As long as this is held, nobody changes the policy.
        let policy = self.policy_file(name).try_lock().ok().flatten();
        let handover = policy
            .as_ref()
            .and_then(|_| self.hand_over(name, place, id));
        if let Err(error) = place.remove() {
            // Processes could enter the remaining cgroup, so its links stay too.
            return vec![error];
        }
        // Pins and a description of this name may belong to another fence.
        if self.whereabouts(name, id) != Whereabouts::Gone {
            return vec![self.why_not_here(name)];
        }
        let described = self.descriptions.read(name);
        let devices = described.iter().flat_map(|found| &found.devices);
        // Before their programs are detached.
        let mut errors: Vec<_> = devices
            .filter_map(|device| device.delete_made().err())
            .collect();
        let handed_over = handover.is_some_and(|handover| handover.complete().is_ok());
        let links = match place.is_own() || !place.exists() {
            true => self.pins.let_go(name, handed_over),
            false => self.pins.detach(name),
        };
        // What still judges processes stays registered.
        let links = match links {
            Err(error) if place.exists() => {
                errors.push(error);
                return errors;
            }
            links => links,
        };
        let removed = [
            // Links that judge sockets outside the fence are kept. Everything on these sockets is refused, so this is
            // not reported.
            links,
            self.policy_file(name).remove(),
            self.names_file(name).remove(),
            self.record_files(name).remove(),
            // The description is removed last: the fence is registered as long as it exists.
            self.descriptions.remove(name),
        ];
        errors.extend(removed.into_iter().filter_map(Result::err));
        errors
    }
}

/// Whether the name has another fence now than before.
fn is_another(before: &Ids, now: &Ids) -> bool {
    match (&before.id, &now.id) {
        (Some(before), Some(now)) => before != now,
        _ => now.cgroup.is_some() && now.cgroup != before.cgroup,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fence::id::FenceId;

    #[test]
    fn another_fence_is_told_by_its_id_and_one_that_is_not_described_by_its_cgroup() {
        let of = |id: &Option<FenceId>, cgroup| Ids {
            id: id.clone(),
            cgroup,
        };
        let (one, two) = (Some(FenceId::random()), Some(FenceId::random()));
        for (before, now, expected) in [
            (of(&one, Some(1)), of(&one, Some(1)), false),
            (of(&one, Some(1)), of(&two, Some(2)), true),
            // The other fence's cgroup may be one that had a fence before.
            (of(&one, Some(1)), of(&two, Some(1)), true),
            (of(&one, Some(1)), of(&None, None), false),
            (of(&None, Some(1)), of(&None, Some(1)), false),
            (of(&None, Some(1)), of(&one, Some(2)), true),
            (of(&one, Some(1)), of(&None, Some(1)), false),
        ] {
            assert_eq!(is_another(&before, &now), expected, "{before:?} {now:?}");
        }
    }
}
