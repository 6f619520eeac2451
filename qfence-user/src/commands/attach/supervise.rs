//! Fills the fence, attaches it, looks at the sockets that exist, and supervises it.

use std::os::fd::AsFd as _;

use anyhow::Result;
use nix::unistd::{Pid, getpid};
use qfence_common::Hook;

use super::{devices::Recorded, opened, proof::prove, sockets, step, target::Home};
use crate::{
    base::{
        clock::since_boot,
        console::{self, notify},
        interruptible::Interrupted,
        memory,
        paths::Paths,
    },
    build::{Building, Built, Programs},
    cli::Attach,
    commands::{
        logging::{self, Logs},
        metrics,
        replaced::warn_of_replaced,
    },
    confinement::Enforced,
    fence::{
        description::Description, devices::FencedDevice, guard::Fence, integrity::Integrity,
        registry::Fences,
    },
    host::{watcher::Watcher, workload::WorkloadNetwork},
    kernel::{LogAllowed, Maps, NetworkDevices, owners, query::Beside},
    launch::{child::Lifted, notify::Manager, signals::Blocked},
    observe::metrics::{address::Listener, serve::Server},
    policy::Policy,
    record::{
        auditor::Ended, devices::DeviceNames, line::seconds, process::Processes, reader::Sources,
        resolved_names::ResolvedNames, rule_names::RuleNames, workloads::Workloads,
    },
    supervise::{
        attached::{Attached, End},
        refused::Ender,
        traces::{self, Traces},
    },
};

/// The hooks without which a fence is attached where another program has the hook for itself, as libvirt's and
/// container engines' for devices.
const OPTIONAL: [Hook; 1] = [Hook::Device];

/// What is open without that hook, in the column OPEN of `ps`.
const DEVICES: &str = "devices";

/// The parsed options, checked before anything is made.
pub(super) struct Wanted<'a> {
    pub(super) policy: Policy,
    pub(super) listener: Option<Listener>,
    pub(super) description: Description,
    pub(super) logs: Logs,
    pub(super) home: Home,
    pub(super) network: Option<WorkloadNetwork>,
    /// See [`Programs::node_netns`].
    pub(super) node_netns: u64,
    /// The network devices to fence.
    pub(super) devices: Vec<FencedDevice>,
    /// Whether devices for networks are refused that are handed to the target later.
    pub(super) refuses_added: bool,
    /// The network namespace of the target, if its wires are fenced.
    pub(super) wired: Option<u64>,
    /// A time before which a target that was started anew did not exist, in nanoseconds since boot.
    pub(super) open: Option<u64>,
    /// The first process of a container, while its runtime has not executed the container's program yet.
    pub(super) starting: Option<Pid>,
    /// The registry, if the fence replaces an orphan, whose programs are still attached.
    pub(super) replaced: Option<&'a Fences>,
}

