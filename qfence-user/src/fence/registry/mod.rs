//! All fences of the host: made, listed, swept and removed, under one lock.

mod sweep;

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use qfence_common::Hook;

use crate::{
    base::{
        locks::Mark,
        name::{NameError, derive_name},
        paths::Paths,
        say::say,
    },
    fence::{
        cgroup::Cgroup,
        description::{State, States},
        guard::{Claimed, Fence, KILL_PATIENCE, fail_with_all},
        hierarchy::Hierarchy,
        limits::Limits,
    },
    kernel::{
        pins::{self, Pins},
        snapshot::Snapshot,
    },
    policy::Policy,
    record::keep::Kept,
    store::Store,
};

use sweep::Whereabouts;

/// How long a supervisor gets to clean up once its command has ended. It may take ten seconds until it takes for ended
/// what a tracer keeps (`outlast.rs`).
const SUPERVISOR_PATIENCE: Duration = Duration::from_secs(20);

/// What a listed fence is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// Its supervisor is there.
    Running,
    /// Its supervisor is gone; what runs in it is fenced as the supervisor left it.
    Orphaned,
    /// Processes are in its cgroup, and the links that fenced them are not there.
    Unfenced,
    /// It was made by another version of qfence: it is left alone.
    Incompatible,
    /// Its cgroup is in a part of the hierarchy that is not seen from here, or may be: it is left alone.
    Elsewhere,
}

impl Condition {
    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Orphaned => "orphaned",
            Self::Unfenced => "UNFENCED",
            Self::Incompatible => "incompatible",
            Self::Elsewhere => "elsewhere",
        }
    }
}

/// A fence as `ps` shows it.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// What it is like.
    pub condition: Condition,
    /// The processes in it.
    pub pids: Vec<Pid>,
    /// Its description, if there is one.
    pub state: Option<State>,
    /// Its policy, if there is one that can be read.
    pub policy: Option<Policy>,
    /// What it has counted, if that can be read.
    pub counted: Option<Snapshot>,
}

/// All fences of the host.
#[derive(Clone, Debug)]
pub struct Fences {
    hierarchy: Hierarchy,
    pins: Pins,
    states: States,
}

impl Fences {
    /// Finds where fences are on this host.
    ///
    /// # Errors
    /// If there is no cgroup2 hierarchy, or somebody else than root can change it or what is known of fences.
    pub fn open(paths: &Paths) -> Result<Self> {
        let fences = Self::look(paths)?;
        fences.hierarchy.prepare()?;
        Ok(fences)
    }

    /// Finds where fences are on this host, to look at them alone: nothing is made.
    ///
    /// # Errors
    /// If there is no cgroup2 hierarchy, or somebody else than root can change what is known of fences.
    pub fn look(paths: &Paths) -> Result<Self> {
        let fences = Self {
            hierarchy: Hierarchy::find(&paths.mountinfo)?,
            pins: Pins::new(&paths.bpffs),
            states: States::new(&paths.run),
        };
        fences.states.check()?;
        fences.pins.check()?;
        Ok(fences)
    }

    /// The hierarchy they are in.
    #[must_use]
    pub fn hierarchy(&self) -> &Hierarchy {
        &self.hierarchy
    }

    /// Where the policy of a fence is kept.
    #[must_use]
    pub fn store(&self, name: &str) -> Store {
        Store::new(self.states.directory(), name, &self.pins(name))
    }

    /// Where the record of a fence is kept.
    #[must_use]
    pub fn kept(&self, name: &str) -> Kept {
        Kept::new(self.states.directory(), name)
    }

    /// What is known of a fence beside that; `None` if nothing can be read.
    #[must_use]
    pub fn description(&self, name: &str) -> Option<State> {
        self.states.read(name)
    }

    /// The version of the qfence that made the fence `name`; `None` if nothing there is has one. The pins come first: they
    /// are what a program of another version could do most harm to.
    pub(super) fn version_of(&self, name: &str) -> Result<Option<u32>> {
        let pinned = self.pins.version(name)?;
        Ok(pinned.or_else(|| self.states.version_of(name)))
    }

    /// What there is of a fence beside its cgroup.
    pub(super) fn paths_of(&self, name: &str) -> Vec<PathBuf> {
        let kept = self.kept(name);
        vec![
            self.pins(name),
            self.states.path(name),
            self.store(name).path().to_owned(),
            kept.path().to_owned(),
            kept.old_path().to_owned(),
        ]
    }

    /// Describes the fence `name`, whose cgroup has the id `cgroup`.
    pub(crate) fn describe(&self, name: &str, cgroup: u64, state: &State) -> Result<()> {
        let state = State {
            cgroup: Some(cgroup),
            ..state.clone()
        };
        self.states.write(name, &state)
    }

    /// The directory for the links of a fence.
    #[must_use]
    pub fn pins(&self, name: &str) -> PathBuf {
        self.pins.directory(name)
    }

