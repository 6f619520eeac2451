//! Owns aya: loads, attaches and pins the programs, publishes policies, and reads counters and events.
pub mod bpffs;
pub mod device;
pub mod digest;
pub mod local_in;
pub mod pins;
pub mod proof;
mod remains;
pub mod snapshot;

mod askers;
mod attempts;
mod by_path;
mod cast;
mod closures;
mod counts;
mod fill;
mod flows;
#[cfg(test)]
mod frames;
mod granted;
pub mod handover;
mod hash;
mod helpers;
mod link;
pub mod link_info;
mod listing;
mod load;
mod lsm;
pub mod lsm_trial;
pub mod manager_names;
mod maps;
mod noted;
mod object;
mod offsets;
mod once_a_boot;
mod own_link;
mod own_program;
mod program_load;
mod proof_sockets;
pub mod query;
mod refused_syns;
pub mod resolved;
#[cfg(test)]
pub(crate) mod resolving;
mod sizes;
mod slot;
mod syscall;
#[cfg(test)]
pub(crate) mod testing;
mod tree;
pub mod trial;
mod types;
pub mod within;

use std::{collections::BTreeMap, fs::File, io, mem, path::Path};

use anyhow::{Context, Result, anyhow, bail};
pub use askers::Askers;
pub use attempts::Attempts;
use aya::{
    Ebpf,
    programs::{Program, ProgramFd},
};
use aya_log::EbpfLogger;
pub use counts::Counts;
use device::maps::DeviceMaps;
use link::Pinned;
pub use listing::Listed;
use load::{Loaded, Loading, Variant, open};
use lsm::Lsm;
use manager_names::ManagerNames;
pub use maps::{Maps, has_resolver, owners};
use nix::errno::Errno;
pub use offsets::FILE as OFFSETS_FILE;
use own_program::Source;
use proof_sockets::ProofSockets;
use qfence_common::{
    Hook,
    device::{ALLOW_ALL, ALLOW_TAPS, ALLOW_VHOST_NET},
    flow::{BY_CGROUP, TOGETHER},
    frame::{ANSWER_PROHIBITED, ANSWER_UNREACHABLE, DROP_SILENTLY},
};
pub use refused_syns::RefusedSyns;

use crate::{compile::Compiled, confinement::Enforced, kernel::proof::Proof};

/// The eBPF object that `cargo xtask build` made.
pub(crate) static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("QFENCE_EMBEDDED_OBJECT"));

/// The object whose programs trace their verdicts. It has more code and one more map.
static TRACING_OBJECT: &[u8] = aya::include_bytes_aligned!(env!("QFENCE_TRACING_OBJECT"));

/// The object whose program the fences of a network namespace share.
static LOCAL_IN_OBJECT: &[u8] = aya::include_bytes_aligned!(env!("QFENCE_LOCAL_IN_OBJECT"));

/// The error of a refused call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum DenyWith {
    /// ECONNREFUSED: a closed port
    Refused,
    /// EHOSTUNREACH: no route to the host
    Unreachable,
    /// EACCES: permission denied
    Denied,
    /// ECONNREFUSED for calls; frames of a guest's device are dropped without an answer
    Drop,
}

impl DenyWith {
    fn errno(self) -> Errno {
        match self {
            Self::Refused | Self::Drop => Errno::ECONNREFUSED,
            Self::Unreachable => Errno::EHOSTUNREACH,
            Self::Denied => Errno::EACCES,
        }
    }

    /// The answer to a refused frame of a guest.
    fn of_frames(self) -> u32 {
        match self {
            Self::Refused | Self::Denied => ANSWER_PROHIBITED,
            Self::Unreachable => ANSWER_UNREACHABLE,
            Self::Drop => DROP_SILENTLY,
        }
    }
}

/// The devices for networks other than a program's own sockets that may be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkDevices {
    /// None.
    None,
    /// /dev/vhost-net: it attaches only to devices whose descriptors the process has.
    VhostNet,
    /// That, and /dev/net/tun: what leaves by their devices passes another one, which is fenced.
    Taps,
    /// All.
    All,
}

