//! What a policy is made from: the host's addresses, its nameservers, and the rules in the store.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};

use super::Update;
use crate::{
    compile::{Compiled, compile},
    host::{netlink::LocalRoutes, resolv::ResolvConf},
    policy::{
        Policy, Sets,
        hostset::{host_set, many_set},
    },
    store::{Edition, Store, Stored, netns},
};

/// What a policy is made from, and what was made of it.
pub(super) struct Followed {
    pub(super) store: Store,
    /// The rules, as far as this process knows: the store has what others made of them.
    pub(super) policy: Policy,
    pub(super) routes: LocalRoutes,
    pub(super) resolv_path: PathBuf,
    /// Not followed while no rule names nameservers.
    pub(super) resolv_conf: Option<ResolvConf>,
    /// The members of the sets that the kernel's policy was compiled with, once it has one.
    pub(super) sets: Option<Sets>,
    /// The writing of the store that this process has seen.
    pub(super) edition: Option<Edition>,
    pub(super) compiled: Compiled,
    /// How many policies the fence has had, as far as this process knows.
    pub(super) generation: u64,
    /// Whether somebody else may have put other members of the sets in force.
    pub(super) doubted: bool,
    /// Whether the store lacks what this process has put in force.
    pub(super) is_behind: bool,
    /// Why the store could not be locked, read or written at the last look.
    pub(super) unkept: Option<anyhow::Error>,
    pub(super) netns: u64,
}

impl Followed {
    /// Starts to follow. Nothing is known to be in force yet.
    pub(super) fn new(store: Store, policy: Policy, resolv_conf: &Path) -> Result<Self> {
        Ok(Self {
            store,
            policy,
            routes: LocalRoutes::subscribe()?,
            resolv_path: resolv_conf.to_owned(),
            resolv_conf: None,
            sets: None,
            edition: None,
            compiled: Compiled::default(),
            generation: 0,
            doubted: false,
            is_behind: false,
            unkept: None,
            netns: netns()?,
        })
    }

    /// Starts to follow the host's addresses anew, after that has failed.
    pub(super) fn subscribe_again(&mut self) -> Result<()> {
        self.routes = LocalRoutes::subscribe()?;
        Ok(())
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
    /// process knows.
    pub(super) async fn renew(
        &mut self,
        publish: impl FnOnce(&Compiled) -> Result<()>,
    ) -> Result<Update> {
        // Waiting for the kernel and holding the lock do not go together: others wait for that.
        let local = self.routes.dump().await?;
        let is_first = self.sets.is_none();
        self.unkept = None;
        // Not waited for, but for the first policy: who holds it may be stopped, and a supervisor has more
        // to do.
        let _lock = match is_first {
            true => Some(self.store.lock()?),
            false => match self.store.try_lock() {
                Ok(None) => return Ok(Update::Busy),
                // Whoever cannot find what is to be locked cannot publish either.
                locked => self.or_unkept(locked)?.flatten(),
            },
        };
        let read = self.store.read();
        let is_readable = read.is_ok();
        let stored = self.or_unkept(read)?.flatten();
        // Somebody may have removed it: then it is written anew. What cannot be understood is left.
        let is_kept = !is_readable || stored.is_some() && !self.is_behind;
        let before = stored
            .as_ref()
            .map_or(self.generation, |stored| stored.generation);
        // What was compiled in last, by whom ever. A first policy has nothing before it.
        let (policy, last) = match stored {
            Some(stored) if !self.is_behind => (stored.policy, Some(stored.sets.nameservers)),
            other => {
                let last = self.sets.as_ref().map(|sets| sets.nameservers.clone());
                (
                    other.map_or_else(|| self.policy.clone(), |other| other.policy),
                    last,
                )
            }
        };
        let sets = Sets {
            host: host_set(local.all),
            many: many_set(local.broadcast),
            nameservers: match (self.nameservers_of(&policy), last) {
                (Some(resolv_conf), Some(last)) => resolv_conf.nameservers_or(&last),
                (Some(resolv_conf), None) => resolv_conf.nameservers()?,
                (None, _) => Default::default(),
            },
        };
        let is_known = self.sets.as_ref() == Some(&sets) && self.policy == policy;
        let is_in_force = is_known && !self.doubted;
        if is_kept && is_in_force {
            self.edition = self.store.edition();
            return Ok(Update::Same);
        }
        let compiled = match is_in_force {
            true => None,
            false => Some(compile(&policy.rules(), &sets, policy.monitor)?),
        };
        let stored = Stored {
            policy,
            sets,
            netns: self.netns,
            generation: before + 1,
        };
        let pending = match is_readable {
            true => {
                let prepared = self.store.prepare(&stored);
                self.or_unkept(prepared)?
            }
            false => None,
        };
        if let Some(compiled) = compiled {
            publish(&compiled)?;
            self.compiled = compiled;
        }
        let kept = match pending {
            Some(pending) => self.or_unkept(pending.keep())?,
            None => None,
        };
        self.is_behind = kept.is_none();
        self.edition = self.store.edition();
        let Stored {
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

    /// The resolv.conf, followed from now on if `policy` depends on it.
    fn nameservers_of(&mut self, policy: &Policy) -> Option<&mut ResolvConf> {
        if !policy.names_dns() {
            self.resolv_conf = None;
        } else if self.resolv_conf.is_none() {
            self.resolv_conf = Some(ResolvConf::follow(&self.resolv_path));
        }
        self.resolv_conf.as_mut()
    }
}
