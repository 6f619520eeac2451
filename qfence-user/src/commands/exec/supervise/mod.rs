//! Fills the fence, starts the command in it, and supervises the command until it has ended.

mod guests;
mod introduction;
mod programs;
mod resolver;

use std::{
    mem,
    os::fd::AsFd as _,
    sync::mpsc::channel,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use qfence_common::Hook;

use self::introduction::introduce;
use super::{
    Wanted, hints,
    managed::{self, Managed},
    unit,
    words::{self, step},
};
use crate::{
    base::{
        console::{self, notify},
        exit::{self, NOT_EXECUTABLE, NOT_FOUND},
        inherited,
        interruptible::Interrupted,
        paths::Paths,
    },
    build::{Building, Built},
    cli::Exec,
    commands::{logging, metrics, replaced::warn_of_replaced},
    confinement::Closure,
    fence::{guard::Fence, integrity::Integrity},
    host::watcher::Watcher,
    kernel::{Maps, owners},
    launch::{
        child::{self, Closures, Launch, Lifted, StartError},
        managers::{Entered, Keeper},
        reporter,
        signals::Blocked,
    },
    observe::metrics::serve::Server,
    record::{
        auditor::Ended, devices::DeviceNames, process::Processes, reader::Sources,
        resolved_names::ResolvedNames, rule_names::RuleNames, target::SinkKind,
        workloads::Workloads,
    },
    supervise::{
        Supervisor,
        background::Staying,
        begin::begin,
        devices::{self, DeviceWatch},
        follower::Update,
        leavers::Watch,
        refused::Ender,
        traces::{self, Traces},
    },
};

/// A command that fails sooner may lack a file.
const AT_START: Duration = Duration::from_secs(5);

/// Fills the fence and runs the command in it. Returns the exit status, and the record's counts if the command was
/// started.
pub(super) async fn supervise(
    options: &Exec,
    paths: &Paths,
    fence: &Fence,
    mut wanted: Wanted,
    blocked: Blocked,
) -> Result<(u8, Option<Ended>)> {
    let mut signals = blocked.receive()?;
    // Later, the command may stop the terminal.
    let mut messages = console::never_block()?;
    let limits = Lifted::lift()?;
    if let Some(error) = limits.why_unspared() {
        step(
            options,
            format_args!(
                "the kernel may end this process when memory is short, because the OOM score cannot be changed: {error}"
            ),
        );
    }

    // Serves until the fence is about to be removed.
    let _server = match wanted.listener {
        Some(listener) => {
            let source = metrics::source(paths, Some(fence.name()));
            Some(Server::start(listener, source)?)
        }
        None => None,
    };
    let mut confinement = wanted.confinement;
    let mut closures = Closures::new(confinement.wanted(options))?;
    let reports = closures.take_receiver();
    let closes_processes = closures.close_processes();
    let managed = match &wanted.managers {
        None => Managed::Open,
        // Their masks and the domain close them.
        Some(_) if closes_processes => Managed::Masked,
        Some(managers) => {
            let allowed = &confinement.grants.connect;
            managed::without_domain(options, managers, allowed, fence, paths, limits)?
        }
    };
    let rule_names = RuleNames::new(&wanted.policy, fence.policy_file());
    let trace = options.verbose >= 2;
    let programs = programs::of(options, &wanted.guests, wanted.enforced, &managed, trace);
    let watcher = Watcher::new(paths);
    let building = Building::begin(fence, programs, wanted.policy, &watcher, &paths.run);
    let mut building = building.await?;
    words::warn_of_lacks(options, building.lacks());
    words::settle_closures(options, &closures, wanted.identity.as_ref(), &managed)?;
    hints::of_variables(&confinement.environment, building.policy());
    hints::of_outside(options, &managed, &confinement.strict, &confinement.grants);
    let starting = child::prepare(Launch {
        command: &wanted.guests.command,
        identity: wanted.identity.as_ref(),
        environment: mem::take(&mut confinement.environment),
        entry: Some(fence.cgroup().entry()?),
        proof: Some(building.proof()),
        closures: Some(closures.into()),
        managers: wanted.managers.clone(),
        netns: wanted.netns.clone(),
        allow_new_privs: options.allow_new_privs,
        signal_mask: blocked.mask_before(),
        reignored: blocked.reignored(),
        limits,
        preserve_fds: options.preserve_fds,
        given: &wanted.guests.given,
        stdout: None,
    })?;

    if let Update::Published { host, nameservers } = building.published() {
        step(
            options,
            format_args!("the set host has {host} prefixes; {nameservers} nameservers"),
        );
    }

    hints::of_servers(&wanted.servers, building.policy());
    if let Some(warning) = building.policy().refused_nameservers() {
        notify(warning);
    }

    // The rest of what needs no loaded programs is done while they are loaded.
    let names_of_devices = DeviceNames::default();
    let (drops, dropped) = channel();
    let resolved = ResolvedNames::default();
    let (lookups, names) = match wanted.names {
        None => (None, None),
        Some(prepared) => {
            let started =
                resolver::start(options, prepared, fence, &mut building, &resolved, &watcher);
            let (lookups, names) = started.await?;
            (Some(lookups), Some(names))
        }
    };
    let sources = Sources {
        lookups,
        resolved,
        workloads: Workloads::default(),
        attempts: building.attempts()?,
        maps: Maps::open(&fence.pins())?,
        names: rule_names,
        files: fence.record_files(),
        processes: Processes::new(paths.proc.clone(), wanted.description.qemu.clone()),
        devices: names_of_devices.clone(),
        drops: (!wanted.guests.fenced.is_empty()).then_some(dropped),
    };
    let command = sources.processes.command();
    let auditor = logging::start(fence.name().into(), sources, wanted.logs)?;
    Ender {
        syns: building.take_refused_syns()?,
        cgroup: fence.cgroup().clone(),
        owners: owners(&fence.pins())?.fd().as_fd().try_clone_to_owned()?,
        program: paths.program.clone(),
        messages: messages.clone(),
    }
    .start()?;
    let namespace = match starting.entered() {
        Some(Entered::Masked(namespace)) => Some(namespace),
        Some(Entered::NotPermitted(error)) => {
            if managed.names().is_none() {
                words::settle_managers(options, &error)?;
            }
            None
        }
        None => None,
    };
    let mut described = wanted.description;
    described.open = words::open(namespace.is_some(), closes_processes, &managed);
    if managed.names().is_some() {
        let hooks = Hook::MANAGERS.map(|hook| hook.name().to_owned());
        described.hooks.extend(hooks);
    }
    // Before the command can make an attempt.
    if let Err(error) = introduce(&starting, &command, &mut described, fence, paths) {
        notify(format_args!("{error:#}"));
    }
    if let Some(reports) = reports {
        reporter::start(reports, &paths.proc, messages.clone())?;
    }
    // Before the command can send anything. What arrives until the end is passed on.
    let _relay = match wanted.notifications {
        None => None,
        Some((mut relay, manager)) => {
            relay.start(manager, messages.clone())?;
            Some(relay)
        }
    };
    let dead_man = unit::dead_man(options, paths, fence.name()).await?;

    let mut loaded = building.finish_loading()?;
    step(options, "loaded the eBPF programs");

    if trace {
        traces::print(loaded.take_traces(Traces)?)?;
    }
    for device in &wanted.guests.fenced {
        names_of_devices.set(device.index, &device.name);
    }
    let guarded = match wanted.guests.fenced.is_empty() {
        true => None,
        false => {
            let found = guests::fence(options, &wanted.guests, &mut loaded, &watcher, paths);
            Some(found.await?)
        }
    };
    let Built {
        mut policy,
        parts,
        beside,
    } = loaded.attach(&[])?;
    warn_of_replaced(&beside);
    step(
        options,
        format_args!(
            "attached the programs; the links are pinned in {}",
            fence.pins().display()
        ),
    );

    // No command runs with a policy that lacks what nameservers have revealed meanwhile.
    policy.settle().await?;
    if let Some(signal) = signals.end_of_start().context("cannot read signals")? {
        // Dropping it ends the waiting child.
        let what = "for the start of the command".to_owned();
        return Err(Interrupted { signal, what }.into());
    }
    // On a slow machine the programs take many seconds to load. Then the first query of the command would be refused, because
    // nobody has followed the host meanwhile.
    policy.tick(&mut messages).await;
    let begun = Instant::now();
    let child = match begin(starting, &mut signals, &messages).await {
        Ok(child) => child,
        Err(error) => return Ok((status_of(error)?, None)),
    };
    inherited::close_preserved(options.preserve_fds);
    // The command has them, and a device without users ends.
    drop(mem::take(&mut wanted.guests.given));
    let _keeper = match (wanted.managers, namespace) {
        (Some(managers), Some(namespace)) => {
            Some(Keeper::start(managers, namespace, messages.clone())?)
        }
        _ => None,
    };
    step(
        options,
        format_args!(
            "started {:?} as process {}",
            wanted.guests.command,
            child.pid()
        ),
    );

    let _leavers = Watch::start(
        fence.cgroup().clone(),
        &paths.proc,
        child.pid(),
        options.on_leave,
        messages.clone(),
    )?;
    let integrity = Integrity::new(
        fence.cgroup().directory(),
        &fence.pins(),
        parts,
        Some(child.pid()),
    );
    let devices = guarded.map(|guests::Guarded { host, membership }| {
        DeviceWatch::new(devices::Given {
            devices: mem::take(&mut wanted.guests.fenced),
            host,
            membership,
            pins: fence.pins(),
            drops,
            names: names_of_devices,
            describe: Box::new(move |devices| {
                let mut description = described.clone();
                description.devices = devices.to_vec();
                fence.describe(&description)
            }),
        })
    });
    let supervisor = Supervisor {
        policy,
        devices,
        signals,
        auditor,
        fence: fence.name().into(),
        integrity,
        messages,
        on_damage: options.on_damage,
        cgroup: fence.cgroup().clone(),
        resolv_conf: paths.resolv_conf.clone(),
        dead_man,
        names,
    };
    let end_the_rest = || {
        if !options.keep {
            words::report_daemons(fence.cgroup());
            fence.empty();
        }
    };
    let staying = match wanted.front {
        Some(front) => Some(Staying {
            front: front.watch()?,
            was_shown: options.log.iter().any(|log| log.kind == SinkKind::Stderr),
        }),
        None => None,
    };
    let (ended, audit) = supervisor.run(child, staying, end_the_rest).await?;
    if options.keep
        && fence.is_populated().unwrap_or(true)
        && let Some(scratch) = &mut confinement.scratch
    {
        scratch.keep();
    }
    let is_failed = ended.is_none_or(|status| !status.success());
    if confinement.strict.has(Closure::Files) && is_failed && begun.elapsed() < AT_START {
        notify(
            "hint: files that --strict closes are refused; -v shows what the command keeps, --allow-read and --allow-write add to it",
        );
    }
    Ok((ended.map_or(exit::FAILED, exit::of_command), Some(audit)))
}

/// Reports that the command cannot be executed, and returns the exit status for that.
///
/// # Errors
/// If its start has failed in another way.
fn status_of(error: StartError) -> Result<u8> {
    let status = match error {
        StartError::Failed(error) => return Err(error),
        StartError::GivenUp | StartError::Unproven(_) => return Err(error.into()),
        StartError::NotFound(_) => NOT_FOUND,
        StartError::NotExecutable { .. } => NOT_EXECUTABLE,
    };
    notify(format_args!("error: {error}"));
    Ok(status)
}
