//! `exec`: runs a command in a new fence. The order of the steps matters: the maps are filled before the programs are
//! attached, and the programs are attached before a process in the fence makes a socket or executes anything.

mod devices;
mod enforced;
mod hints;
mod managed;
mod needs;
mod qemu;
mod refused;
mod replaceable;
mod strict;
mod supervise;
mod unit;
mod words;

use std::{env, os::unix::ffi::OsStrExt, path::Path, process};

use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;
use nix::unistd::getpid;

use self::{
    devices::Guests,
    hints::Servers,
    qemu::Admitted,
    strict::Confinement,
    supervise::supervise,
    words::{step, warn},
};
use super::{
    logging::{self, Logs},
    require_root,
};
use crate::{
    base::{
        console::notify,
        descriptors,
        identity::{self, Callers, Identity},
        inherited,
        paths::Paths,
        printable::printable_words,
    },
    cli::{Exec, resolve},
    confinement::{Enforced, UnixName},
    fence::{
        description::{COMMAND, Description},
        devices::FencedDevice,
        guard::Fence,
        nested,
        registry::{Fences, MOUNTED_BPFFS},
    },
    launch::{
        activation::Activation,
        files::scratch::Scratch,
        front::{self, Front, Side},
        managers::Managers,
        netns::Netns,
        notify::{Manager, Relay},
        signals::Blocked,
    },
    observe::metrics::address::Listener,
    policy::Policy,
    record::guest::Qemu,
    supervise::names::Prepared,
    verify::short::verify_first,
};

/// The parsed options, checked before anything is made.
struct Wanted {
    identity: Option<Identity>,
    /// The managers that are masked; `None` for root, and with `--allow-bus`.
    managers: Option<Managers>,
    confinement: Confinement,
    /// The closures that the programs enforce.
    enforced: Enforced,
    policy: Policy,
    servers: Servers,
    listener: Option<Listener>,
    description: Description,
    logs: Logs,
    guests: Guests,
    netns: Option<Netns>,
    /// With `--keep`: the process that the caller waits for.
    front: Option<Front>,
    /// For systemd, if that is to be notified.
    notifications: Option<(Relay, Manager)>,
    /// The sockets of the resolver, if the policy has rules by name.
    names: Option<Prepared>,
}

