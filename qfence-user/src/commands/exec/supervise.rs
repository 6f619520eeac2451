//! Fills the fence, starts the command in it, and supervises the command until it has ended.

use std::sync::OnceLock;

use anyhow::{Context, Result};

use super::words::{Managed, step};
use super::{Wanted, logs, qemu, words};
use crate::{
    base::{
        console::{self, notify},
        exit::{self, NOT_EXECUTABLE, NOT_FOUND},
        inherited,
        interruptible::Interrupted,
        paths::Paths,
    },
    build::{Building, Built, Programs, lsm::lsm_runs},
    cli::Exec,
    commands::metrics,
    fence::{description::Description, guard::Fence, integrity::Integrity},
    host::watcher::Watcher,
    kernel::{Maps, unix_names::UnixNames},
    launch::{
        child::{self, Closures, Launch, Lifted, StartError, Strictness},
        managers::{Entered, Keeper, Managers},
        signals::Blocked,
    },
    observe::metrics::serve::Server,
    record::{
        auditor::Ended,
        proc::{self, ProcessId},
        process::Processes,
        reader::Sources,
        rule_names::RuleNames,
    },
    supervise::{
        Supervisor,
        begin::begin,
        follower::Update,
        leavers::Watch,
        traces::{self, Traces},
    },
};

/// Stores the process of the command, for the record and for later readers.
fn introduce(
    process: ProcessId,
    command: &OnceLock<ProcessId>,
    fence: &Fence,
    mut description: Description,
) -> Result<()> {
    // The cell is set only once.
    let _ = command.set(process);
    let Some(qemu) = &mut description.qemu else {
        return Ok(());
    };
    qemu.process = Some(process);
    fence.describe(&description)
}

