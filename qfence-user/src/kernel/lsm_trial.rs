//! Tries the programs of [`Hook::MANAGERS`] alone. Where `bpf` is not among the active security modules, they are loaded and
//! attached, and never run. Only a refused connection shows that they run.

use std::{fs::File, path::Path};

use anyhow::{Context as _, ensure};
use aya::Ebpf;
use qfence_common::{Hook, proof::Token};

use super::{
    DenyWith, NetworkDevices, Settings,
    link::{Link, attach, load},
    load::{Variant, open},
    lsm::{Lsm, types_for},
    manager_names::ManagerNames,
    once_a_boot, program,
    proof::Proof,
    proof_sockets::ProofSockets,
    trial::TrialError,
};
use crate::confinement::Enforced;

/// The name of the file with the outcome, in the directory of descriptions.
const FILE: &str = "kernel-lsm";

/// The programs, attached to a cgroup. Dropping it detaches and unloads them.
pub struct LsmTrial {
    proof: Proof,
    _sockets: ProofSockets,
    _links: Vec<Link>,
    _ebpf: Ebpf,
}

impl LsmTrial {
    /// Loads them and attaches them to a cgroup. `run` is the directory of the files that cache facts about this kernel.
    ///
    /// # Errors
    /// If the kernel rejects them.
    pub fn new(cgroup: &File, run: &Path) -> Result<Self, TrialError> {
        let variant = Variant::of_this_kernel(DenyWith::Refused.errno() as i32, run);
        let settings = Settings {
            deny: DenyWith::Refused,
            allow_raw: false,
            allow_devices: NetworkDevices::None,
            allow_netns: false,
            node_netns: 0,
            log_allowed: false,
            // No cgroup has this id: nothing is in the fence.
            cgroup: u64::MAX,
            trace: false,
            rules: 0,
            devices: false,
            lists: false,
        };
        let proof = Proof::new(variant.deny_retval != 0, &[]);
        let mut names = ManagerNames::default();
        let (sockets, addresses) = ProofSockets::new(proof.token(), &mut names)?;
        // The proof's destinations for calls are not used.
        let mut ebpf = open(
            variant,
            settings,
            &Enforced::default(),
            Token(0),
            Some(Lsm::new(&names, &variant, run)?),
        )?;
        let types = types_for(&Hook::MANAGERS)?;
        let mut links = Vec::new();
        for hook in Hook::MANAGERS {
            let program = program(&mut ebpf, hook)?;
            load(program, hook, types.as_ref())?;
            let link = attach(program, hook, cgroup)
                .with_context(|| format!("cannot attach the eBPF program for {}", hook.name()))?;
            links.push(link);
        }
        Ok(Self {
            proof: proof.with_lsm(addresses),
            _sockets: sockets,
            _links: links,
            _ebpf: ebpf,
        })
    }

    /// The proof, for a process in the cgroup, that they run.
    #[must_use]
    pub fn proof(&self) -> Proof {
        self.proof
    }
}

/// The outcome of an earlier trial in this boot: `Some(None)` if the programs run, `Some(Some(reason))` if they do not.
#[must_use]
pub fn earlier(run: &Path) -> Option<Option<String>> {
    once_a_boot::read(run, FILE, &once_a_boot::boot()?)
}

/// Keeps the outcome of a trial for this boot.
///
/// # Errors
/// If it cannot be written.
pub fn keep(run: &Path, why_not: Option<&str>) -> anyhow::Result<()> {
    let boot = once_a_boot::boot();
    ensure!(
        boot.is_some(),
        "the kernel does not show the id of this boot"
    );
    once_a_boot::keep(run, FILE, boot.unwrap_or_default(), why_not)
}