    /// Makes a fence, empty and without programs, and clears what dead ones left.
    ///
    /// `name` is the name asked for; otherwise one is derived from `command`.
    ///
    /// # Errors
    /// If the name is in use, or anything cannot be made; nothing is left then.
    pub fn create(
        &self,
        name: Option<&str>,
        command: &Path,
        limits: &Limits,
        state: &State,
    ) -> Result<Fence> {
        if let Some(name) = name {
            self.check_version(name)?;
        }
        let registry = self.hierarchy.lock()?;
        self.sweep()?;
        limits.enable(&self.hierarchy)?;
        if self.pins.prepare()? {
            say("mounted bpffs, which was not there");
        }
        let (name, cgroup) = self.claim(name, command)?;
        let claimed = match self.mark(&name, &cgroup) {
            Ok(claimed) => claimed,
            Err(error) => {
                cgroup.remove()?;
                return Err(error);
            }
        };
        // From here on, dropping the fence removes what there is of it.
        let fence = Fence::new(name, cgroup, claimed, self.clone());
        let furnished = self.furnish(&fence, limits, state);
        // Removing the fence takes the lock anew.
        drop(registry);
        furnished?;
        Ok(fence)
    }

    fn furnish(&self, fence: &Fence, limits: &Limits, state: &State) -> Result<()> {
        limits.apply(fence.cgroup())?;
        fence.describe(state)
    }

    /// Marks a cgroup that was just made, and makes the directory of its pins, marked as well: those who share it and
    /// not the cgroup go by that.
    fn mark(&self, name: &str, cgroup: &Cgroup) -> Result<Claimed> {
        let id = cgroup.id()?.context("the cgroup is gone")?;
        let mark = cgroup.supervise()?;
        let directory = match self.pins.create(name) {
            Err(error) if is_there_already(&error) => {
                return Err(NameError::InUseElsewhere(name.to_owned()).into());
            }
            made => made?,
        };
        let marked = pins::open(&directory).and_then(|pins| Ok(Mark::set(pins)?));
        let on_pins = marked.inspect_err(|_| {
            // It is empty, and what went wrong is being told.
            let _ = std::fs::remove_dir(&directory);
        })?;
        Ok(Claimed {
            id,
            _marks: [mark, on_pins],
        })
    }

    fn claim(&self, name: Option<&str>, command: &Path) -> Result<(String, Cgroup)> {
        loop {
            let candidate = name.map_or_else(|| derive_name(command), str::to_owned);
            let cgroup = self.hierarchy.cgroup(&candidate);
            if name.is_none() && self.is_of_another_version(&candidate) {
                continue;
            }
            // What is dead was cleared just now.
            if !cgroup.exists() && self.whereabouts(&candidate, None) != Whereabouts::Gone {
                match name {
                    Some(_) => return Err(NameError::InUseElsewhere(candidate).into()),
                    None => continue,
                }
            }
            match cgroup.create() {
                Ok(()) => return Ok((candidate, cgroup)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    if name.is_some() {
                        return Err(NameError::InUse(candidate).into());
                    }
                }
                Err(error) => {
                    return Err(error).with_context(|| {
                        format!("cannot make the cgroup {}", cgroup.directory().display())
                    });
                }
            }
        }
    }

