//! Tries the programs of [`Hook::MANAGERS`] alone. Where `bpf` is not among the active security modules, they are loaded and
//! attached, and never run. Only a refused connection shows that they run.

use std::{fs::File, path::Path};

use anyhow::{Context as _, ensure};
use aya::Ebpf;
use qfence_common::{Hook, proof::Token};

use super::{
    DenyWith, LogAllowed, NetworkDevices, OBJECT, Settings,
    link::{Link, attach, load},
    load::{Variant, open},
    lsm::{Lsm, types_for},
    manager_names::ManagerNames,
    object, once_a_boot, program,
    proof::Proof,
    proof_sockets::ProofSockets,
    trial::TrialError,
};
use crate::confinement::Enforced;

/// The name of the file with the outcome, in the directory of descriptions.
const FILE: &str = "kernel-lsm";

/// The outcome of a trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The programs run.
    Run,
    /// The kernel does not load, attach or run them, for this reason. It gives the same answer until the next boot.
    DoNotRun(String),
    /// It is not known whether they run: the trial failed, for a reason that can pass.
    Unknown(String),
}

impl Outcome {
    /// The outcome if the kernel rejects the programs.
    #[must_use]
    pub fn of_rejection(error: &TrialError) -> Self {
        match error.is_answer() {
            true => Self::DoNotRun(error.in_brief()),
            false => Self::Unknown(error.in_brief()),
        }
    }

    /// The reason why the programs cannot be used, if they cannot.
    ///
    /// # Errors
    /// That reason.
    pub fn usable(self) -> Result<(), String> {
        match self {
            Self::Run => Ok(()),
            Self::DoNotRun(why) | Self::Unknown(why) => Err(why),
        }
    }
}

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
            log_allowed: LogAllowed::No,
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
            &object::with_programs(OBJECT, &object::of_hooks(&Hook::MANAGERS))?,
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
                .with_context(|| format!("cannot attach the eBPF program for {}", hook.name()));
            links.push(link.map_err(TrialError::Attach)?);
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

/// The outcome of an earlier trial in this boot, if it is cached.
#[must_use]
pub fn earlier(run: &Path) -> Option<Outcome> {
    let why_not: Option<String> = once_a_boot::read(run, FILE, &once_a_boot::boot()?)?;
    Some(why_not.map_or(Outcome::Run, Outcome::DoNotRun))
}

/// Caches the outcome of a trial for this boot. An unknown outcome is not cached, so the next start tries again.
///
/// # Errors
/// If it cannot be written.
pub fn keep(run: &Path, outcome: &Outcome) -> anyhow::Result<()> {
    let why_not = match outcome {
        Outcome::Run => None,
        Outcome::DoNotRun(why) => Some(why),
        Outcome::Unknown(_) => return Ok(()),
    };
    let boot = once_a_boot::boot();
    ensure!(
        boot.is_some(),
        "the kernel does not show the id of this boot"
    );
    once_a_boot::keep(run, FILE, boot.unwrap_or_default(), why_not)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_the_kernel_is_cached_and_a_failure_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let run = directory.path();
        let unknown = Outcome::Unknown("Cannot allocate memory".into());
        keep(run, &unknown).unwrap();
        assert_eq!(earlier(run), None);
        for outcome in [Outcome::DoNotRun("Invalid argument".into()), Outcome::Run] {
            keep(run, &outcome).unwrap();
            assert_eq!(earlier(run), Some(outcome.clone()));
            // Nor does a failure replace what is known.
            keep(run, &unknown).unwrap();
            assert_eq!(earlier(run), Some(outcome));
        }
    }

    #[test]
    fn a_rejection_is_an_outcome_only_if_it_is_an_answer() {
        let rejected = |errno| {
            let error = std::io::Error::from_raw_os_error(errno);
            Outcome::of_rejection(&TrialError::Attach(error.into()))
        };
        assert!(matches!(rejected(22), Outcome::DoNotRun(_)));
        assert!(matches!(rejected(12), Outcome::Unknown(_)));
    }
}
