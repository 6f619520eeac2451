//! Makes a fence around a place: its programs, its policy, and what proves that they judge. There is no terminal here, no
//! signal and no standard error: what there is to say is returned.
//!
//! The types have the order of the steps, which is the promise. The registry has made the place, with its limits
//! ([`Locked::create`](crate::fence::registry::Locked::create)). [`Building`] has full maps, and programs that are being
//! loaded meanwhile. [`Loaded`] has programs that are not attached yet: whoever reads the attempts starts here. [`Built`] is
//! a fence, which processes may enter.

use std::path::Path;

use anyhow::{Context as _, Result};
use aya_log::EbpfLogger;

use crate::{
    compile::Compiled,
    fence::{guard::Fence, integrity::Parts},
    host::watcher::Watcher,
    kernel::{Attempts, DenyWith, Kernel, Lacks, Settings, proof::Proof},
    policy::Policy,
    supervise::follower::{Follower, Update},
};

/// What the programs are to do beside judging by the policy.
#[derive(Clone, Copy, Debug)]
pub struct Programs {
    /// What a refused call fails with.
    pub deny: DenyWith,
    /// Whether raw, UDP-Lite and L2TP sockets are let be.
    pub allow_raw: bool,
    /// Whether devices for networks beside a program's own sockets are let be.
    pub allow_devices: bool,
    /// Whether sockets in network namespaces that were made outside the fence are let be.
    pub allow_netns: bool,
    /// Whether they say what they decide.
    pub trace: bool,
}

/// A fence whose maps are full, and whose programs are being loaded.
pub struct Building<'a> {
    fence: &'a Fence,
    policy: Follower,
    lacks: Lacks,
    published: Update,
}

/// A fence whose programs are loaded, and not attached.
pub struct Loaded<'a> {
    fence: &'a Fence,
    policy: Follower,
}

/// A fence that is whole.
pub struct Built {
    /// Its programs, and what keeps their policy true.
    pub policy: Follower,
    /// What it is made of.
    pub parts: Parts,
}

impl<'a> Building<'a> {
    /// Makes the maps of a fence, publishes its first policy, and begins to load its programs. Must be called within a
    /// tokio runtime. The policy's sets follow `watcher`; `run` is qfence's directory of files.
    ///
    /// # Errors
    /// If the members of the sets cannot be read, the policy cannot be compiled, or the kernel does not take the maps.
    pub async fn begin(
        fence: &'a Fence,
        programs: Programs,
        policy: Policy,
        watcher: &Watcher,
        run: &Path,
    ) -> Result<Self> {
        let settings = Settings {
            deny: programs.deny,
            allow_raw: programs.allow_raw,
            allow_devices: programs.allow_devices,
            allow_netns: programs.allow_netns,
            cgroup: fence.cgroup_id(),
            trace: programs.trace,
            rules: policy.numbers_end(),
        };
        let pins = fence.pins();
        let mut lacks = None;
        let load = |compiled: &Compiled| {
            let (kernel, lacking) = Kernel::load(settings, run, &pins, compiled)?;
            lacks = Some(lacking);
            Ok(kernel)
        };
        let begun = Follower::begin(fence.policy_file(), policy, watcher, load);
        let (policy, published) = begun.await?;
        Ok(Self {
            fence,
            policy,
            lacks: lacks.context("no programs were made")?,
            published,
        })
    }

    /// What the kernel lacks of what the programs would use.
    #[must_use]
    pub fn lacks(&self) -> Lacks {
        self.lacks
    }

    /// What came of publishing the first policy.
    #[must_use]
    pub fn published(&self) -> Update {
        self.published
    }

    /// What shows to a process in the fence that these programs judge its sockets.
    #[must_use]
    pub fn proof(&mut self) -> Proof {
        self.policy.kernel().proof()
    }

    /// The policy in force.
    #[must_use]
    pub fn policy(&self) -> &Follower {
        &self.policy
    }

    /// Waits until all programs are loaded.
    ///
    /// # Errors
    /// If the kernel does not take one of them.
    pub fn finish_loading(mut self) -> Result<Loaded<'a>> {
        self.policy.kernel().finish_loading()?;
        Ok(Loaded {
            fence: self.fence,
            policy: self.policy,
        })
    }
}

impl Loaded<'_> {
    /// The reader of the programs' traces, which go to `logger`.
    ///
    /// # Errors
    /// If it was taken before, or the programs do not trace.
    pub fn take_traces<L: log::Log>(&mut self, logger: L) -> Result<EbpfLogger<L>> {
        self.policy.kernel().take_traces(logger)
    }

    /// The attempts on record, for their one reader.
    ///
    /// # Errors
    /// If they cannot be opened, or somebody reads them already.
    pub fn attempts(&self) -> Result<Attempts> {
        let attempts = Attempts::open(&self.fence.pins())?;
        attempts.context("somebody reads the attempts already")
    }

    /// Attaches all programs to the place, and pins their links.
    ///
    /// # Errors
    /// If any cannot be; those attached before it stay until the fence is removed.
    pub fn attach(mut self) -> Result<Built> {
        let (kernel, pins) = (self.policy.kernel(), self.fence.pins());
        kernel.attach(&self.fence.cgroup().open()?, &pins)?;
        let parts = Parts::new(kernel.attached(), &pins);
        Ok(Built {
            policy: self.policy,
            parts,
        })
    }
}
