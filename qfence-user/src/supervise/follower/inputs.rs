//! The inputs of a policy: the facts of the host, and the stored rules.

use anyhow::{Error, Result, anyhow};

use super::{Update, facts::Facts};
use crate::{
    compile::{Compiled, compile},
    host::watcher::Watcher,
    policy::{Policy, Sets},
    stored_policy::{FileVersion, PolicyFile, StoredPolicy, netns},
};

/// How the lock on the policy is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lock {
    /// It is waited for: no command runs yet.
    Wait,
    /// Without waiting. A stopped process may have it, and the supervisor has other work to do.
    Try,
}

/// The inputs of a policy, and the policy that was made of them.
pub(super) struct Inputs {
    pub(super) policy_file: PolicyFile,
    /// The rules as last known to this process. Other commands can change the stored ones.
    pub(super) policy: Policy,
    pub(super) facts: Facts,
    /// The members of the sets in the kernel's policy; `None` before the first one.
    pub(super) sets: Option<Sets>,
    /// The last version of the policy file that this process has read or written.
    pub(super) version: Option<FileVersion>,
    pub(super) compiled: Compiled,
    /// The number of policies that the fence has had, as last known to this process.
    pub(super) generation: u64,
    /// Whether another process may have published other members of the sets.
    pub(super) doubted: bool,
    /// Whether the stored policy is older than the published one.
    pub(super) is_behind: bool,
    /// The error, if the policy file could not be locked, read or written at the last update.
    pub(super) unkept: Option<Error>,
    pub(super) netns: u64,
}

impl Inputs {
    /// Starts to follow the facts. Nothing is published yet.
    pub(super) fn new(
        policy_file: PolicyFile,
        policy: Policy,
        watcher: &Watcher,
        devices: Vec<String>,
    ) -> Result<Self> {
        Ok(Self {
            policy_file,
            policy,
            facts: Facts::new(watcher, devices),
            sets: None,
            version: None,
            compiled: Compiled::default(),
            generation: 0,
            doubted: false,
            is_behind: false,
            unkept: None,
            netns: netns()?,
        })
    }

    /// The error, if other commands may not find the policy in force in the policy file.
    pub(super) fn why_unkept(&self) -> Result<()> {
        match &self.unkept {
            None => Ok(()),
            Some(error) => Err(anyhow!(
                "error: {error:#}: the fence still follows the host's addresses and nameservers, but other commands \
                 may see an older policy; retrying"
            )),
        }
    }

    /// Waits for what the first policy did not wait for: the NAT64 translators that nameservers reveal within 200 ms. Returns
    /// whether there are others than the published ones.
    pub(super) async fn has_late_translators(&mut self) -> bool {
        let Some(found) = self.facts.await_translators().await else {
            return false;
        };
        let published = self.sets.as_ref().map(|sets| &sets.nat64);
        published.is_some_and(|published| {
            let mut late = published.clone();
            (*found).clone().put_in_place_of(&mut late);
            late != *published
        })
    }

    /// As [`Follower::update`]; `publish` puts a policy in force.
    ///
    /// After the first policy, a failing policy file does not prevent publishing: the rules are then those last known
    /// to this process. A fact that cannot be read does not affect the other one. For addresses, the last known ones
    /// are used. Without known nameservers there is no exception for them.
    pub(super) async fn renew(
        &mut self,
        lock: Lock,
        publish: impl FnOnce(&Compiled) -> Result<()>,
    ) -> Result<Update> {
        // The kernel's answer is awaited before the lock is taken, so that other commands do not wait for it.
        let addresses = self.facts.addresses.reading().await;
        self.unkept = None;
        let _lock = match lock {
            Lock::Wait => Some(self.policy_file.lock()?),
            Lock::Try => match self.policy_file.try_lock() {
                Ok(None) => return Ok(Update::Busy),
                // If the file to be locked cannot be found, other commands cannot publish either.
                locked => self.or_unkept(locked)?.flatten(),
            },
        };
        let read = self.policy_file.read();
        let is_readable = read.is_ok();
        let stored = self.or_unkept(read.map_err(Into::into))?.flatten();
        // A file that was removed is written again. A file that cannot be parsed is left unchanged.
        let is_kept = !is_readable || stored.is_some() && !self.is_behind;
        let before = stored
            .as_ref()
            .map_or(self.generation, |stored| stored.generation);
        // The members in the policy that was published last, by any process. Before the first policy there are none.
        let (policy, last) = match stored {
            Some(stored) if !self.is_behind => (stored.policy, Some(stored.sets)),
            other => {
                let policy = other.map_or_else(|| self.policy.clone(), |other| other.policy);
                (policy, self.sets.clone())
            }
        };
        let sets = self.facts.sets_now(&policy, addresses, last).await?;
        let is_known = self.sets.as_ref() == Some(&sets) && self.policy == policy;
        let is_in_force = is_known && !self.doubted;
        if is_kept && is_in_force {
            self.version = self.policy_file.file_version();
            return Ok(Update::Same);
        }
        let compiled = match is_in_force {
            true => None,
            false => Some(compile(&policy.rules(), &sets, policy.monitor)?),
        };
        let stored = StoredPolicy {
            policy,
            sets,
            netns: self.netns,
            resolv_conf: Some(self.facts.nameservers_file().to_owned()),
            generation: before + 1,
            devices: self.facts.device_names.clone(),
            workload: self.facts.last_workload.clone(),
        };
        let pending = match is_readable {
            true => {
                let prepared = self.policy_file.prepare(&stored);
                self.or_unkept(prepared)?
            }
            false => None,
        };
        if let Some(compiled) = compiled {
            publish(&compiled)?;
            self.compiled = compiled;
        }
        let kept = match pending {
            Some(pending) => self.or_unkept(pending.keep().map_err(Into::into))?,
            None => None,
        };
        self.is_behind = kept.is_none();
        self.version = self.policy_file.file_version();
        let StoredPolicy {
            policy,
            sets,
            generation,
            ..
        } = stored;
        self.generation = generation;
        let published = Update::Published {
            host: sets.host.len(),
            nameservers: sets.nameservers.len(),
        };
        self.policy = policy;
        self.sets = Some(sets);
        self.doubted = false;
        Ok(published)
    }

    /// The result of a file operation; `None` after an error, which is noted. For the first policy the error is
    /// returned.
    fn or_unkept<T>(&mut self, result: Result<T>) -> Result<Option<T>> {
        match result {
            Err(error) if self.sets.is_some() => {
                self.unkept = Some(error);
                Ok(None)
            }
            result => result.map(Some),
        }
    }
}
