//! `attach`: makes a fence at a cgroup that others made. Nothing is moved. The order of the steps matters: the maps are
//! filled before the programs are attached, and the sockets that exist are looked at after that, so that none is missed.

mod added;
mod devices;
pub(super) mod guests;
mod network;
mod opened;
mod proof;
mod registered;
mod restart;
mod sockets;
mod supervise;
mod target;
mod wires;

use std::{fmt::Display, path::PathBuf};

use anyhow::{Context as _, Result, ensure};

use self::{
    guests::Guest,
    registered::{describe, make, say_others},
    supervise::{Wanted, supervise},
    target::Home,
    wires::Wire,
};
use super::{logging, require_root};
use crate::{
    base::{console::notify, descriptors, inherited, paths::Paths},
    cli::{Attach, OnExit, resolve},
    doctor::classes,
    fence::{
        nested,
        registry::{Fences, MOUNTED_BPFFS, Made},
        wired::Wired,
    },
    launch::signals::Blocked,
    observe::metrics::address::Listener,
    stored_policy,
    supervise::attached::End,
    workload::{Target, words_of_devices},
};

/// Runs `attach`.
///
/// # Errors
/// If the fence cannot be made. Then nothing is fenced but the wires of a pod.
pub fn run(options: &Attach, paths: &Paths) -> Result<()> {
    let target = options.target.target();
    ensure!(
        target.is_some() || !options.device.is_empty(),
        "there is nothing to fence: give a target by --pid, --cgroup, --unit, --container or --domain, or a network device by \
         --device"
    );
    match options.restart {
        true => restart::run(options, target.as_ref(), paths),
        false => run_on(options, target.as_ref(), &[], None, paths).map(|_| ()),
    }
}

/// What became of a fence.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The cgroup was removed, and so was the fence.
    PlaceGone {
        /// The name of the fence.
        name: String,
        /// The path of the cgroup below the mount of cgroup2.
        cgroup: PathBuf,
        /// When the cgroup was last seen, in nanoseconds since boot.
        seen: u64,
    },
    /// Anything else.
    Over,
}

/// Fences a target, whatever the options name, the devices that they name, and the network devices of guests. `open` is a time
/// before which a target that was started anew did not exist, in nanoseconds since boot.
///
/// # Errors
/// If the fence cannot be made. Then nothing is fenced but the wires of a pod (`--pod-device`), which may be fenced for other
/// containers of it too: those fences end with the wires.
pub(super) fn run_on(
    options: &Attach,
    target: Option<&Target>,
    guests: &[Guest],
    open: Option<u64>,
    paths: &Paths,
) -> Result<Outcome> {
    require_root()?;
    inherited::close_all_but(0)?;
    descriptors::make_room();
    nested::refuse(paths)?;
    let wired = match options.pod_device {
        true => {
            let target = target.context("--pod-device needs a target")?;
            Some(wires::fence(options, target, paths)?)
        }
        false => None,
    };
    let subject = Subject {
        target,
        guests,
        wired,
        wire: None,
    };
    fence_one(options, subject, open, paths)
}

/// What one fence is for, besides the devices that the options name.
#[derive(Clone, Copy)]
struct Subject<'a> {
    /// The workload.
    target: Option<&'a Target>,
    /// The network devices of its guests.
    guests: &'a [Guest],
    /// The network namespace whose wires are fenced, which must be the target's: the inode of its file in /proc.
    wired: Option<u64>,
    /// A wire of a pod, alone.
    wire: Option<&'a Wire>,
}