/// Runs `exec`; returns the exit status.
///
/// # Errors
/// If anything except the command fails. Then nothing runs.
pub fn run(options: &Exec, paths: &Paths) -> Result<u8> {
    require_root()?;
    inherited::close_all_but(options.preserve_fds)?;
    // For systemd, this process is the command, and with `--keep` the supervisor is another.
    let activation = Activation::new(process::id(), options.preserve_fds, |name| {
        env::var(name).ok()
    });
    // systemd knows this process, also with `--keep`.
    let manager = match Manager::of_environment(getpid()) {
        Ok(manager) => manager,
        Err(error) => {
            notify(format_args!(
                "warning: {error:#}: systemd does not get the notifications of the command"
            ));
            None
        }
    };
    let front = match options.keep {
        false => None,
        true => match front::split(options.preserve_fds)? {
            Side::Front(status) => return Ok(status),
            Side::Supervisor(front) => Some(front),
        },
    };
    descriptors::make_room();
    let netns = options.netns.as_deref().map(Netns::enter).transpose()?;
    let of_netns = netns.as_ref().map(|netns| netns.paths(paths));
    let paths = of_netns.as_ref().unwrap_or(paths);
    nested::refuse(paths)?;
    if options.verify {
        // The signals are not blocked yet, so Ctrl-C ends both.
        let sentence = verify_first()?;
        step(options, sentence);
    }
    let Admitted {
        servers,
        qemu,
        taps,
    } = qemu::admit(options)?;
    let policy = resolve::policy(
        &options.policy,
        options.dns,
        options.monitor,
        &paths.profiles,
    )?;
    let mut identity = identity::resolve(options.user.as_deref(), &Callers::from_env())?;
    let managers = match &mut identity {
        Some(identity) if !identity.uid.is_root() && !options.allow_bus => {
            let allowed = options.confinement.unix_paths();
            let has_names = policy.has_names();
            let managers = Managers::of(identity, &allowed, has_names, &paths.proc)?;
            for group in managers.take_groups(identity) {
                step(
                    options,
                    format_args!(
                        "the command does not get the group {group}, which may use a manager"
                    ),
                );
            }
            Some(managers)
        }
        _ => None,
    };
    let owner = identity.as_ref().map(|identity| identity.uid);
    let guests = Guests::find(options, &taps, owner)?;
    let mut confinement = strict::settle(options, &guests.command, &mut identity)?;
    words::warn_of_sockets(&activation);
    confinement.environment.set_activation(activation);
    let notifications = match manager {
        None => None,
        Some(manager) => {
            let relay = Relay::new(&paths.run, owner)?;
            confinement.environment.set_notify(relay.path().as_os_str());
            let name = UnixName::Path(relay.path().to_owned());
            confinement.grants.connect.insert(name);
            Some((relay, manager))
        }
    };
    let logs = logging::open(&options.log, options.log_format, owner)?;
    let listener = options.metrics.as_ref().map(Listener::bind).transpose()?;
    // Not earlier: opening a log may block forever, and without a command there is no use for the signals.
    let blocked = Blocked::new()?;
    warn(options, identity.as_ref(), paths);
    resolve::warn_of_shadowed(&policy)?;

    let command = options
        .command
        .first()
        .map(Path::new)
        .unwrap_or(Path::new(""));
    let fences = Fences::open(paths)?;
    confinement.open(options, identity.as_ref())?;
    // Not earlier: it stores facts about the kernel in a directory that was checked now.
    let names = names(options, &policy, &guests)?;
    let mut enforced = enforced::work_out(
        &confinement.strict,
        &confinement.grants,
        confinement.scratch.as_ref().map(Scratch::path),
        managers.as_ref(),
        options.allow_unfenced_net,
        paths,
    )?;
    enforced.resolver = names.as_ref().map(Prepared::resolver);
    let beneath = unit::beneath(options, paths, &fences)?;
    let mut description = describe(options, qemu, &enforced, guests.fenced.clone());
    description.beneath = beneath.cgroup;
    let fence = make(options, &fences, command, &description)?;
    if let Some(warning) = beneath.warning {
        notify(warning);
    }
    step(
        options,
        format_args!("made the cgroup {}", fence.cgroup().directory().display()),
    );

    // One thread: the signal mask is that of this thread, and no task takes long.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    let wanted = Wanted {
        identity,
        managers,
        confinement,
        enforced,
        policy,
        servers,
        listener,
        description,
        logs,
        guests,
        netns,
        front,
        notifications,
        names,
    };
    let ended = runtime.block_on(supervise(options, paths, &fence, wanted, blocked));

    let kept = options.keep && ended.is_ok() && fence.is_populated().unwrap_or(true);
    let removed = if kept {
        let name = fence.name().to_owned();
        notify(format_args!(
            "processes remain in the fence {name}; end them with `qfence-user rm {name}`"
        ));
        fence.leave();
        Ok(())
    } else {
        fence.remove()
    };
    if let Err(error) = removed {
        notify(format_args!("error: {error:#}"));
    }
    let (status, audit) = ended?;
    if let Some(audit) = audit {
        logging::say_missing(&audit);
    }
    Ok(status)
}

/// Makes the sockets of the resolver, if the policy has rules by name.
fn names(options: &Exec, policy: &Policy, guests: &Guests) -> Result<Option<Prepared>> {
    if !policy.has_names() {
        ensure!(
            !options.names_private,
            "--names-private has no effect without a rule by name: add one, such as --allow tcp:db.example.org:5432"
        );
        return Ok(None);
    }
    if let Some(device) = guests.fenced.first() {
        bail!(
            "rules by name are not enforced at the network device {}: its guest looks names up by itself, and not by the \
             resolver of the fence. Use QEMU's user network (-nic user) or passt with them, or rules by address",
            device.name
        );
    }
    Prepared::bind(options.names_private).map(Some)
}

/// Clears the leftovers of dead fences, and makes the fence.
fn make(
    options: &Exec,
    fences: &Fences,
    command: &Path,
    description: &Description,
) -> Result<Fence> {
    let registry = fences.lock()?;
    registry.clear(&mut |note| notify(note))?;
    registry.check_devices(&description.devices)?;
    let made = registry.create(
        options.name.as_deref(),
        command,
        &options.limits,
        description,
    )?;
    if made.mounted_bpffs {
        notify(MOUNTED_BPFFS);
    }
    Ok(made.fence)
}

/// The description that `ps` shows and `logs` uses.
fn describe(
    options: &Exec,
    qemu: Option<Qemu>,
    enforced: &Enforced,
    devices: Vec<FencedDevice>,
) -> Description {
    let words = options.command.iter().map(|word| word.as_bytes());
    Description {
        command: printable_words(words, COMMAND),
        supervisor: i32::try_from(process::id()).unwrap_or_default(),
        started: format!("{:.0}", Timestamp::now()),
        qemu,
        strict: options
            .confinement
            .strict()
            .iter()
            .map(|closure| closure.name().to_owned())
            .collect(),
        open: Vec::new(),
        hooks: enforced
            .hooks()
            .into_iter()
            .filter(|hook| hook.row().is_optional)
            .map(|hook| hook.name().to_owned())
            .collect(),
        without: Vec::new(),
        devices,
        wired: None,
        attached: None,
        beneath: None,
    }
}
