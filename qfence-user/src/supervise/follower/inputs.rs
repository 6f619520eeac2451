//! What a policy is made from: the host's addresses, its nameservers, and the rules in the store.

use std::{collections::BTreeSet, sync::Arc};

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

/// What a policy is made from, and what was made of it.
pub(super) struct Inputs {
    pub(super) policy_file: PolicyFile,
    /// The rules, as far as this process knows: the store has what others made of them.
    pub(super) policy: Policy,
    pub(super) watcher: Watcher,
    pub(super) addresses: Subscription<Addresses>,
    /// Not followed while no rule names nameservers.
    pub(super) nameservers: Option<Subscription<ResolvConf>>,
    /// Whether there was a file that names nameservers.
    has_seen_file: bool,
    /// Why the host's addresses are not followed, if so.
    unfollowed: Option<Error>,
    /// Why no nameserver is excepted although a rule would have it, if so.
    unnamed: Option<Error>,
    /// The members of the sets that the kernel's policy was compiled with, once it has one.
    pub(super) sets: Option<Sets>,
    /// The writing of the store that this process has seen.
    pub(super) version: Option<FileVersion>,
    pub(super) compiled: Compiled,
    /// How many policies the fence has had, as far as this process knows.
    pub(super) generation: u64,
    /// Whether somebody else may have put other members of the sets in force.
    pub(super) doubted: bool,
    /// Whether the store lacks what this process has put in force.
    pub(super) is_behind: bool,
    /// Why the store could not be locked, read or written at the last look.
    pub(super) unkept: Option<Error>,
    pub(super) netns: u64,
}

impl Inputs {
    /// Starts to follow. Nothing is known to be in force yet.
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

    /// Subscribes anew to what is not followed any more.
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

    /// Whether a fact was read anew since the policy was made.
    pub(super) fn has_news(&self) -> bool {
        let nameservers = self.nameservers.as_ref();
        self.addresses.has_changed() || nameservers.is_some_and(Subscription::has_changed)
    }

    /// Reads all facts anew. What fails is for [`Inputs::renew`] to see.
    pub(super) async fn refresh(&mut self) {
        let _ = self.addresses.fresh().await;
        if let Some(nameservers) = &mut self.nameservers {
            let _ = nameservers.fresh().await;
        }
    }

    /// Why the host's addresses are not followed, if so, as a line.
    pub(super) fn why_unfollowed(&self) -> Result<()> {
        match &self.unfollowed {
            None => Ok(()),
            Some(error) => Err(anyhow!(
                "error: {error:#}: the fence does not follow the host's addresses; trying again"
            )),
        }
    }

    /// Why no nameserver is excepted although a rule would have it, if so, as a line.
    pub(super) fn why_unnamed(&self) -> Result<()> {
        match &self.unnamed {
            None => Ok(()),
            Some(error) => Err(anyhow!(
                "{error:#}: no nameserver is excepted until it can be read"
            )),
        }
    }

    /// Why other commands may not find in the store what is in force.
    pub(super) fn why_unkept(&self) -> Result<()> {
        match &self.unkept {
            None => Ok(()),
            Some(error) => Err(anyhow!(
                "error: {error:#}: the fence follows the host's addresses and nameservers all the same, and other commands \
                 may see an older policy; trying again"
            )),
        }
    }

    /// As [`Follower::update`]; `publish` puts a policy in force.
    ///
    /// Once there is a policy, a store that fails keeps nothing from being published: the rules are then those that this
    /// process knows. Nor does a fact that cannot be read keep the other: addresses are those that were known last, and
    /// nameservers none, for an exception is to be made for those alone that are known.
    pub(super) async fn renew(
        &mut self,
        publish: impl FnOnce(&Compiled) -> Result<()>,
    ) -> Result<Update> {
        // Waiting for the kernel and holding the lock do not go together: others wait for that.
        let addresses = self.addresses.reading().await;
        let is_first = self.sets.is_none();
        self.unkept = None;
        // Not waited for, but for the first policy: who holds it may be stopped, and a supervisor has more
        // to do.
        let _lock = match is_first {
            true => Some(self.policy_file.lock()?),
            false => match self.policy_file.try_lock() {
                Ok(None) => return Ok(Update::Busy),
                // Whoever cannot find what is to be locked cannot publish either.
                locked => self.or_unkept(locked)?.flatten(),
            },
        };
        let read = self.policy_file.read();
        let is_readable = read.is_ok();
        let stored = self.or_unkept(read.map_err(Into::into))?.flatten();
        // Somebody may have removed it: then it is written anew. What cannot be understood is left.
        let is_kept = !is_readable || stored.is_some() && !self.is_behind;
        let before = stored
            .as_ref()
            .map_or(self.generation, |stored| stored.generation);
        // What was compiled in last, by whom ever. A first policy has nothing before it.
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

    /// What the store has come to; `None` if it has failed, which is noted. Of the first policy that is an error.
    fn or_unkept<T>(&mut self, result: Result<T>) -> Result<Option<T>> {
        match result {
            Err(error) if self.sets.is_some() => {
                self.unkept = Some(error);
                Ok(None)
            }
            result => result.map(Some),
        }
    }

    /// The members of the sets, given the host's addresses, and those that were compiled in last; of the first policy
    /// there are none, and what cannot be read is an error.
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

    /// The nameservers, followed from now on if `policy` depends on them.
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