    /// Lists the fences by name, and clears what dead ones left. Those of other parts of the hierarchy are among them.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn list(&self) -> Result<Vec<Listed>> {
        let _registry = self.hierarchy.lock()?;
        let elsewhere = self.sweep()?;
        let mut names = self.hierarchy.names()?.fences;
        names.extend(elsewhere);
        names.sort();
        names.dedup();
        names.into_iter().map(|name| self.look_at(name)).collect()
    }

    /// Lists the fences by name as they are found: nothing is cleared, changed or waited for. One that comes
    /// or goes meanwhile may be missing, and what dead ones left is.
    ///
    /// # Errors
    /// If their cgroups cannot be read.
    pub fn list_as_found(&self) -> Result<Vec<Listed>> {
        let mut names = self.hierarchy.names()?.fences;
        names.sort();
        let found = names.into_iter().filter_map(|name| {
            let cgroup = self.hierarchy.cgroup(&name);
            match self.look_at(name) {
                Ok(listed) if listed.condition == Condition::Running => Some(Ok(listed)),
                // Without a supervisor and without processes it is dead, or not made yet.
                Ok(listed) => cgroup.is_populated().unwrap_or(true).then_some(Ok(listed)),
                Err(_) if !cgroup.exists() => None,
                Err(error) => Some(Err(error)),
            }
        });
        found.collect()
    }

    /// Lists one fence.
    ///
    /// # Errors
    /// If it cannot be read, or is not there.
    pub fn look_at(&self, name: String) -> Result<Listed> {
        let cgroup = self.hierarchy.cgroup(&name);
        let condition = self.condition_of(&name, &cgroup)?;
        if condition == Condition::Incompatible {
            return Ok(Listed {
                pids: cgroup.pids()?,
                name,
                condition,
                state: None,
                policy: None,
                counted: None,
            });
        }
        let state = self.states.read(&name);
        let stored = self.store(&name).read().ok().flatten();
        Ok(Listed {
            policy: stored.map(|stored| stored.policy),
            counted: Snapshot::of(&self.pins(&name)).ok(),
            condition,
            pids: cgroup.pids()?,
            state,
            name,
        })
    }

    /// What the fence `name` is like.
    ///
    /// # Errors
    /// If there is none, or only what a dead one left, or it is of [another version](super::version::OtherVersion).
    pub fn condition(&self, name: &str) -> Result<Condition> {
        self.check_version(name)?;
        let cgroup = self.hierarchy.cgroup(name);
        let condition = if cgroup.exists() {
            Some(self.condition_of(name, &cgroup)?)
        } else {
            None
        };
        match condition {
            Some(Condition::Running) => Ok(Condition::Running),
            Some(other) if cgroup.is_populated()? => Ok(other),
            _ => Err(self.why_not_here(name)),
        }
    }

    /// What the fence `name` is like, of which a policy is asked that is in force.
    ///
    /// # Errors
    /// As for [`Fences::condition`], and if nothing fences what runs in it.
    pub fn enforced(&self, name: &str) -> Result<Condition> {
        let condition = self.condition(name)?;
        ensure!(
            condition != Condition::Unfenced,
            "the fence {name} is not whole: its programs are gone, and what runs in it is NOT FENCED"
        );
        Ok(condition)
    }

    fn condition_of(&self, name: &str, cgroup: &Cgroup) -> Result<Condition> {
        let is_linked = |hook: &Hook| self.pins(name).join(hook.name()).exists();
        Ok(
            if !cgroup.exists() && self.whereabouts(name, None) != Whereabouts::Gone {
                Condition::Elsewhere
            } else if self.is_of_another_version(name) {
                Condition::Incompatible
            } else if cgroup.is_supervised()? {
                Condition::Running
            } else if Hook::ALL.iter().all(is_linked) {
                Condition::Orphaned
            } else {
                Condition::Unfenced
            },
        )
    }

    /// Ends what runs in a fence and removes it. Processes get SIGTERM, and after `patience`
    /// SIGKILL.
    ///
    /// # Errors
    /// If there is no such fence, or something of it cannot be removed.
    pub fn remove(&self, name: &str, patience: Duration) -> Result<()> {
        self.check_version(name)?;
        let cgroup = self.hierarchy.cgroup(name);
        let registry = self.hierarchy.lock()?;
        let Some(id) = cgroup.id()? else {
            let leftover = self.pins.directory(name).exists() || self.states.read(name).is_some();
            self.sweep()?;
            return if leftover && self.whereabouts(name, None) == Whereabouts::Gone {
                Ok(())
            } else {
                Err(self.why_not_here(name))
            };
        };
        // Others need not wait while processes end.
        drop(registry);

        cgroup.signal(Signal::SIGTERM)?;
        // A stopped process acts on no signal but this one and SIGKILL.
        cgroup.signal(Signal::SIGCONT)?;
        cgroup.wait_empty(patience)?;
        cgroup
            .kill_all(KILL_PATIENCE)
            .with_context(|| stays(name))?;

        self.wait_for_supervisor(name, &cgroup)?;
        // A supervisor removes the rest after the cgroup, and has this lock until that is done.
        let _registry = self.hierarchy.lock()?;
        match cgroup.id()? {
            // Another fence of the same name.
            Some(other) if other != id => Ok(()),
            // Whoever removed the cgroup may not have come to the rest of it.
            _ => fail_with_all(self.remove_all(name, Some(id))),
        }
    }

    /// Its command has ended, so a supervisor, if there is one, is about to remove the fence.
    fn wait_for_supervisor(&self, name: &str, cgroup: &Cgroup) -> Result<()> {
        if !cgroup.is_supervised()? {
            return Ok(());
        }
        let supervisor = self.states.read(name).map(|state| state.supervisor);
        if let Some(pid) = supervisor {
            // It may be stopped, as after Ctrl-Z.
            let _ = kill(Pid::from_raw(pid), Signal::SIGCONT);
        }
        let deadline = Instant::now() + SUPERVISOR_PATIENCE;
        while cgroup.is_supervised()? {
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
}

/// Whether what could not be made is there already.
fn is_there_already(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::AlreadyExists)
}

/// What is said of a fence that has processes which do not end.
pub(crate) fn stays(name: &str) -> String {
    format!(
        "the fence {name} stays in force, until `qfence-user rm {name}` or the next command of qfence after \
         these processes have ended"
    )
}