impl NetworkDevices {
    /// The value of the programs' global.
    fn number(self) -> u32 {
        match self {
            Self::None => 0,
            Self::VhostNet => ALLOW_VHOST_NET,
            Self::Taps => ALLOW_TAPS,
            Self::All => ALLOW_ALL,
        }
    }
}

/// Whether what is let through is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogAllowed {
    /// It is not.
    No,
    /// By destination.
    Together,
    /// By destination, and by the cgroup in the fence that reached it.
    ByCgroup,
}

impl LogAllowed {
    /// By destination, if it is logged.
    #[must_use]
    pub const fn together(is_logged: bool) -> Self {
        match is_logged {
            true => Self::Together,
            false => Self::No,
        }
    }

    /// The value of the programs' global.
    pub(super) const fn number(self) -> u32 {
        match self {
            Self::No => 0,
            Self::Together => TOGETHER,
            Self::ByCgroup => BY_CGROUP,
        }
    }
}

/// The settings that the programs get when they are loaded.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The error of a refused call.
    pub deny: DenyWith,
    /// Whether raw, UDP-Lite and L2TP sockets are allowed.
    pub allow_raw: bool,
    /// The devices for networks other than a program's own sockets that are allowed.
    pub allow_devices: NetworkDevices,
    /// Whether sockets in network namespaces that were made outside the fence are allowed.
    pub allow_netns: bool,
    /// Whether what is let through is logged.
    pub log_allowed: LogAllowed,
    /// The cookie of the network namespace with the host's addresses, if the fence is attached to a workload, whose own may
    /// be another; otherwise 0.
    pub node_netns: u64,
    /// The id of the fence's cgroup; 0 for none.
    pub cgroup: u64,
    /// Whether the programs trace their verdicts.
    pub trace: bool,
    /// One more than the highest rule number of the first policy. Later policies can have higher ones.
    pub rules: u32,
    /// Whether the fence has the programs and maps for network devices.
    pub devices: bool,
    /// Whether the fence is attached to processes that run, whose sockets are listed.
    pub lists: bool,
}

/// Finds out whether programs can judge the names of Unix sockets. `run` is the directory of the file that caches facts
/// about this kernel.
///
/// # Errors
/// The reason why they cannot.
pub fn try_unix(run: &Path) -> Result<()> {
    load::try_unix(run)
}

/// Kernel features that the programs would use and this kernel does not have.
#[derive(Clone, Copy, Debug)]
pub struct Lacks {
    /// Whether the error of a refused call is always EPERM (before Linux 5.18, which has `bpf_set_retval`).
    pub errno: bool,
    /// Whether the kernel does not show the maker of a network namespace. Then sockets are refused in all namespaces
    /// but the fence's home.
    pub netns_maker: bool,
}

/// The loaded programs of one fence.
pub struct Kernel {
    programs: Programs,
    /// The hooks at which the fence has programs.
    hooks: Vec<Hook>,
    maps: Maps,
    /// The maps of the devices.
    devices: DeviceMaps,
    /// Those that their readers have not taken yet.
    refused_syns: Option<RefusedSyns>,
    askers: Option<Askers>,
    /// Whether the programs can read what a guest leaves to a device.
    reads_frames: bool,
    /// Their links, by the index of the device.
    device_links: BTreeMap<u32, device::Links>,
    /// Open descriptors, so that the links outlive their pins.
    links: Vec<Pinned>,
    /// The programs and their ids, after they were attached.
    attached: Vec<(Hook, u32)>,
    proof: Proof,
    /// The proof of the hooks of security modules connects to them.
    _proof_sockets: Option<ProofSockets>,
}

enum Programs {
    Loading(Loading),
    Loaded(Loaded),
    /// They could not be loaded, which was reported.
    Failed,
}

