//! The policy in force, which follows the host's addresses and nameservers, and what others change of it.

use std::{
    future::pending,
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use qfence_common::{Action, Path as Way, Protocol};

use crate::{
    aside::Aside,
    compile::{Compiled, compile},
    hostset::{host_set, many_set},
    kernel::{Kernel, Maps},
    netlink::LocalRoutes,
    policy::{Policy, Sets},
    resolv::ResolvConf,
    store::{Edition, Store, Stored, netns},
};

/// Keeps the kernel's policy true to what it is made from: the supervisor by the programs that it loaded, its
/// stand-in by their pinned maps.
pub struct Follower<P = Kernel> {
    kernel: P,
    followed: Followed,
    /// Whether changes of the host's addresses are announced.
    following: bool,
    /// Whether the policy in force is up to date, as far as is known.
    current: bool,
}

/// What a policy is made from, and what was made of it.
struct Followed {
    store: Store,
    /// The rules, as far as this process knows: the store has what others made of them.
    policy: Policy,
    routes: LocalRoutes,
    resolv_path: PathBuf,
    /// Not followed while no rule names nameservers.
    resolv_conf: Option<ResolvConf>,
    /// The members of the sets that the kernel's policy was compiled with, once it has one.
    sets: Option<Sets>,
    /// The writing of the store that this process has seen.
    edition: Option<Edition>,
    compiled: Compiled,
    /// How many policies the fence has had, as far as this process knows.
    generation: u64,
    /// Whether somebody else may have put other members of the sets in force.
    doubted: bool,
}

/// What came of bringing the policy up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// Nothing had changed.
    Same,
    /// Somebody else is about to change the policy: this is to be tried again.
    Busy,
    /// A policy of this many prefixes is in force now.
    Published {
        /// How many prefixes lead to the host.
        host: usize,
        /// How many nameservers there are.
        nameservers: usize,
    },
}

impl Follower<Kernel> {
    /// Puts a policy in force for the first time, of the fence whose store this is: `load` makes what it is in force
    /// in. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If the members of the sets cannot be read, or what `load` fails with.
    pub async fn begin(
        store: Store,
        policy: Policy,
        resolv_conf: &Path,
        load: impl FnOnce(&Compiled) -> Result<Kernel>,
    ) -> Result<(Self, Update)> {
        let mut followed = Followed::new(store, policy, resolv_conf)?;
        let mut kernel = None;
        let load = |compiled: &Compiled| {
            kernel = Some(load(compiled)?);
            Ok(())
        };
        let update = followed.renew(load).await?;
        let mut kernel: Kernel = kernel.context("no policy was made")?;
        AsMut::<Maps>::as_mut(&mut kernel).beat()?;
        let follower = Self {
            kernel,
            followed,
            following: true,
            current: true,
        };
        Ok((follower, update))
    }

    /// The programs.
    pub fn kernel(&mut self) -> &mut Kernel {
        &mut self.kernel
    }
}

impl Follower<Maps> {
    /// Follows in the place of the supervisor of the fence whose store this is and whose links are in `pins`. It is
    /// not up to date before the first [`Follower::tick`]. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If the policy or the maps are not there, or the host's addresses cannot be followed.
    pub fn in_place_of_supervisor(store: Store, pins: &Path, resolv_conf: &Path) -> Result<Self> {
        let kernel = Maps::open(pins)?;
        let stored = store.read()?.context("the fence has no policy")?;
        let mut followed = Followed::new(store, stored.policy, resolv_conf)?;
        followed.sets = Some(stored.sets);
        followed.generation = stored.generation;
        Ok(Self {
            kernel,
            followed,
            following: true,
            current: false,
        })
    }
}

impl<P: AsMut<Maps>> Follower<P> {
    /// Reads the members of the sets anew, and the rules that others may have changed, and publishes the
    /// policy if anything is different.
    ///
    /// # Errors
    /// If they cannot be read or published; what was in force before still is.
    pub async fn update(&mut self) -> Result<Update> {
        let kernel = &mut self.kernel;
        self.followed
            .renew(|compiled| kernel.as_mut().publish(compiled))
            .await
    }

    /// Whether a connection to there is refused, by the policy that this process published last.
    #[must_use]
    pub fn refuses(&self, address: IpAddr, port: u16) -> bool {
        let Followed {
            compiled, policy, ..
        } = &self.followed;
        let verdict = compiled.decide(Way::Address, Protocol::TCP, address, port);
        verdict.action() == Action::Deny && !policy.monitor
    }

