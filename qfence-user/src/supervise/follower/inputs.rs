//! The inputs of a policy: the host's addresses, its nameservers, and the stored rules.

use std::{collections::BTreeSet, future::pending, sync::Arc};

use anyhow::{Error, Result, anyhow};

use super::Update;
use crate::{
    compile::{Compiled, compile},
    host::{
        addresses::{AddressError, Addresses, HostAddresses},
        nameservers::ResolvConf,
        subscription::{Subscription, Unknown},
        watcher::Watcher,
    },
    policy::{Policy, Prefix, Sets},
    stored_policy::{FileVersion, PolicyFile, StoredPolicy, netns},
};

/// The inputs of a policy, and the policy that was made of them.
pub(super) struct Inputs {
    pub(super) policy_file: PolicyFile,
    /// The rules as last known to this process. Other commands can change the stored ones.
    pub(super) policy: Policy,
    pub(super) watcher: Watcher,
    pub(super) addresses: Subscription<Addresses>,
    /// `None` while no rule names nameservers.
    pub(super) nameservers: Option<Subscription<ResolvConf>>,
    /// Whether there was a file with nameservers.
    has_seen_file: bool,
    /// The error, if the host's addresses are not followed.
    unfollowed: Option<Error>,
    /// The error, if a rule names nameservers and they are not known.
    unnamed: Option<Error>,
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
    pub(super) fn new(policy_file: PolicyFile, policy: Policy, watcher: &Watcher) -> Result<Self> {
        Ok(Self {
            policy_file,
            policy,
            watcher: watcher.clone(),
            addresses: watcher.addresses(),
            nameservers: None,
            has_seen_file: false,
            unfollowed: None,
            unnamed: None,
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

    /// Subscribes again to facts that are not followed any more.
    pub(super) fn subscribe_again(&mut self) {
        if !self.addresses.is_followed() {
            self.addresses = self.watcher.addresses();
        }
        if let Some(nameservers) = &mut self.nameservers
            && !nameservers.is_followed()
        {
            *nameservers = self.watcher.nameservers();
        }
    }

    /// Waits until a fact may have changed, or cannot be read any more. Cancel-safe.
    pub(super) async fn changed(&mut self) {
        let nameservers = async {
            match &mut self.nameservers {
                Some(nameservers) => nameservers.changed().await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = self.addresses.changed() => (),
            () = nameservers => (),
        }
    }

    /// Whether a fact was read after the policy was made.
    pub(super) fn has_news(&self) -> bool {
        let nameservers = self.nameservers.as_ref();
        self.addresses.has_changed() || nameservers.is_some_and(Subscription::has_changed)
    }

    /// Reads all facts again. [`Inputs::renew`] handles errors.
    pub(super) async fn refresh(&mut self) {
        let _ = self.addresses.fresh().await;
        if let Some(nameservers) = &mut self.nameservers {
            let _ = nameservers.fresh().await;
        }
    }

    /// The error, if the host's addresses are not followed.
    pub(super) fn why_unfollowed(&self) -> Result<()> {
        match &self.unfollowed {
            None => Ok(()),
            Some(error) => Err(anyhow!(
                "error: {error:#}: the fence does not follow the host's addresses; retrying"
            )),
        }
    }

    /// The error, if a rule names nameservers and they are not known.
    pub(super) fn why_unnamed(&self) -> Result<()> {
        match &self.unnamed {
            None => Ok(()),
            Some(error) => Err(anyhow!(
                "{error:#}: the exception for nameservers is suspended until the file can be read"
            )),
        }
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

    /// As [`Follower::update`]; `publish` puts a policy in force.
    ///
    /// After the first policy, a failing policy file does not prevent publishing: the rules are then those last known
    /// to this process. A fact that cannot be read does not affect the other one. For addresses, the last known ones
    /// are used. Without known nameservers there is no exception for them.
    pub(super) async fn renew(
        &mut self,
        publish: impl FnOnce(&Compiled) -> Result<()>,
    ) -> Result<Update> {
        // The kernel's answer is awaited before the lock is taken, so that other commands do not wait for it.
        let addresses = self.addresses.reading().await;
        let is_first = self.sets.is_none();
        self.unkept = None;
        // Only the first policy waits for the lock. Later, a stopped process may have it, and the supervisor has other
        // work to do.
        let _lock = match is_first {
            true => Some(self.policy_file.lock()?),
            false => match self.policy_file.try_lock() {
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
        let sets = self.sets_now(&policy, addresses, last).await?;
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
            generation: before + 1,
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

    /// The members of the sets, from the host's addresses. `last` are the members published last; for the first policy
    /// there are none, and a fact that cannot be read is an error.
    async fn sets_now(
        &mut self,
        policy: &Policy,
        addresses: Result<Arc<HostAddresses>, Unknown<AddressError>>,
        last: Option<Sets>,
    ) -> Result<Sets> {
        let is_first = last.is_none();
        let mut sets = match (addresses, last) {
            (Ok(addresses), _) => {
                self.unfollowed = None;
                let HostAddresses { host, many } = (*addresses).clone();
                Sets {
                    host,
                    many,
                    ..Sets::default()
                }
            }
            (Err(error), Some(last)) => {
                self.unfollowed = Some(error.into());
                last
            }
            (Err(error), None) => return Err(error.into()),
        };
        sets.nameservers = self.nameservers_now(policy, is_first).await?;
        Ok(sets)
    }

    /// The nameservers. From now on they are followed if `policy` depends on them.
    async fn nameservers_now(
        &mut self,
        policy: &Policy,
        is_first: bool,
    ) -> Result<BTreeSet<Prefix>> {
        self.unnamed = None;
        if !policy.names_dns() {
            self.nameservers = None;
            return Ok(BTreeSet::new());
        }
        let watcher = &self.watcher;
        let nameservers = self
            .nameservers
            .get_or_insert_with(|| watcher.nameservers());
        match nameservers.reading().await {
            Ok(found) => {
                if found.is_missing && self.has_seen_file {
                    let path = watcher.resolv_conf().display();
                    self.unnamed = Some(anyhow!("warning: {path} is gone"));
                }
                self.has_seen_file |= !found.is_missing;
                Ok(found.addresses.clone())
            }
            Err(error) if is_first => Err(error.into()),
            Err(error) => {
                self.has_seen_file = true;
                self.unnamed = Some(Error::from(error).context("error"));
                Ok(BTreeSet::new())
            }
        }
    }
}