impl Kernel {
    /// Makes the maps, pins them in `pins`, publishes the first policy, and starts to load the programs. `run` is the
    /// directory of the files that cache facts about this kernel. The fence has the programs that `enforced` needs, and with
    /// `managers` those at the hooks of [`Hook::MANAGERS`], which recognise managers by these names.
    ///
    /// The second value has the features that the kernel lacks.
    ///
    /// # Errors
    /// If the kernel rejects the maps. [`Kernel::finish_loading`] reports whether it rejects the programs.
    pub fn load(
        settings: Settings,
        run: &Path,
        pins: &Path,
        policy: &Compiled,
        enforced: &Enforced,
        managers: Option<&ManagerNames>,
    ) -> Result<(Self, Lacks)> {
        let variant = Variant::of_this_kernel(settings.deny.errno() as i32, run);
        let lacks = Lacks {
            errno: variant.deny_retval == 0,
            netns_maker: variant.netns.are_known == 0,
        };
        let mut hooks = enforced.hooks();
        let mut proof = Proof::new(!lacks.errno, &hooks);
        let mut proof_sockets = None;
        let mut names = None;
        if let Some(managers) = managers {
            let names = names.insert(managers.clone());
            let (sockets, addresses) = ProofSockets::new(proof.token(), names)?;
            proof = proof.with_lsm(addresses);
            proof_sockets = Some(sockets);
            hooks.extend(Hook::MANAGERS);
        }
        let lsm = names
            .as_ref()
            .map(|names| Lsm::new(names, &variant, run))
            .transpose()?;
        if settings.devices {
            hooks.extend(device::HOOKS);
        }
        let whole = load::object(settings);
        let mut programs = object::of_hooks(&hooks);
        if settings.lists {
            programs.extend(listing::PROGRAMS);
        }
        let object = object::with_programs(whole, &programs)?;
        let mut ebpf = open(&object, variant, settings, enforced, proof.token(), lsm)?;
        let source = Source::of(whole, &ebpf);
        Maps::pin(&ebpf, pins)?;
        let closures = closures::fill(&mut ebpf, enforced)?;
        let mut maps = Maps::new(&mut ebpf)?;
        if settings.log_allowed != LogAllowed::No {
            maps.begin_flows()?;
        }
        let devices = DeviceMaps::take(&mut ebpf)?;
        let refused_syns = Some(RefusedSyns::take(&mut ebpf)?);
        let askers = Some(Askers::take(&mut ebpf)?);
        let (firsts, attempts) = attempts::prepare(&mut ebpf)?;
        // First, because the kernel waits for a grace period when a slot is filled. That wait overlaps with the rest.
        maps.publish_with(policy, firsts.into())?;
        let kernel = Self {
            programs: Programs::Loading(Loading::begin(
                ebpf,
                source,
                hooks.clone(),
                settings.lists,
                (attempts, closures),
            )?),
            hooks,
            maps,
            devices,
            refused_syns,
            askers,
            reads_frames: variant.frame.are_known != 0,
            device_links: BTreeMap::new(),
            links: Vec::new(),
            attached: Vec::new(),
            proof,
            _proof_sockets: proof_sockets,
        };
        Ok((kernel, lacks))
    }

    /// Waits until all programs are loaded.
    ///
    /// # Errors
    /// If the kernel rejects one of them.
    pub fn finish_loading(&mut self) -> Result<()> {
        self.loaded().map(drop)
    }

    fn loaded(&mut self) -> Result<&mut Loaded> {
        if let Programs::Loading(_) = self.programs
            && let Programs::Loading(loading) = mem::replace(&mut self.programs, Programs::Failed)
        {
            self.programs = Programs::Loaded(loading.finish()?);
        }
        match &mut self.programs {
            Programs::Loaded(loaded) => Ok(loaded),
            _ => bail!("the eBPF programs are not loaded"),
        }
    }

    /// The maps of the devices.
    pub fn devices(&mut self) -> &mut DeviceMaps {
        &mut self.devices
    }

    /// A loaded program for network devices.
    fn frame_program(&mut self, hook: Hook) -> Result<&ProgramFd> {
        match program(&mut self.loaded()?.ebpf, hook)? {
            Program::SchedClassifier(program) => Ok(program.fd()?),
            _ => Err(no_program(hook)),
        }
    }

