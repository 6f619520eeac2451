//! The policy in force, which follows the host's addresses and nameservers.

use std::{future::pending, net::IpAddr};

use anyhow::Result;
use qfence_common::{Action, Path, Protocol};

use crate::{
    compile::{Compiled, compile, verdict},
    hostset::{host_set, many_set},
    kernel::Kernel,
    netlink::LocalRoutes,
    policy::{Rule, Sets},
    resolv::ResolvConf,
};

/// The kernel's policy, and what it is made from.
pub struct Policy {
    kernel: Kernel,
    rules: Vec<Rule>,
    routes: LocalRoutes,
    /// Not followed where no rule names nameservers.
    resolv_conf: Option<ResolvConf>,
    sets: Option<Sets>,
    /// What the kernel has, once it has something.
    compiled: Compiled,
}

/// What came of bringing the policy up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// Nothing had changed.
    Same,
    /// A policy of this many prefixes is in force now.
    Published {
        /// How many prefixes lead to the host.
        host: usize,
        /// How many nameservers there are.
        nameservers: usize,
    },
}

impl Policy {
    /// A policy that is not in force yet.
    #[must_use]
    pub fn new(
        kernel: Kernel,
        rules: Vec<Rule>,
        routes: LocalRoutes,
        resolv_conf: Option<ResolvConf>,
    ) -> Self {
        Self {
            kernel,
            rules,
            routes,
            resolv_conf,
            sets: None,
            compiled: Compiled::new(),
        }
    }

    /// The programs.
    pub fn kernel(&mut self) -> &mut Kernel {
        &mut self.kernel
    }

    /// Reads the members of the sets anew, and publishes the policy if they have changed.
    ///
    /// # Errors
    /// If they cannot be read or published; what was in force before still is.
    pub async fn update(&mut self) -> Result<Update> {
        let nameservers = match &self.resolv_conf {
            Some(resolv_conf) => resolv_conf.nameservers()?,
            None => Default::default(),
        };
        let local = self.routes.dump().await?;
        let sets = Sets {
            host: host_set(local.all),
            many: many_set(local.broadcast),
            nameservers,
        };
        if self.sets.as_ref() == Some(&sets) {
            return Ok(Update::Same);
        }
        let compiled = compile(&self.rules, &sets)?;
        self.kernel.publish(&compiled)?;
        self.compiled = compiled;
        let published = Update::Published {
            host: sets.host.len(),
            nameservers: sets.nameservers.len(),
        };
        self.sets = Some(sets);
        Ok(published)
    }

    /// Whether a connection to there is refused, by the policy in force.
    #[must_use]
    pub fn refuses(&self, address: IpAddr, port: u16) -> bool {
        verdict(&self.compiled, Path::Address, Protocol::TCP, address, port) == Action::Deny
    }

    /// Waits until the members of a set may have changed.
    pub(crate) async fn changed(&mut self) -> Result<()> {
        let resolv_conf = async {
            match &mut self.resolv_conf {
                Some(resolv_conf) => resolv_conf.changed().await,
                None => pending().await,
            }
        };
        tokio::select! {
            changed = self.routes.changed() => changed,
            changed = resolv_conf => changed,
        }
    }

    /// Starts to follow anew, after that has failed.
    pub(crate) fn follow_again(&mut self) -> Result<()> {
        self.routes = LocalRoutes::subscribe()?;
        if let Some(resolv_conf) = &mut self.resolv_conf {
            *resolv_conf = resolv_conf.again()?;
        }
        Ok(())
    }
}