/// Attaches the fence and supervises it. Returns the reason for the end, and the record's counts; `None` with `--detach`.
///
/// # Errors
/// If the fence cannot be made. What was attached before is then detached by the caller.
pub(super) async fn supervise(
    options: &Attach,
    paths: &Paths,
    fence: &Fence,
    wanted: Wanted<'_>,
    blocked: Blocked,
) -> Result<Option<(End, Ended)>> {
    let attached = wanted.description.attached.as_ref();
    let workloads = attached.map_or_else(Workloads::default, |attached| {
        Workloads::new(&attached.workload, fence.cgroup().directory())
    });
    let programs = programs(options, &wanted, &workloads);
    let mut signals = blocked.receive()?;
    let mut messages = console::never_block()?;
    let limits = Lifted::lift()?;
    // Serves until the fence is about to be removed.
    let _server = match wanted.listener {
        Some(listener) => {
            let source = metrics::source(paths, Some(fence.name()));
            Some(Server::start(listener, source)?)
        }
        None => None,
    };
    let names = RuleNames::new(&wanted.policy, fence.policy_file());
    let watcher = match wanted.network {
        Some(network) => Watcher::new(paths).with_workload(network),
        None => Watcher::new(paths),
    };
    let trace = options.verbose >= 2;
    let building = Building::begin(fence, programs, wanted.policy, &watcher, &paths.run);
    let mut building = building.await?;
    let proof = building.proof();
    if let Some(warning) = building.policy().refused_nameservers() {
        notify(warning);
    }
    // What needs no loaded programs is done while they are loaded.
    let mut sources = Sources {
        lookups: None,
        resolved: ResolvedNames::default(),
        workloads,
        attempts: building.attempts()?,
        maps: Maps::open(&fence.pins())?,
        names,
        files: fence.record_files(),
        processes: Processes::new(paths.proc.clone(), None),
        devices: DeviceNames::default(),
        drops: None,
    };
    let recorded = Recorded::new(wanted.devices, &mut sources);
    let mut auditor = logging::start(fence.name().into(), sources, wanted.logs)?;
    Ender {
        syns: building.take_refused_syns()?,
        cgroup: fence.cgroup().clone(),
        owners: owners(&fence.pins())?.fd().as_fd().try_clone_to_owned()?,
        program: paths.program.clone(),
        messages: messages.clone(),
    }
    .start()?;
    let mut loaded = building.finish_loading()?;
    if trace {
        traces::print(loaded.take_traces(Traces)?)?;
    }
    loaded.prepare_for_running(wanted.home.cookie)?;
    let fenced = recorded
        .fence(options, &mut loaded, &watcher, paths)
        .await?;
    let Built {
        mut policy,
        parts,
        beside,
    } = loaded.attach(&OPTIONAL)?;
    // Until now it was open.
    let open = wanted.open.map(milliseconds_since).transpose()?;
    // Before the sockets that exist are looked at.
    policy.settle_at_once(&mut messages).await;
    step(options, "attached the programs");
    let description = describe(fence, wanted.description, &beside)?;

    let given = (&blocked, &mut signals, &messages);
    prove(fence, &wanted.home, proof, limits, given).await?;
    // An open file of the namespace would keep it alive.
    drop(wanted.home);
    let listed = policy.kernel().list_sockets()?;
    step(options, "noted the owners of the open sockets");
    sockets::admit(options, &listed, wanted.starting, fence, paths)?;
    sockets::admit_devices(options, &listed, wanted.wired, paths)?;
    opened::note(fence, policy.kernel(), &paths.program)?;
    sockets::end_denied(fence, &policy, paths)?;
    if let Some(fences) = wanted.replaced {
        fences.end_replaced(fence.cgroup_id())?;
        notify(format_args!(
            "it has replaced the orphaned fence {}, which no supervisor followed",
            fence.name()
        ));
    }
    if let Some(signal) = signals.end_of_start()? {
        let what = "while the fence was attached".to_owned();
        return Err(Interrupted { signal, what }.into());
    }
    if options.detach {
        return Ok(None);
    }
    if let Some(milliseconds) = open {
        auditor.tell_open(milliseconds)?;
        notify(format_args!(
            "the target was started anew, and was open for at most {}",
            seconds(milliseconds)
        ));
    }
    notify(format_args!("the fence {} is in force", fence.name()));
    if let Some(manager) = Manager::of_environment(getpid())? {
        // For `Type=notify`: what needs the fence is started now.
        manager.ready()?;
    }
    let integrity = Integrity::new(fence.cgroup().directory(), &fence.pins(), parts, None);
    memory::return_unused();
    let attached = Attached {
        policy,
        signals,
        auditor,
        fence,
        integrity,
        messages,
        devices: fenced.map(|fenced| fenced.watch(fence, description)),
    };
    attached.run().await.map(Some)
}

/// The time since another, which is given in nanoseconds since boot, in milliseconds, rounded up.
fn milliseconds_since(since: u64) -> Result<u64> {
    Ok(since_boot()?.saturating_sub(since).div_ceil(1_000_000))
}

/// The settings of the programs.
fn programs(options: &Attach, wanted: &Wanted<'_>, workloads: &Workloads) -> Programs {
    let serving = wanted.devices.iter().filter(|device| !device.is_of_pod);
    Programs {
        deny: options.deny_with,
        allow_raw: options.allow_raw,
        allow_devices: match options {
            _ if options.allow_unfenced_net => NetworkDevices::All,
            _ if wanted.wired.is_some() => NetworkDevices::Taps,
            _ => NetworkDevices::None,
        },
        allow_netns: options.allow_foreign_netns,
        node_netns: wanted.node_netns,
        log_allowed: match options.log_allowed {
            true if workloads.are_several() => LogAllowed::ByCgroup,
            is_logged => LogAllowed::together(is_logged),
        },
        enforced: Enforced {
            // No filter of system calls refuses those of 32-bit processes.
            options_unseen: true,
            received: wanted.refuses_added,
            ..Enforced::default()
        },
        trace: options.verbose >= 2,
        managers: None,
        judges_frames: !wanted.devices.is_empty(),
        serving: serving.map(|device| device.name.clone()).collect(),
        lists: true,
    }
}

/// Notes the hooks at which the fence has no program, and tells where it has replaced another one. Returns the description.
fn describe(fence: &Fence, mut description: Description, beside: &Beside) -> Result<Description> {
    warn_of_replaced(beside);
    if beside.left_out.is_empty() {
        return Ok(description);
    }
    notify(
        "warning: another program judges the devices of this cgroup alone: opening /dev/net/tun, /dev/vhost-net and \
         /dev/vhost-vsock is not refused",
    );
    description.without = beside
        .left_out
        .iter()
        .map(|hook| hook.name().to_owned())
        .collect();
    description.open.push(DEVICES.to_owned());
    fence.describe(&description)?;
    Ok(description)
}
