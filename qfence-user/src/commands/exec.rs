//! `exec`: runs a command in a fence of its own. The order of the steps is the promise: the maps are
//! full before the programs are attached, and the programs are attached before anything in the fence makes a
//! socket or executes anything.

use std::{
    net::SocketAddr,
    os::unix::ffi::OsStrExt,
    path::Path,
    process,
    sync::{Arc, OnceLock},
};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;

use super::{metrics, require_root};
use crate::{
    base::{
        exit::{self, NOT_EXECUTABLE, NOT_FOUND},
        identity::{self, Identity, Sudo},
        inherited,
        interruptible::Interrupted,
        paths::Paths,
        printable::printable_words,
        say::{self, say},
    },
    cli::{Exec, choose},
    compile::Compiled,
    doctor::{classes, finding::Finding},
    fence::{
        description::{COMMAND, State},
        guard::Fence,
        integrity::{Integrity, Parts},
        nested,
        registry::Fences,
    },
    host::watcher::Watcher,
    kernel::{Attempts, Kernel, Maps, Settings},
    launch::{
        child::{self, Closures, Launch, Lifted, StartError, Strictness},
        signals::Blocked,
    },
    observe::metrics::{address::Listener, serve::Server},
    policy::Policy,
    qemu::{self, guestfwd::Forward, programs},
    record::{
        auditor::{Auditor, Ended},
        guest::Qemu,
        known::Known,
        proc::{self, ProcessId},
        process::Processes,
        reader::{Reader, Sources},
        sink::{self, Sink},
        writer::Writer,
    },
    supervise::{
        Supervisor,
        begin::begin,
        follow::{Follower, Update},
        traces::{self, Traces},
    },
    verify::short::verify_first,
};

/// What the options ask for, found to be good before anything is made.
struct Wanted {
    identity: Option<Identity>,
    policy: Policy,
    forwards: Vec<Forward>,
    listener: Option<Listener>,
    state: State,
}

/// Runs `exec`; returns the exit status.
///
/// # Errors
/// If anything but the command fails: then nothing runs.
pub fn run(options: &Exec, paths: &Paths) -> Result<u8> {
    require_root()?;
    inherited::close_all_but(options.preserve_fds)?;
    nested::refuse(paths)?;
    if options.verify {
        // Ctrl-C ends both, as long as the signals are not blocked.
        let sentence = verify_first()?;
        step(options, sentence);
    }
    let (forwards, qemu) = admit(options)?;
    let identity = identity::choose(options.user.as_deref(), &Sudo::from_env())?;
    let policy = choose::policy(
        &options.policy,
        options.dns,
        options.monitor,
        &paths.profiles,
    )?;
    let sinks = open_logs(options, identity.as_ref())?;
    let listener = options.metrics.as_ref().map(Listener::bind).transpose()?;
    // Not before: opening a log may take for ever, and there is no command yet that the signals could be for.
    let blocked = Blocked::new()?;
    warn(options, identity.as_ref(), paths);
    choose::warn_of_shadowed(&policy)?;

    let command = options
        .command
        .first()
        .map(Path::new)
        .unwrap_or(Path::new(""));
    let fences = Fences::open(paths)?;
    let state = describe(options, qemu);
    let fence = fences.create(options.name.as_deref(), command, &options.limits, &state)?;
    step(
        options,
        format_args!("made the cgroup {}", fence.cgroup().directory().display()),
    );

    // One thread: the signal mask is this thread's, and nothing here is long.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    let wanted = Wanted {
        identity,
        policy,
        forwards,
        listener,
        state,
    };
    let ended = runtime.block_on(supervise(options, paths, &fence, wanted, sinks, blocked));

    let kept = options.keep && ended.is_ok() && fence.cgroup().is_populated().unwrap_or(true);
    let removed = if kept {
        let name = fence.name().to_owned();
        say(format_args!(
            "processes stay in the fence {name}: end them with `qfence-user rm {name}`"
        ));
        fence.leave();
        Ok(())
    } else {
        fence.remove()
    };
    if let Err(error) = removed {
        say(format_args!("error: {error:#}"));
    }
    let (status, audit) = ended?;
    if let Some(audit) = audit {
        say_missing(&audit);
    }
    Ok(status)
}

/// Opens the logs, each with what the user calls it.
fn open_logs(options: &Exec, identity: Option<&Identity>) -> Result<Vec<(String, Box<dyn Sink>)>> {
    let user = identity.map(|identity| identity.uid);
    let mut sinks = Vec::new();
    for target in &options.log {
        if let Some(sink) = sink::open(target, options.log_format, user)? {
            sinks.push((target.to_string(), sink));
        }
    }
    Ok(sinks)
}

