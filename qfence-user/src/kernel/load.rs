//! Loads the programs in parallel. Most of the time of a start is spent in the kernel's verifier, and in waiting for
//! RCU grace periods.

use std::{
    fs::File,
    os::fd::AsFd as _,
    path::Path,
    sync::{Mutex, PoisonError},
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result, anyhow, ensure};
use aya::{Btf, Ebpf, EbpfLoader, maps::Map, programs::Program, util::nr_cpus};
use nix::{
    sched::{CloneFlags, unshare},
    unistd::chroot,
};
use qfence_common::{Hook, abi, frame::checksum, listing, netns, proof::Token, resolved, unix};

use super::{
    OBJECT, Settings, TRACING_OBJECT, cast, closures, flows, helpers,
    link::{Link, attach, load},
    link_info::id_of_program,
    lsm::{Lsm, types_for},
    no_program, offsets, own_link,
    own_program::{OwnProgram, Source, is_own},
    sizes, types,
};
use crate::confinement::Enforced;

/// Why network devices cannot be fenced.
pub(super) const NO_FRAMES: &str = "the eBPF programs for network devices cannot read this kernel's packets (they need \
    CAP_PERFMON, type information, CONFIG_DEBUG_INFO_BTF, and a kernel that is not locked down for confidentiality)";

const NO_THREAD: &str = "cannot make a thread";

/// The features of the kernel that the programs use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Variant {
    /// The return value that is the error of a refused call, or 0 (`bpf_set_retval`, Linux 5.18).
    pub(super) deny_retval: i32,
    /// Whether programs for devices and options ask for the current process (Linux 6.1).
    pub(super) names_caller: bool,
    /// Whether programs ask for the MPTCP connection that a socket is a subflow of (Linux 5.19).
    pub(super) finds_mptcp: bool,
    /// The offsets at which the kernel stores the maker of a network namespace; zero if programs cannot read them.
    pub(super) netns: netns::Offsets,
    /// The offsets at which the name of a Unix socket is found; zero if they are not known, or not needed.
    pub(super) unix: unix::Offsets,
    /// The offsets at which a checksum is found that a guest leaves to a device; zero if programs cannot read them.
    pub(super) frame: checksum::Offsets,
    /// The offsets at which tasks and sockets are described, and that of `socket.sk`, if they are known.
    pub(super) listing: Option<(listing::Offsets, u32)>,
}

impl Variant {
    /// All features that this kernel has. `run` is the directory of the file that caches offsets.
    pub(super) fn of_this_kernel(errno: i32, run: &Path) -> Self {
        let sets_retval = helpers::can_set_retval();
        let offsets = helpers::can_read_kernel()
            .then(|| offsets::of_this_kernel(run).ok())
            .flatten();
        Self {
            deny_retval: if sets_retval { -errno } else { 0 },
            names_caller: sets_retval && helpers::can_name_caller(),
            finds_mptcp: sets_retval && helpers::can_find_mptcp(),
            netns: offsets.and_then(|found| found.netns).unwrap_or_default(),
            unix: offsets.and_then(|found| found.unix).unwrap_or_default(),
            frame: offsets.and_then(|found| found.frame).unwrap_or_default(),
            listing: offsets.and_then(|found| found.listing),
        }
    }
}

/// The offsets at which programs find a checksum that a guest leaves to a device, read anew.
///
/// # Errors
/// If they cannot read them: then a guest could change a frame after it was judged.
pub(super) fn try_frames() -> Result<checksum::Offsets> {
    ensure!(helpers::can_read_kernel(), NO_FRAMES);
    offsets::read_anew()?.frame.context(NO_FRAMES)
}

/// Finds out whether the kernel has the hooks for names of Unix sockets. `run` is as above.
///
/// # Errors
/// The reason why it does not.
pub(super) fn try_unix(run: &Path) -> Result<()> {
    ensure!(
        helpers::can_judge_unix(),
        "this kernel has no eBPF programs for Unix sockets that may read its memory (they need Linux 6.7, CAP_PERFMON, \
         and a kernel that is not locked down for confidentiality)"
    );
    let offsets = offsets::of_this_kernel(run)?.unix;
    offsets
        .map(drop)
        .context("this kernel's type information lacks the types of Unix sockets")
}