/// Fills the fence and runs the command in it. Returns the exit status, and the record's counts if the command was
/// started.
pub(super) async fn supervise(
    options: &Exec,
    paths: &Paths,
    fence: &Fence,
    wanted: Wanted,
    blocked: Blocked,
) -> Result<(u8, Option<Ended>)> {
    let mut signals = blocked.receive()?;
    // Later, the command may stop the terminal.
    let messages = console::never_block()?;
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
    let strictness = Strictness {
        allow_compat_sockopt: options.allow_compat_sockopt,
        strict: options.strict,
    };
    let closures = Closures::new(strictness, options.allow_foreign_netns)?;
    let lsm = match &wanted.managers {
        // The masks and the domain close them.
        Some(managers) if !closures.close_processes() => {
            lsm_names(options, managers, fence, paths, limits)?
        }
        _ => Err(String::new()),
    };
    let closes_by_lsm = lsm.is_ok();
    let managed = Managed {
        is_masked: wanted.managers.is_some(),
        why_not_judged: lsm.as_ref().err().cloned(),
    };
    let names = RuleNames::new(&wanted.policy, fence.policy_file());
    let trace = options.verbose >= 2;
    let programs = Programs {
        deny: options.deny_with,
        allow_raw: options.allow_raw,
        allow_devices: options.allow_unfenced_net,
        allow_netns: options.allow_foreign_netns,
        trace,
        managers: lsm.ok(),
    };
    let watcher = Watcher::new(paths);
    let building = Building::begin(fence, programs, wanted.policy, &watcher, &paths.run);
    let mut building = building.await?;
    words::warn_of_lacks(options, building.lacks());
    words::settle_closures(options, &closures, wanted.identity.as_ref(), &managed)?;
    let starting = child::prepare(Launch {
        command: &options.command,
        identity: wanted.identity.as_ref(),
        entry: Some(fence.cgroup().entry()?),
        proof: Some(building.proof()),
        closures: Some(closures.into()),
        managers: wanted.managers.clone(),
        allow_new_privs: options.allow_new_privs,
        signal_mask: blocked.mask_before(),
        reignored: blocked.reignored(),
        limits,
        preserve_fds: options.preserve_fds,
        stdout: None,
    })?;

    if let Update::Published { host, nameservers } = building.published() {
        step(
            options,
            format_args!("the set host has {host} prefixes; {nameservers} nameservers"),
        );
    }

    qemu::hint(&wanted.forwards, building.policy());

    let mut loaded = building.finish_loading()?;
    step(options, "loaded the eBPF programs");

    if trace {
        traces::print(loaded.take_traces(Traces)?)?;
    }
    let sources = Sources {
        attempts: loaded.attempts()?,
        maps: Maps::open(&fence.pins())?,
        names,
        files: fence.record_files(),
        processes: Processes::new(paths.proc.clone(), wanted.description.qemu.clone()),
    };
    let command = sources.processes.command();
    let auditor = logs::start(fence.name().into(), sources, wanted.logs)?;
    let Built { policy, parts } = loaded.attach()?;
    step(
        options,
        format_args!(
            "attached the programs; the links are pinned in {}",
            fence.pins().display()
        ),
    );

    // Before the command can make an attempt.
    let process = starting
        .pid()
        .and_then(|pid| proc::identify(&paths.proc, pid.as_raw().cast_unsigned()).ok());
    if let Some(process) = process
        && let Err(error) = introduce(process, &command, fence, wanted.description)
    {
        notify(format_args!("{error:#}"));
    }

    let namespace = match starting.entered() {
        Some(Entered::Masked(namespace)) => Some(namespace),
        Some(Entered::NotPermitted(error)) => {
            if !closes_by_lsm {
                words::settle_managers(options, &error)?;
            }
            None
        }
        None => None,
    };
    if let Some(signal) = signals.end_of_start().context("cannot read signals")? {
        // Dropping it ends the waiting child.
        let what = "for the start of the command".to_owned();
        return Err(Interrupted { signal, what }.into());
    }
    let child = match begin(starting, &mut signals, &messages).await {
        Ok(child) => child,
        Err(StartError::Failed(error)) => return Err(error),
        Err(error @ StartError::GivenUp) => return Err(error.into()),
        Err(StartError::Unproven(error)) => return Err(error.into()),
        Err(error @ StartError::NotFound(_)) => return Ok((fail(&error, NOT_FOUND), None)),
        Err(error @ StartError::NotExecutable { .. }) => {
            return Ok((fail(&error, NOT_EXECUTABLE), None));
        }
    };
    inherited::close_preserved(options.preserve_fds);
    let _keeper = match (wanted.managers, namespace) {
        (Some(managers), Some(namespace)) => {
            Some(Keeper::start(managers, namespace, messages.clone())?)
        }
        _ => None,
    };
    step(
        options,
        format_args!("started {:?} as process {}", options.command, child.pid()),
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
        child.pid(),
    );
    let supervisor = Supervisor {
        policy,
        signals,
        auditor,
        fence: fence.name().into(),
        integrity,
        messages,
        on_damage: options.on_damage,
        cgroup: fence.cgroup().clone(),
    };
    let end_the_rest = || {
        if !options.keep {
            fence.empty();
        }
    };
    let (ended, audit) = supervisor.run(child, end_the_rest).await?;
    Ok((ended.map_or(exit::FAILED, exit::of_command), Some(audit)))
}

/// The names by which the programs for Unix sockets recognise managers, if these programs run on this kernel; otherwise
/// the reason.
fn lsm_names(
    options: &Exec,
    managers: &Managers,
    fence: &Fence,
    paths: &Paths,
    limits: Lifted,
) -> Result<Result<UnixNames, String>> {
    let runs = lsm_runs(fence.cgroup(), &paths.run, limits)
        .context("cannot try the programs for Unix sockets")?;
    Ok(match runs {
        Ok(()) => {
            step(options, "programs for Unix sockets refuse managers");
            Ok(managers.names())
        }
        Err(reason) => {
            step(
                options,
                format_args!("programs for Unix sockets cannot be used: {reason}"),
            );
            Err(reason)
        }
    })
}

fn fail(error: &StartError, status: u8) -> u8 {
    notify(format_args!("error: {error}"));
    status
}
