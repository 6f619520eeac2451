//! Owns aya: loads the programs, publishes policies to them, attaches and pins them, and reads what
//! they count and record.

mod attempts;
mod fill;
mod link;
mod maps;
mod own_link;
pub mod query;
mod syscall;
pub mod trial;

use std::{collections::BTreeSet, fs::File, path::Path};

use anyhow::{Context, Result, anyhow};
pub use attempts::Attempts;
use aya::{Ebpf, EbpfLoader, programs::Program};
use aya_log::EbpfLogger;
use link::{Pinned, attach, load};
pub use maps::{Counts, Maps, owners};
use nix::errno::Errno;
use qfence_common::{
    Hook,
    abi::{self, program_name},
    proof::Token,
};

use crate::proof::Proof;

/// The eBPF object that `cargo xtask build` made.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("QFENCE_EMBEDDED_OBJECT"));

/// The map through which aya-log's messages travel, and its least size, one page. It is made even
/// where no message ever will.
const TRACE_MAP: &str = "AYA_LOGS";
const TRACE_MAP_IDLE: u32 = 4096;

/// What a refused call fails with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum DenyWith {
    /// ECONNREFUSED: a closed port
    Refused,
    /// EHOSTUNREACH: no route to the host
    Unreachable,
    /// EACCES: permission denied
    Denied,
}

impl DenyWith {
    fn errno(self) -> Errno {
        match self {
            Self::Refused => Errno::ECONNREFUSED,
            Self::Unreachable => Errno::EHOSTUNREACH,
            Self::Denied => Errno::EACCES,
        }
    }
}

/// What the programs are told when they are loaded.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// What a refused call fails with.
    pub deny: DenyWith,
    /// Whether raw, UDP-Lite and L2TP sockets are let be.
    pub allow_raw: bool,
    /// Whether devices for networks beside a program's own sockets are let be.
    pub allow_devices: bool,
    /// Whether they say what they decide.
    pub trace: bool,
}

/// The programs of one fence, in the kernel.
pub struct Kernel {
    ebpf: Ebpf,
    maps: Maps,
    /// Held, so that they outlive their pins.
    links: Vec<Pinned>,
    /// The programs by their ids, once they are attached.
    attached: Vec<(Hook, u32)>,
    proof: Proof,
}

impl Kernel {
    /// Loads the programs, and pins their maps in `pins`. They refuse everything until a policy is
    /// published.
    ///
    /// The second value is false on a kernel that cannot set the error of a refused call (before
    /// Linux 5.18, which has `bpf_set_retval`): there it is EPERM. Whether it can is found out by
    /// loading: what a kernel's feature probes say is not to be relied on.
    ///
    /// # Errors
    /// If the kernel takes neither variant.
    pub fn load(settings: Settings, pins: &Path) -> Result<(Self, bool)> {
        let errno = -(settings.deny.errno() as i32);
        let variant = |deny_retval, names_caller| Variant {
            deny_retval,
            names_caller,
        };
        // Where it fails for another reason, the last says so just as well.
        let ((mut ebpf, proof), sets_errno) = Self::load_with(variant(errno, true), settings)
            .or_else(|_| Self::load_with(variant(errno, false), settings))
            .map(|ebpf| (ebpf, true))
            .or_else(|_| anyhow::Ok((Self::load_with(variant(0, false), settings)?, false)))?;
        Maps::pin(&ebpf, pins)?;
        attempts::prepare(take(&mut ebpf, abi::REPEATS_MAP)?)?;
        let kernel = Self {
            maps: Maps::new(&mut ebpf)?,
            ebpf,
            links: Vec::new(),
            attached: Vec::new(),
            proof,
        };
        Ok((kernel, sets_errno))
    }

    fn load_with(variant: Variant, settings: Settings) -> Result<(Ebpf, Proof)> {
        let proof = Proof::new(variant.deny_retval != 0);
        let mut ebpf = open(variant, settings, proof.token())?;
        for hook in Hook::ALL {
            load(program(&mut ebpf, hook)?).with_context(|| {
                format!(
                    "the kernel did not take the eBPF program for {}",
                    hook.name()
                )
            })?;
        }
        Ok((ebpf, proof))
    }