/// Makes the maps and sets the globals. No program is loaded yet: `object` has those that will be. `lsm` is `None` if the
/// programs of [`Hook::MANAGERS`] are not going to be loaded.
pub(super) fn open(
    object: &[u8],
    variant: Variant,
    settings: Settings,
    enforced: &Enforced,
    token: Token,
    lsm: Option<Lsm<'_>>,
) -> Result<Ebpf> {
    let allow_raw = u32::from(settings.allow_raw);
    let allow_devices = settings.allow_devices.number();
    let deny_frames = settings.deny.of_frames();
    let allow_netns = u32::from(settings.allow_netns);
    let names_caller = u32::from(variant.names_caller);
    let finds_mptcp = u32::from(variant.finds_mptcp);
    let closes_listeners = u32::from(enforced.listen.is_some());
    let options_unseen = u32::from(enforced.options_unseen);
    let closes_devices = u32::from(enforced.devices.is_some());
    let log_allowed = settings.log_allowed.number();
    let resolver = enforced.resolver.unwrap_or_default();
    let (listing_offsets, socket_sock) = match settings.lists {
        true => super::listing::offsets(&variant)?,
        false => Default::default(),
    };
    let manager_offsets = lsm.map(|lsm| lsm.offsets).unwrap_or_default();
    let (object, frame) = cast::prepare_frames(object, settings.devices, variant.frame)?;
    let mut loader = make_loader()?;
    loader
        .btf(None)
        .override_global(abi::DENY_RETVAL, &variant.deny_retval, true)
        .override_global(abi::NAMES_CALLER, &names_caller, true)
        .override_global(abi::PROOF, &token.0, true)
        .override_global(abi::FENCE_CGROUP, &settings.cgroup, true)
        .override_global(abi::ALLOW_NETNS, &allow_netns, true)
        .override_global(abi::NODE_NETNS, &settings.node_netns, true)
        .override_global(abi::NETNS_OFFSETS, &variant.netns, true)
        .override_global(abi::FINDS_MPTCP, &finds_mptcp, true)
        .override_global(abi::ALLOW_RAW, &allow_raw, true)
        .override_global(abi::ALLOW_DEVICES, &allow_devices, true)
        .override_global(abi::DENY_FRAMES_WITH, &deny_frames, true)
        .override_global(abi::FRAME_OFFSETS, &frame, true)
        .override_global(abi::UNIX_OFFSETS, &variant.unix, true)
        .override_global(abi::MANAGER_OFFSETS, &manager_offsets, true)
        .override_global(abi::LISTING_OFFSETS, &listing_offsets, true)
        .override_global(abi::SOCKET_SOCK, &socket_sock, true)
        .override_global(abi::CLOSES_LISTENERS, &closes_listeners, true)
        .override_global(abi::OPTIONS_UNSEEN, &options_unseen, true)
        .override_global(abi::CLOSES_DEVICES, &closes_devices, true)
        .override_global(abi::LOG_ALLOWED, &log_allowed, true)
        .override_global(abi::RESOLVER, &resolver, true)
        .map_max_entries(
            abi::RESOLVED_MAP,
            sizes::of_resolver(enforced, resolved::RESOLVED),
        )
        .map_max_entries(
            abi::ASKERS_MAP,
            sizes::of_resolver(enforced, resolved::ASKERS),
        )
        .map_max_entries(abi::FLOWS_MAP, flows::room(settings.log_allowed))
        .map_max_entries(
            abi::FORGOTTEN_MAP,
            flows::slots_of_forgotten(settings.log_allowed),
        )
        .map_max_entries(
            abi::FRAME_DEVICES_MAP,
            sizes::of_devices(settings, abi::FRAME_DEVICES),
        )
        .map_max_entries(
            abi::GUEST_MACS_MAP,
            sizes::of_devices(settings, abi::GUEST_MACS),
        )
        .map_max_entries(
            abi::LEARNT_MACS_MAP,
            sizes::of_devices(settings, abi::FRAME_DEVICES),
        )
        .map_max_entries(
            abi::GATEWAYS_MAP,
            sizes::of_devices(settings, abi::GATEWAYS),
        )
        .map_max_entries(
            abi::HOST_SENT_MAP,
            sizes::of_devices(settings, abi::HOST_SENT),
        )
        .map_max_entries(abi::HITS_MAP, sizes::hits(settings.rules))
        .map_max_entries(abi::DEVICES_MAP, sizes::of_allowed(enforced))
        .map_max_entries(abi::PORTS_MAP, closures::ports(enforced))
        .map_max_entries(
            abi::MANAGER_NAMES_MAP,
            lsm.map_or(1, |lsm| lsm.names.room()),
        );
    let mut ebpf = loader.load(&object).context(
        "the kernel rejected the eBPF maps (Linux 5.10 or newer is needed, and \
         CAP_BPF or CAP_SYS_ADMIN)",
    )?;
    if let Some(Lsm { names, .. }) = lsm {
        names.fill(&mut ebpf)?;
    }
    Ok(ebpf)
}