fn fence_one(
    options: &Attach,
    subject: Subject<'_>,
    open: Option<u64>,
    paths: &Paths,
) -> Result<Outcome> {
    let target = subject.target;
    let policy = resolve::policy(
        &options.policy,
        options.dns,
        options.monitor,
        &paths.profiles,
    )?;
    ensure!(
        !policy.has_names(),
        "rules by name need the resolver of a fence that `exec` makes: processes that run already have looked their names up \
         elsewhere. Use rules by address with `attach`"
    );
    let place = match target {
        Some(target) => Some(target::find(options, target, paths)?),
        None => None,
    };
    let text = match &place {
        Some(found) => found.words(),
        None => words_of_devices(&options.device),
    };
    let (home, network, node_netns) = match (target, &place) {
        (Some(target), Some(found)) => {
            let home = Home::of(options, found, paths)?;
            home.ensure_wired(subject.wired)?;
            let network = network::of(options, target, found, &home, paths)?;
            let node_netns = network::node_cookie(&home, found)?;
            (home, Some(network), node_netns)
        }
        _ => (Home::default(), subject.wire.map(Wire::network), 0),
    };
    let devices = devices::find(options, subject)?;
    let logs = match options.detach {
        true => {
            logging::refuse(&options.log)?;
            Vec::new()
        }
        false => logging::open(&options.log, options.log_format, None)?,
    };
    let listener = options.metrics.as_ref().map(Listener::bind).transpose()?;
    // Not earlier: opening a log may block forever.
    let blocked = Blocked::new()?;
    warn(options, &home, paths);
    resolve::warn_of_shadowed(&policy)?;
    let fences = Fences::open(paths)?;
    let mut description = describe(options, &text, place.as_ref(), &devices);
    if let Some(netns) = subject.wired {
        let here = stored_policy::netns()?;
        description.wired = Some(Wired { netns, here });
    }
    let refuses_added = added::refuses(options, target, &mut description, paths)?;
    let Made {
        fence,
        has_replaced,
        mounted_bpffs,
    } = make(options, &fences, place.as_ref(), &mut description)?;
    if mounted_bpffs {
        notify(MOUNTED_BPFFS);
    }
    if let Some(found) = &place {
        say_others(&fences.overlapping(fence.name(), &found.path)?);
        let path = found.path.display();
        step(options, format_args!("{text} is in the cgroup {path}"));
    }

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    let wanted = Wanted {
        policy,
        listener,
        description,
        logs,
        home,
        network,
        node_netns,
        devices,
        refuses_added,
        wired: subject.wired,
        open,
        starting: match target {
            Some(Target::Starting { pid, .. }) => Some(*pid),
            _ => None,
        },
        replaced: has_replaced.then_some(&fences),
    };
    let ended = runtime.block_on(supervise(options, paths, &fence, wanted, blocked));
    let ended = match ended {
        Ok(ended) => ended,
        Err(error) => {
            let error = fence.give_up(error);
            return Err(match has_replaced {
                true => error.context(
                    "the orphaned fence of this name could not be replaced: its programs stay in force until the cgroup ends, \
                     and `ps` does not show it",
                ),
                false => error,
            });
        }
    };
    let name = fence.name().to_owned();
    let mut outcome = Outcome::Over;
    match ended.as_ref().map(|(end, _)| *end) {
        None => {
            fence.leave();
            notify(format_args!(
                "the fence {name} is in force and has no supervisor: it does not follow this host's addresses and \
                 nameservers, and writes to no log (`qfence-user logs {name}` shows the refusals that the kernel keeps); end it \
                 with `qfence-user rm {name}`"
            ));
        }
        Some(End::Removed) => {
            fence.leave();
            notify(format_args!("the fence {name} was removed"));
        }
        Some(End::PlaceGone { seen }) => {
            fence.remove()?;
            let cgroup = place.map(|found| found.path).unwrap_or_default();
            outcome = Outcome::PlaceGone { name, cgroup, seen };
            notify(format_args!("{text} has ended, and its cgroup is gone"));
        }
        Some(End::Signal(_)) if options.on_exit == OnExit::Keep => {
            fence.leave();
            notify(format_args!(
                "the fence {name} stays in force without a supervisor; end it with `qfence-user rm {name}`"
            ));
        }
        Some(End::Signal(_)) => {
            fence.remove()?;
            notify(format_args!("{text} is not fenced any more"));
        }
    }
    if let Some((_, audit)) = ended {
        logging::say_missing(&audit);
    }
    Ok(outcome)
}

/// Prints a step, if the user has requested steps.
fn step(options: &Attach, message: impl Display) {
    if options.verbose > 0 {
        notify(message);
    }
}

/// Warns of what the fence does not close.
fn warn(options: &Attach, home: &Home, paths: &Paths) {
    if let Some(fix) = classes::examine(&paths.proc).fix {
        notify(format_args!(
            "warning: net_cls or net_prio are in use; {fix}"
        ));
    }
    if options.monitor {
        notify("warning: with --monitor nothing is refused: the target can reach this host");
    }
    if home.netns.is_some() && !options.pod_loopback {
        notify(
            "the target has a network namespace of its own: its services at its own addresses and at loopback are refused to \
             it (--pod-loopback allows them)",
        );
    }
}