    /// The maps, to publish a policy to and to read.
    pub fn maps(&mut self) -> &mut Maps {
        &mut self.maps
    }

    /// Attaches every program to the cgroup and pins its link in `pins`.
    ///
    /// # Errors
    /// If any cannot be; those attached before it stay until their pins are removed.
    pub fn attach(&mut self, cgroup: &File, pins: &Path) -> Result<()> {
        for hook in Hook::ALL {
            let context = || format!("cannot attach the eBPF program for {}", hook.name());
            let program = program(&mut self.ebpf, hook)?;
            let link = attach(program, hook, cgroup).with_context(context)?;
            let path = pins.join(hook.name());
            let link = link
                .pin(&path)
                .with_context(|| format!("cannot pin a link at {}", path.display()))?;
            self.links.push(link);
            let id = program.info().with_context(context)?.id();
            self.attached.push((hook, id));
        }
        Ok(())
    }

    /// The hooks at which this fence's programs are attached to its cgroup now, as the kernel says.
    #[must_use]
    pub fn attached(&self, cgroup: &File) -> BTreeSet<Hook> {
        let is_attached = |(hook, id): &&(Hook, u32)| {
            query::attached(cgroup, *hook).is_ok_and(|found| found.programs.contains(id))
        };
        let attached = self.attached.iter().filter(is_attached);
        attached.map(|(hook, _)| *hook).collect()
    }

    /// What shows that these programs judge a socket.
    #[must_use]
    pub fn proof(&self) -> Proof {
        self.proof
    }

    /// The reader of the programs' traces, which go to `logger`.
    ///
    /// # Errors
    /// If it was taken before.
    pub fn take_traces<L: log::Log>(&mut self, logger: L) -> Result<EbpfLogger<L>> {
        EbpfLogger::init_with_logger(&mut self.ebpf, logger).context("cannot read the traces")
    }
}

/// What the programs may ask of the kernel.
#[derive(Clone, Copy, Debug)]
struct Variant {
    /// What they set as the error of a refused call, or 0 (`bpf_set_retval`, Linux 5.18).
    deny_retval: i32,
    /// Whether those for devices and options ask who is running (Linux 6.1).
    names_caller: bool,
}

/// Makes the maps and sets the globals; nothing is loaded yet.
fn open(variant: Variant, settings: Settings, token: Token) -> Result<Ebpf> {
    let allow_raw = u32::from(settings.allow_raw);
    let allow_devices = u32::from(settings.allow_devices);
    let names_caller = u32::from(variant.names_caller);
    let trace_level: u8 = if settings.trace {
        aya_log::Level::Trace as u8
    } else {
        0
    };
    let mut loader = EbpfLoader::new();
    loader
        // Nothing in the programs depends on this kernel's own types; its BTF takes
        // milliseconds to parse.
        .btf(None)
        .override_global(abi::DENY_RETVAL, &variant.deny_retval, true)
        .override_global(abi::NAMES_CALLER, &names_caller, true)
        .override_global(abi::PROOF, &token.0, true)
        .override_global(abi::ALLOW_RAW, &allow_raw, true)
        .override_global(abi::ALLOW_DEVICES, &allow_devices, true)
        .override_global(aya_log::LEVEL, &trace_level, true);
    if !settings.trace {
        loader.map_max_entries(TRACE_MAP, TRACE_MAP_IDLE);
    }
    loader.load(OBJECT).context(
        "the kernel did not take the eBPF maps (Linux 5.10 or newer is needed, and \
         CAP_BPF or CAP_SYS_ADMIN)",
    )
}

fn program(ebpf: &mut Ebpf, hook: Hook) -> Result<&mut Program> {
    let name = program_name(hook);
    ebpf.program_mut(name).ok_or_else(|| {
        anyhow!("the embedded eBPF object has no program {name}: build it with `cargo xtask build`")
    })
}

fn take(ebpf: &mut Ebpf, name: &str) -> Result<aya::maps::Map> {
    ebpf.take_map(name).ok_or_else(|| no_map(name))
}

fn no_map(name: &str) -> anyhow::Error {
    anyhow!("the embedded eBPF object has no map {name}: build it with `cargo xtask build`")
}