/// The object with all programs.
pub(super) fn object(settings: Settings) -> &'static [u8] {
    if settings.trace {
        TRACING_OBJECT
    } else {
        OBJECT
    }
}

/// The number of CPUs that this machine can have.
pub(super) fn possible_cpus() -> Result<u32> {
    let count =
        nr_cpus().map_err(|(path, error)| anyhow!(error).context(format!("cannot read {path}")))?;
    u32::try_from(count).context("too many CPUs")
}

/// Makes a loader that has not read the kernel's type information. The programs do not depend on it, and parsing its
/// megabytes takes 15 ms and 20 MB. But aya's loader reads it on construction, before it can be told not to (aya
/// 0.14, `EbpfLoader::new`).
///
/// So the loader is made on a thread with its own root directory, in which the path does not exist. A thread that
/// does not share its `struct fs` has a root directory of its own (unshare(2), CLONE_FS). If that is not allowed, the
/// loader reads the types. If the directory does not exist, there are no types to read.
pub(super) fn make_loader<'a>() -> Result<EbpfLoader<'a>> {
    let make = || {
        if let Some(elsewhere) = Path::new(types::OF_THE_KERNEL).parent() {
            // It saves time, and is not necessary.
            let _ = unshare(CloneFlags::CLONE_FS).and_then(|()| chroot(elsewhere));
        }
        EbpfLoader::new()
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, make);
        thread.context(NO_THREAD)?.join().map_err(|_| crashed())
    })
}

/// Programs that are being loaded in a thread.
pub(super) struct Loading(JoinHandle<Result<Loaded>>);

impl Loading {
    /// Starts loading the programs of these hooks, and with `lists` those that list sockets. `held` is dropped afterwards:
    /// the programs name maps by their descriptors until then.
    pub(super) fn begin(
        mut ebpf: Ebpf,
        source: Source<'static>,
        hooks: Vec<Hook>,
        lists: bool,
        held: impl Send + 'static,
    ) -> Result<Self> {
        let thread = thread::Builder::new().spawn(move || {
            let own = load_all(&mut ebpf, &source, &hooks)?;
            if lists {
                super::listing::load(&mut ebpf)?;
            }
            drop(held);
            Ok(Loaded { ebpf, own })
        });
        Ok(Self(thread.context(NO_THREAD)?))
    }

    /// Waits until all of them are loaded.
    pub(super) fn finish(self) -> Result<Loaded> {
        self.0.join().map_err(|_| crashed())?
    }
}

/// Loaded programs.
pub(super) struct Loaded {
    pub(super) ebpf: Ebpf,
    own: Vec<OwnProgram>,
}

impl Loaded {
    /// Attaches the program of a hook to a cgroup. Returns the link, and the id of the program.
    pub(super) fn attach(&mut self, hook: Hook, cgroup: &File) -> Result<(Link, u32)> {
        if is_own(hook) {
            let own = self.own.iter().find(|own| own.hook == hook);
            let fd = &own.ok_or_else(|| no_program(hook))?.fd;
            let link = Link::Own(own_link::attach(fd.as_fd(), cgroup, hook)?);
            return Ok((link, id_of_program(fd)?));
        }
        let program = super::program(&mut self.ebpf, hook)?;
        let link = attach(program, hook, cgroup)?;
        Ok((link, program.info()?.id()))
    }
}