    /// Waits until the members of a set may have changed, or that can no longer be told: for
    /// [`Follower::keep_up`]. Nothing is lost if it is not awaited to its end.
    pub(crate) async fn changed(&mut self) -> Result<()> {
        let followed = &mut self.followed;
        let routes = async {
            match self.following {
                true => followed.routes.changed().await,
                false => pending().await,
            }
        };
        let resolv_conf = async {
            match &mut followed.resolv_conf {
                Some(resolv_conf) => resolv_conf.changed().await,
                None => pending().await,
            }
        };
        tokio::select! {
            changed = routes => changed,
            () = resolv_conf => Ok(()),
        }
    }

    /// Takes in what [`Follower::changed`] came to. What fails is said, and tried again by [`Follower::tick`].
    pub(crate) async fn keep_up(&mut self, changed: Result<()>, aside: &mut Aside) {
        self.following &= aside.report(changed).is_some();
        self.bring_up_to_date(aside).await;
    }

    /// To be called once a second: tries again what failed, takes in what others changed, and has the programs
    /// know that the host's addresses are followed, if they are.
    pub(crate) async fn tick(&mut self, aside: &mut Aside) {
        if !self.following {
            self.following = aside.report(self.followed.subscribe_again()).is_some();
            self.current = false;
        }
        // Others compile by what they find in the store, too: that it is true to the host stays the
        // affair of this process.
        let was_changed = self.followed.store.edition() != self.followed.edition;
        if !self.current || was_changed {
            self.bring_up_to_date(aside).await;
        }
        self.beat(aside);
    }

    /// Looks anew, and publishes in any case: somebody else has followed meanwhile, and it is not known how far
    /// they came.
    pub(crate) async fn take_over(&mut self, aside: &mut Aside) {
        self.followed.doubted = true;
        self.bring_up_to_date(aside).await;
        self.beat(aside);
    }

    async fn bring_up_to_date(&mut self, aside: &mut Aside) {
        let updated = self.update().await;
        let updated = aside.report(updated.context(
            "the fence does not follow the host's addresses and nameservers; trying again",
        ));
        self.current = updated.is_some_and(|update| update != Update::Busy);
    }

    /// Says nothing to the programs while the policy may be out of date: that is what they are to notice.
    fn beat(&mut self, aside: &mut Aside) {
        if self.following && self.current {
            aside.report(self.kernel.as_mut().beat());
        }
    }
}

impl Followed {
    /// Starts to follow. Nothing is known to be in force yet.
    fn new(store: Store, policy: Policy, resolv_conf: &Path) -> Result<Self> {
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
        })
    }

    /// Starts to follow the host's addresses anew, after that has failed.
    fn subscribe_again(&mut self) -> Result<()> {
        self.routes = LocalRoutes::subscribe()?;
        Ok(())
    }

    /// As [`Follower::update`]; `publish` puts a policy in force.
    async fn renew(&mut self, publish: impl FnOnce(&Compiled) -> Result<()>) -> Result<Update> {
        // Waiting for the kernel and holding the lock do not go together: others wait for that.
        let local = self.routes.dump().await?;
        // Not waited for, but for the first policy: who holds it may be stopped, and a supervisor has more
        // to do.
        let lock = match self.sets {
            None => Some(self.store.lock()?),
            Some(_) => self.store.try_lock()?,
        };
        let Some(_lock) = lock else {
            return Ok(Update::Busy);
        };
        let stored = self.store.read()?;
        // Somebody may have removed it: then it is written anew.
        let is_kept = stored.is_some();
        let before = stored
            .as_ref()
            .map_or(self.generation, |stored| stored.generation);
        // What was compiled in last, by whom ever. A first policy has nothing before it.
        let (policy, last) = match stored {
            Some(stored) => (stored.policy, Some(stored.sets.nameservers)),
            None => {
                let last = self.sets.as_ref().map(|sets| sets.nameservers.clone());
                (self.policy.clone(), last)
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
        let is_in_force = self.sets.as_ref() == Some(&sets) && self.policy == policy;
        if is_kept && is_in_force && !self.doubted {
            self.edition = self.store.edition();
            return Ok(Update::Same);
        }
        let compiled = compile(&policy.rules(), &sets, policy.monitor)?;
        let stored = Stored {
            policy,
            sets,
            netns: netns()?,
            generation: before + 1,
        };
        let pending = self.store.prepare(&stored)?;
        publish(&compiled)?;
        pending.keep()?;
        self.edition = self.store.edition();
        self.compiled = compiled;
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