/// Says what is in no log: the counters are exact, whatever became of the lines.
fn say_missing(audit: &Ended) {
    let all = audit.counts.on_record();
    for (name, told) in &audit.told {
        let missing = all.saturating_sub(*told);
        if missing > 0 {
            say(format_args!(
                "{missing} of {all} refusals are not in the log {name}"
            ));
        }
    }
}

/// Refuses a QEMU with a network that the fence does not see, unless it is to have it; returns the
/// targets that its guest is led to, and the QEMU, as the record needs it.
fn admit(options: &Exec) -> Result<(Vec<Forward>, Option<Qemu>)> {
    let found = qemu::inspect(
        &options.command,
        programs::resolve,
        programs::read_again_later,
    );
    if options.allow_unfenced_net {
        for door in &found.doors {
            say(format_args!("warning: {}", door.warning()));
        }
    } else if let Some((last, others)) = found.doors.split_last() {
        for door in others {
            say(format_args!("error: {}", door.refusal()));
        }
        bail!("{}", last.refusal());
    }
    let qemu = found.qemu.map(|found| Qemu {
        guest: found.guest,
        is_command: found.index == 0,
        file: programs::resolve(&options.command[found.index])
            .and_then(|path| programs::FileId::of(&path)),
        process: None,
    });
    Ok((found.forwards, qemu))
}

/// Names the targets that the guest will not reach, for all that the user asked for them.
fn hint(forwards: &[Forward], policy: &Follower) {
    for Forward {
        argument,
        address,
        port,
    } in forwards
    {
        if policy.refuses(*address, *port) {
            let target = SocketAddr::new(*address, *port);
            say(format_args!(
                "hint: guestfwd to {target} ({argument}) is refused: give --allow tcp:{target} to \
                 except it; QEMU connects when it starts, and ends if it cannot"
            ));
        }
    }
}

/// What the user should know before it starts.
fn warn(options: &Exec, identity: Option<&Identity>, paths: &Paths) {
    let is_root = identity.is_none_or(|identity| identity.uid.is_root());
    if is_root {
        say(
            "warning: the command runs as root, and root can leave its fence; give --user, or call \
             with sudo",
        );
    }
    if options.allow_raw && (is_root || options.allow_new_privs) {
        say(
            "warning: with --allow-raw, packets that root sends from raw sockets to IPv4 multicast and \
             broadcast addresses reach this host too",
        );
    }
    let Finding { found, fix, .. } = classes::examine(&paths.proc);
    if let Some(fix) = fix {
        say(format_args!(
            "warning: net_cls or net_prio are {found}; {fix}"
        ));
    }
    if options.monitor {
        say("warning: with --monitor nothing is refused: the command can reach this host");
    }
    for fd in inherited::internet_sockets(options.preserve_fds) {
        say(format_args!(
            "warning: descriptor {fd} is an internet socket made outside the fence: it is not fenced"
        ));
    }
}

/// The description that `ps` shows, and `logs` goes by.
fn describe(options: &Exec, qemu: Option<Qemu>) -> State {
    let words = options.command.iter().map(|word| word.as_bytes());
    State {
        command: printable_words(words, COMMAND),
        supervisor: i32::try_from(process::id()).unwrap_or_default(),
        started: format!("{:.0}", Timestamp::now()),
        cgroup: None,
        qemu,
    }
}

/// Says which process the command is, to the record and to whoever goes on with it.
fn introduce(
    process: ProcessId,
    command: &OnceLock<ProcessId>,
    fence: &Fence,
    mut state: State,
) -> Result<()> {
    // It is said once.
    let _ = command.set(process);
    let Some(qemu) = &mut state.qemu else {
        return Ok(());
    };
    qemu.process = Some(process);
    fence.describe(&state)
}

