//! Ends what runs in a fence, and removes it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{Fences, Note, stays, whereabouts::Whereabouts};
use crate::fence::{
    guard::{KILL_PATIENCE, fail_with_all},
    id::Ids,
};

/// How long a supervisor gets to clean up once its command has ended. It may take ten seconds until it takes for ended
/// what a tracer keeps (`ending.rs`).
const SUPERVISOR_PATIENCE: Duration = Duration::from_secs(20);

impl Fences {
    /// Ends what runs in a fence and removes it. Processes get SIGTERM, and after `patience`
    /// SIGKILL. If it is dead, what dead fences left is cleared; `tell` is given what there is to say of that.
    ///
    /// # Errors
    /// If there is no such fence, or something of it cannot be removed.
    pub fn remove(
        &self,
        name: &str,
        patience: Duration,
        tell: &mut dyn FnMut(&Note),
    ) -> Result<()> {
        self.check_version(name)?;
        let place = self.place(name);
        let registry = self.lock()?;
        if place.cgroup().id()?.is_none() {
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
        // Others need not wait while processes end.
        drop(registry);

        place.ask_to_end(patience)?;
        place.empty(KILL_PATIENCE).with_context(|| stays(name))?;

        self.wait_for_supervisor(name)?;
        // A supervisor removes the rest after the place, and has these locks until that is done.
        let _registry = self.lock()?;
        if is_another(&found, &self.ids(name)?) {
            return Ok(());
        }
        // Whoever removed the place may not have come to the rest of it.
        fail_with_all(self.remove_all(name, found.cgroup))
    }

    /// Which fence has this name here: the place that is here, and the id that it is described with.
    fn ids(&self, name: &str) -> Result<Ids> {
        let cgroup = self.place(name).cgroup().id()?;
        // Without a description that can be read it is its place.
        let described = self.descriptions.look(name).ok().flatten();
        let described = described.unwrap_or_default().ids;
        let id = described.id.filter(|_| described.cgroup == cgroup);
        Ok(Ids { id, cgroup })
    }

    /// Its command has ended, so a supervisor, if there is one, is about to remove the fence.
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

    /// Removes the links, the place and the description of a fence without processes; every step
    /// is tried, and what went wrong is returned. `id` is that of its cgroup, if it had one here.
    pub(crate) fn remove_all(&self, name: &str, id: Option<u64>) -> Vec<anyhow::Error> {
        let place = self.place(name);
        // Links last as long as there can be somebody to fence.
        match place.is_populated() {
            Ok(false) => {}
            Ok(true) => return vec![anyhow!("the fence {name} has processes: not removed")],
            Err(error) => return vec![error.into()],
        }
        if let Err(error) = place.remove() {
            // A cgroup that stays may be entered again, so its links stay too.
            return vec![error];
        }
        // Pins and a description that another's fence of this name has are not this one's.
        if self.whereabouts(name, id) != Whereabouts::Gone {
            return vec![self.why_not_here(name)];
        }
        [
            // Links that judge sockets which others have are kept: no word, as those are refused everything.
            self.pins.let_go(name),
            self.policy_file(name).remove(),
            self.record_files(name).remove(),
            // The last: as long as it is there, so is the fence.
            self.descriptions.remove(name),
        ]
        .into_iter()
        .filter_map(Result::err)
        .collect()
    }
}

/// Whether there is another fence of the name now than the one that was found before.
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
            // Another's cgroup may have had a fence before.
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