/// Loads the programs of these hooks, in a thread for each processor. More threads would only compete for caches.
fn load_all(ebpf: &mut Ebpf, source: &Source<'_>, hooks: &[Hook]) -> Result<Vec<OwnProgram>> {
    for hook in hooks {
        if ebpf.program(hook.row().program).is_none() {
            return Err(no_program(*hook));
        }
    }
    let types = types_for(hooks)?;
    let (own, others): (Vec<Hook>, Vec<Hook>) = hooks.iter().partition(|hook| is_own(**hook));
    let mut programs: Vec<_> = ebpf
        .programs_mut()
        .filter_map(|(name, program)| {
            let hook = others.iter().find(|hook| hook.row().program == name)?;
            Some((*hook, program))
        })
        .collect();
    // The one that takes longest is taken first, from the end, so that all threads end at about the same time.
    programs.sort_by_key(|(hook, _)| duration(*hook));
    // The calling thread loads its own programs first.
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.clamp(1, programs.len().max(1));
    let programs = Mutex::new(programs);
    let load_rest = || {
        while let Some((hook, program)) = next(&programs) {
            load_one(hook, program, types.as_ref())?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads)
            .map(|_| {
                let thread = thread::Builder::new().spawn_scoped(scope, load_rest);
                thread.context(NO_THREAD)
            })
            .collect::<Result<_>>()?;
        let own = source.load(&own);
        let mine: Result<()> = load_rest();
        others
            .into_iter()
            .try_for_each(|other| other.join().map_err(|_| crashed())?)?;
        mine.and(own)
    })
}

/// The next program to load.
fn next<T>(programs: &Mutex<Vec<T>>) -> Option<T> {
    let mut programs = programs.lock().unwrap_or_else(PoisonError::into_inner);
    programs.pop()
}

/// How long the kernel takes to verify the program of a hook, compared with others.
const fn duration(hook: Hook) -> u32 {
    match hook {
        Hook::Frame => 4,
        Hook::Egress | Hook::Ingress => 3,
        Hook::Connect4 | Hook::Connect6 => 2,
        Hook::Sendmsg4 | Hook::Sendmsg6 | Hook::FrameOut => 1,
        _ => 0,
    }
}

fn load_one(hook: Hook, program: &mut Program, types: Option<&Btf>) -> Result<()> {
    load(program, hook, types).with_context(|| {
        // The kernel needs its type information to check the context argument of a program's global functions
        // (`btf_get_prog_ctx_type` in kernel/bpf/btf.c).
        let why = if Path::new(types::OF_THE_KERNEL).exists() {
            ""
        } else {
            " (it needs a kernel with type information, CONFIG_DEBUG_INFO_BTF)"
        };
        let hook = hook.name();
        format!("the kernel rejected the eBPF program for {hook}{why}")
    })
}

fn crashed() -> anyhow::Error {
    anyhow!("a thread that loads the eBPF programs has panicked")
}

/// Takes a map out of the object.
pub(super) fn take(ebpf: &mut Ebpf, name: &str) -> Result<Map> {
    ebpf.take_map(name).ok_or_else(|| super::no_map(name))
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::MetadataExt as _,
        sync::atomic::{AtomicU32, Ordering},
    };

    use nix::unistd::geteuid;

    use super::*;

    /// Other threads continue to open files by paths and descriptors, with their root directory unchanged.
    #[test]
    fn to_make_a_loader_changes_nothing_for_other_threads() {
        let root = || {
            fs::metadata("/")
                .map(|root| (root.dev(), root.ino()))
                .unwrap()
        };
        let (before, opened) = (root(), AtomicU32::new(0));
        thread::scope(|scope| {
            let other = scope.spawn(|| {
                while opened.load(Ordering::Relaxed) < 1000 {
                    File::open("/proc/self/status").unwrap();
                    opened.fetch_add(1, Ordering::Relaxed);
                }
            });
            while !other.is_finished() {
                make_loader().unwrap();
                assert_eq!(root(), before);
            }
            other.join().unwrap();
        });
    }

    #[test]
    fn the_loader_has_types_of_the_kernel_only_where_it_cannot_be_kept_from_them() {
        let loader = format!("{:?}", make_loader().unwrap());
        assert_eq!(loader.contains("btf: None"), geteuid().is_root());
    }
}