    /// The maps, for reading.
    #[must_use]
    pub fn maps(&self) -> &Maps {
        &self.maps
    }

    /// Attaches every program of the fence for cgroups to its cgroup `directory`, and pins its link in `pins`. At the hooks
    /// among `optional` it attaches none where the kernel does not permit it, or where it would replace one of a cgroup above.
    ///
    /// # Errors
    /// If any of them fails. Links made before it remain until their pins are removed.
    pub fn attach(
        &mut self,
        (directory, cgroup): (&Path, &File),
        pins: &Path,
        optional: &[Hook],
    ) -> Result<query::Beside> {
        let mut beside = query::Beside::default();
        for hook in self.hooks.clone() {
            if hook.is_frame() {
                continue;
            }
            let context = || format!("cannot attach the eBPF program for {}", hook.name());
            let is_optional = optional.contains(&hook);
            let replaces = query::replaces_another(directory, hook).with_context(context)?;
            if replaces && is_optional {
                beside.left_out.push(hook);
                continue;
            }
            let (link, id) = match self.loaded()?.attach(hook, cgroup) {
                Err(error) if is_optional && is_not_permitted(&error) => {
                    beside.left_out.push(hook);
                    continue;
                }
                attached => attached.with_context(context)?,
            };
            if replaces {
                beside.replaced.push(hook);
            }
            let path = pins.join(hook.name());
            let link = link
                .pin(&path)
                .with_context(|| format!("cannot pin a link at {}", path.display()))?;
            self.links.push(link);
            self.attached.push((hook, id));
        }
        Ok(beside)
    }

    /// The attached programs and their ids.
    #[must_use]
    pub fn attached(&self) -> &[(Hook, u32)] {
        &self.attached
    }

    /// The proof that these programs judge a socket.
    #[must_use]
    pub fn proof(&self) -> Proof {
        self.proof
    }

    /// Takes the reader of the connections whose first packet is refused. It must be kept like [`Kernel::take_askers`].
    ///
    /// # Errors
    /// If it was taken before.
    pub fn take_refused_syns(&mut self) -> Result<RefusedSyns> {
        let refused = self.refused_syns.take();
        refused.context("the reader of the refused connections was taken before")
    }

    /// Takes the sources of the queries that are led to the resolver. They must be kept until the programs are loaded, which
    /// name their map by its descriptor.
    ///
    /// # Errors
    /// If they were taken before.
    pub fn take_askers(&mut self) -> Result<Askers> {
        let askers = self.askers.take();
        askers.context("the sources of queries were taken before")
    }

    /// Takes the reader of the programs' traces, which writes to `logger`.
    ///
    /// # Errors
    /// If it was taken before.
    pub fn take_traces<L: log::Log>(&mut self, logger: L) -> Result<EbpfLogger<L>> {
        EbpfLogger::init_with_logger(&mut self.loaded()?.ebpf, logger)
            .context("cannot read the traces")
    }
}

impl AsMut<Maps> for Kernel {
    fn as_mut(&mut self) -> &mut Maps {
        &mut self.maps
    }
}

/// Whether the kernel did not permit it, as for a hook that another program has for itself.
fn is_not_permitted(error: &anyhow::Error) -> bool {
    let cause = error.root_cause().downcast_ref::<io::Error>();
    cause.is_some_and(|error| error.raw_os_error() == Some(Errno::EPERM as i32))
}

fn program(ebpf: &mut Ebpf, hook: Hook) -> Result<&mut Program> {
    let name = hook.row().program;
    ebpf.program_mut(name).ok_or_else(|| no_program(hook))
}

fn no_program(hook: Hook) -> anyhow::Error {
    let name = hook.row().program;
    anyhow!("the embedded eBPF object has no program {name}: build it with `cargo xtask build`")
}

fn no_map(name: &str) -> anyhow::Error {
    anyhow!("the embedded eBPF object has no map {name}: build it with `cargo xtask build`")
}
