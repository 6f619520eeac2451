//! Makes a fence around a place: its maps, its policy, its programs and its proof. It uses no terminal, no signals
//! and no standard error; reports are returned to the caller.
//!
//! The types are in the order of the steps, and that order is the promise. The registry has made the place, with its
//! limits ([`Locked::create`](crate::fence::registry::Locked::create)). [`Building`] has filled maps, while its
//! programs are loaded; the reader of attempts starts here. [`Loaded`] has programs that are not attached yet. [`Built`]
//! is a complete fence, which processes may enter.

pub mod devices;
pub mod lsm;

use std::path::Path;

use anyhow::{Context as _, Result};
use aya_log::EbpfLogger;
use qfence_common::Hook;

use crate::{
    compile::Compiled,
    confinement::Enforced,
    fence::{guard::Fence, integrity::Parts},
    host::watcher::Watcher,
    kernel::{
        Askers, Attempts, DenyWith, Kernel, Lacks, LogAllowed, Maps, NetworkDevices, RefusedSyns,
        Settings, manager_names::ManagerNames, proof::Proof, query::Beside,
    },
    policy::Policy,
    supervise::follower::{Follower, Update},
};

/// Settings of the programs, besides the policy.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The error of a refused call.
    pub deny: DenyWith,
    /// Whether raw, UDP-Lite and L2TP sockets are allowed.
    pub allow_raw: bool,
    /// The devices for networks other than a program's own sockets that are allowed.
    pub allow_devices: NetworkDevices,
    /// Whether sockets in network namespaces that were made outside the fence are allowed.
    pub allow_netns: bool,
    /// The cookie of the network namespace with the host's addresses, if the fence is attached to a workload; otherwise 0.
    pub node_netns: u64,
    /// Whether what is let through is logged.
    pub log_allowed: LogAllowed,
    /// The closures that the programs enforce.
    pub enforced: Enforced,
    /// Whether the programs trace their verdicts.
    pub trace: bool,
    /// The names by which managers are recognised, if the fence is to have the hooks that refuse them
    /// ([`Hook::MANAGERS`](qfence_common::Hook::MANAGERS)).
    pub managers: Option<ManagerNames>,
    /// Whether the fence is to judge the frames of network devices.
    pub judges_frames: bool,
    /// The names of those at which the host may answer questions to nameservers.
    pub serving: Vec<String>,
    /// Whether the fence is attached to processes that run, whose sockets are listed.
    pub lists: bool,
}

/// A fence whose maps are filled, and whose programs are being loaded.
pub struct Building<'a> {
    fence: &'a Fence,
    policy: Follower,
    lacks: Lacks,
    published: Update,
}

/// A fence whose programs are loaded but not attached.
pub struct Loaded<'a> {
    fence: &'a Fence,
    policy: Follower,
}

/// A complete fence.
pub struct Built {
    /// Its programs, with the follower that keeps their policy up to date.
    pub policy: Follower,
    /// The kernel objects that it consists of.
    pub parts: Parts,
    /// The hooks at which the place permits no program beside another, or only one.
    pub beside: Beside,
}

impl<'a> Building<'a> {
    /// Makes the maps of a fence, publishes its first policy, and starts to load its programs. Must be called within
    /// a tokio runtime. The policy's sets follow `watcher`; `run` is qfence's directory of files.
    ///
    /// # Errors
    /// If the members of the sets cannot be read, the policy cannot be compiled, or the kernel rejects the maps.
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
            node_netns: programs.node_netns,
            log_allowed: programs.log_allowed,
            cgroup: fence.cgroup_id(),
            trace: programs.trace,
            rules: policy.numbers_end(),
            devices: programs.judges_frames,
            lists: programs.lists,
        };
        let pins = fence.pins();
        let mut lacks = None;
        let load = |compiled: &Compiled| {
            let (kernel, lacking) = Kernel::load(
                settings,
                run,
                &pins,
                compiled,
                &programs.enforced,
                programs.managers.as_ref(),
            )?;
            lacks = Some(lacking);
            Ok(kernel)
        };
        let begun = Follower::begin(
            fence.policy_file(),
            policy,
            watcher,
            programs.serving.clone(),
            load,
        );
        let (policy, published) = begun.await?;
        Ok(Self {
            fence,
            policy,
            lacks: lacks.context("no programs were made")?,
            published,
        })
    }

    /// The features that the programs would use and the kernel does not have.
    #[must_use]
    pub fn lacks(&self) -> Lacks {
        self.lacks
    }

    /// The result of publishing the first policy.
    #[must_use]
    pub fn published(&self) -> Update {
        self.published
    }

    /// The proof by which a process in the fence checks that these programs judge its sockets.
    #[must_use]
    pub fn proof(&mut self) -> Proof {
        self.policy.kernel().proof()
    }

    /// The policy in force.
    #[must_use]
    pub fn policy(&self) -> &Follower {
        &self.policy
    }

    /// Takes the map of the sources of queries that are led to the resolver. It must be kept until the programs are loaded.
    ///
    /// # Errors
    /// If it was taken before.
    pub fn take_askers(&mut self) -> Result<Askers> {
        self.policy.kernel().take_askers()
    }

    /// Takes the reader of the connections whose first packet is refused. It must be kept until the programs are loaded.
    ///
    /// # Errors
    /// If it was taken before.
    pub fn take_refused_syns(&mut self) -> Result<RefusedSyns> {
        self.policy.kernel().take_refused_syns()
    }

    /// Opens the attempts for their single reader.
    ///
    /// # Errors
    /// If they cannot be opened, or have a reader already.
    pub fn attempts(&self) -> Result<Attempts> {
        let attempts = Attempts::open(&self.fence.pins())?;
        attempts.context("another process reads the attempts already")
    }

    /// Waits until all programs are loaded.
    ///
    /// # Errors
    /// If the kernel rejects one of them.
    pub fn finish_loading(mut self) -> Result<Loaded<'a>> {
        self.policy.kernel().finish_loading()?;
        Ok(Loaded {
            fence: self.fence,
            policy: self.policy,
        })
    }
}

impl Loaded<'_> {
    /// Takes the reader of the programs' traces, which writes to `logger`.
    ///
    /// # Errors
    /// If it was taken before, or the programs do not trace.
    pub fn take_traces<L: log::Log>(&mut self, logger: L) -> Result<EbpfLogger<L>> {
        self.policy.kernel().take_traces(logger)
    }

    /// Prepares the programs for processes that run already: each packet of their connections is judged. `home` is the
    /// cookie of their network namespace, if the kernel shows it.
    ///
    /// # Errors
    /// If that cannot be noted.
    pub fn prepare_for_running(&mut self, home: Option<u64>) -> Result<()> {
        let maps = AsMut::<Maps>::as_mut(self.policy.kernel());
        maps.judge_standing(true)?;
        maps.may_broadcast()?;
        home.map_or(Ok(()), |cookie| maps.set_home(cookie))
    }

    /// Attaches all programs to the place, and pins their links. Those of `optional` are left out where the kernel does not
    /// permit them, or where they would replace another program.
    ///
    /// # Errors
    /// If any of them fails. Links made before it remain until the fence is removed.
    pub fn attach(mut self, optional: &[Hook]) -> Result<Built> {
        let (kernel, pins) = (self.policy.kernel(), self.fence.pins());
        let cgroup = self.fence.cgroup();
        let beside = kernel.attach((cgroup.directory(), &cgroup.open()?), &pins, optional)?;
        let parts = Parts::new(kernel.attached(), &pins);
        Ok(Built {
            policy: self.policy,
            parts,
            beside,
        })
    }
}