/// Fills the fence and runs the command in it; returns the exit status, and what there is to say of the log if
/// the command was started.
async fn supervise(
    options: &Exec,
    paths: &Paths,
    fence: &Fence,
    wanted: Wanted,
    sinks: Vec<(String, Box<dyn Sink>)>,
    blocked: Blocked,
) -> Result<(u8, Option<Ended>)> {
    let mut signals = blocked.receive()?;
    // The command may stop the terminal.
    let aside = say::never_wait()?;
    let limits = Lifted::lift()?;
    if let Some(error) = limits.why_unspared() {
        step(
            options,
            format_args!(
                "the kernel may end this process when memory is short, as it cannot be told not to: {error}"
            ),
        );
    }

    let trace = options.verbose >= 2;
    let settings = Settings {
        deny: options.deny_with,
        allow_raw: options.allow_raw,
        allow_devices: options.allow_unfenced_net,
        allow_netns: options.allow_foreign_netns,
        cgroup: fence.cgroup().id()?.context("the cgroup is gone")?,
        trace,
        rules: wanted.policy.numbers_end(),
    };
    let pins = fence.pins();
    let names = Known::new(&wanted.policy, fence.store());
    let load = |compiled: &Compiled| {
        let (kernel, lacks) = Kernel::load(settings, &paths.run, &pins, compiled)?;
        if lacks.netns_maker && !options.allow_foreign_netns {
            say(
                "this kernel does not tell who made a network namespace (it needs CONFIG_DEBUG_INFO_BTF, and programs \
                 for sockets that may read its memory): no socket can be made in another one than this; \
                 --allow-foreign-netns lets all be",
            );
        }
        if lacks.errno {
            say(
                "this kernel cannot choose the error of a refused call (Linux 5.18 can): it is \
                 EPERM, \"operation not permitted\"",
            );
        }
        Ok(kernel)
    };
    let watcher = Watcher::new(&paths.resolv_conf);
    let begun = Follower::begin(fence.store(), wanted.policy, &watcher, load);
    let (mut policy, update) = begun.await?;
    // Until the fence is about to be removed. Not before: to load programs, this process goes for a moment
    // without what other threads need to open anything.
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
    let is_open = !closures.close_processes() && !options.allow_foreign_netns;
    if is_open && wanted.identity.is_some() {
        say(
            "warning: this kernel has no Landlock domains for signals (Linux 6.12 has): the command can join the namespaces \
             of its user's containers, and reach this host through their networks",
        );
    }
    let starting = child::prepare(Launch {
        command: &options.command,
        identity: wanted.identity.as_ref(),
        entry: Some(fence.cgroup().entry()?),
        proof: Some(policy.kernel().proof()),
        closures: Some(closures.into()),
        allow_new_privs: options.allow_new_privs,
        signal_mask: blocked.mask_before(),
        reignored: blocked.reignored(),
        limits,
        preserve_fds: options.preserve_fds,
        stdout: None,
    })?;

    if let Update::Published { host, nameservers } = update {
        step(
            options,
            format_args!("{host} prefixes are the host; {nameservers} nameservers"),
        );
    }

    hint(&wanted.forwards, &policy);

    policy.kernel().finish_loading()?;
    step(options, "loaded the eBPF programs");

    if trace {
        traces::print(policy.kernel().take_traces(Traces)?)?;
    }
    let name: Arc<str> = fence.name().into();
    let sources = Sources {
        attempts: Attempts::open(&pins)?.context("somebody reads the attempts already")?,
        maps: Maps::open(&pins)?,
        names,
        kept: fence.kept(),
        processes: Processes::new(paths.proc.clone(), wanted.state.qemu.clone()),
    };
    let command = sources.processes.command();
    let reader = Reader::new(sources, name.clone())?;
    let writers = sinks
        .into_iter()
        .map(|(name, sink)| Writer::start(name, sink));
    let auditor = Auditor::start(reader, writers.collect::<Result<_>>()?)?;
    policy
        .kernel()
        .attach(&fence.cgroup().open()?, &fence.pins())?;
    step(
        options,
        format_args!("attached, with links in {}", fence.pins().display()),
    );

    // Before it can try anything.
    let process = starting
        .pid()
        .and_then(|pid| proc::identify(&paths.proc, pid.as_raw().cast_unsigned()).ok());
    if let Some(process) = process
        && let Err(error) = introduce(process, &command, fence, wanted.state)
    {
        say(format_args!("{error:#}"));
    }

    if let Some(signal) = signals.end_of_start().context("cannot read signals")? {
        // Dropped, what waits to be let go ends.
        let what = "for the start of the command".to_owned();
        return Err(Interrupted { signal, what }.into());
    }
    let child = match begin(starting, &mut signals, &aside).await {
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
    step(
        options,
        format_args!("started {:?} as process {}", options.command, child.pid()),
    );

    let parts = Parts::new(policy.kernel().attached(), &fence.pins());
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
        fence: name,
        integrity,
        aside,
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

fn fail(error: &StartError, status: u8) -> u8 {
    say(format_args!("error: {error}"));
    status
}

fn step(options: &Exec, message: impl std::fmt::Display) {
    if options.verbose > 0 {
        say(message);
    }
}
