//! Messages and warnings before the command runs.

use std::{env, fmt::Display};

use anyhow::{Result, bail, ensure};
use clap::ValueEnum as _;
use nix::unistd::{Pid, getsid};

use super::managed::Managed;
use crate::{
    base::{console::notify, identity::Identity, inherited, paths::Paths},
    cli::{Closure, Exec},
    doctor::{classes, finding::Finding},
    fence::cgroup::Cgroup,
    kernel::Lacks,
    launch::{activation::Activation, child::Closures},
};

/// Prints a step, if the user has requested steps.
pub(super) fn step(options: &Exec, message: impl Display) {
    if options.verbose > 0 {
        notify(message);
    }
}

/// Warns of risks before the command starts.
pub(super) fn warn(options: &Exec, identity: Option<&Identity>, paths: &Paths) {
    let is_root = identity.is_none_or(|identity| identity.uid.is_root());
    if is_root {
        notify(
            "warning: the command runs as root, and root can leave its fence; give --user, or call \
             with sudo",
        );
    }
    if options.allow_raw && (is_root || options.allow_new_privs) {
        notify(
            "warning: with --allow-raw, packets that root sends from raw sockets to IPv4 multicast and \
             broadcast addresses reach this host too",
        );
    }
    let Finding { found, fix, .. } = classes::examine(&paths.proc);
    if let Some(fix) = fix {
        notify(format_args!(
            "warning: net_cls or net_prio are {found}; {fix}"
        ));
    }
    if options.monitor {
        notify("warning: with --monitor nothing is refused: the command can reach this host");
    }
    for fd in inherited::internet_sockets(options.preserve_fds) {
        notify(format_args!(
            "warning: descriptor {fd} is an internet socket made outside the fence: it is not fenced"
        ));
    }
}

/// Reports grants that allow nothing as things are.
///
/// # Errors
/// If one is of another kind than its option.
pub(super) fn check_grants(options: &Exec) -> Result<()> {
    for path in options.confinement.unix_paths() {
        let shown = path.display();
        match path.metadata().map(|found| found.is_file()) {
            Ok(true) => bail!(
                "--allow-unix {shown}: it is a file and no socket; --allow-read and --allow-write allow files"
            ),
            Ok(false) => {}
            Err(error) => notify(format_args!(
                "warning: --allow-unix {shown} allows nothing as yet: {error}; a socket is allowed under the name that its \
                 server gives it"
            )),
        }
    }
    for name in options.confinement.environment() {
        if env::var_os(name).is_none() {
            notify(format_args!(
                "warning: --allow-env {name} keeps nothing: the variable is not set here; sudo removes variables \
                 (sudo --preserve-env={name})"
            ));
        }
    }
    Ok(())
}

/// Reports sockets of systemd that the command does not get.
pub(super) fn warn_of_sockets(activation: &Activation) {
    let count = activation.unpassed;
    if count > 0 {
        notify(format_args!(
            "hint: the command does not get the sockets that systemd has passed (LISTEN_FDS={count}), which are not fenced; \
             --preserve-fds {count} passes them on"
        ));
    }
}

/// Warns of kernel features that the programs would use and this kernel lacks.
pub(super) fn warn_of_lacks(options: &Exec, lacks: Lacks) {
    if lacks.netns_maker && !options.allow_foreign_netns {
        notify(
            "this kernel does not show which process made a network namespace (that needs CONFIG_DEBUG_INFO_BTF, and socket \
             programs that may read kernel memory): sockets in other network namespaces are refused; \
             --allow-foreign-netns allows them",
        );
    }
    if lacks.errno {
        notify(
            "this kernel cannot set the error of a refused call (Linux 5.18 can): it is \
             EPERM, \"operation not permitted\"",
        );
    }
}

/// Reports processes that outlive the command, in sessions of their own, before they are ended: daemons.
pub(super) fn report_daemons(cgroup: &Cgroup) {
    let own = getsid(None);
    // 0 is a process of another pid namespace. A process may have ended since.
    let is_daemon =
        |pid: &Pid| pid.as_raw() > 0 && getsid(Some(*pid)).is_ok_and(|session| Ok(session) != own);
    // Errors are reported when the processes are ended.
    let count = cgroup
        .pids()
        .unwrap_or_default()
        .iter()
        .filter(|pid| is_daemon(pid))
        .count();
    if count > 0 {
        notify(format_args!(
            "ends {count} processes that the command left in the background; --keep keeps them"
        ));
    }
}

/// Warns of the ways out that are not closed, or fails if they are required to be.
///
/// # Errors
/// If one of them is required.
pub(super) fn settle_closures(
    options: &Exec,
    closures: &Closures,
    identity: Option<&Identity>,
    managed: &Managed,
) -> Result<()> {
    let lacks_domain = !closures.close_processes() && !options.allow_foreign_netns;
    if !closures.close_processes() {
        let reason = match options.allow_foreign_netns {
            true => "--allow-foreign-netns is given",
            false => NO_DOMAIN,
        };
        require(options, Closure::Processes, reason)?;
        if let Managed::OnlyMasked(other) = managed {
            let reason = format!("{reason}, and programs for Unix sockets cannot be used: {other}");
            require(options, Closure::Managers, &reason)?;
        }
    }
    if matches!(managed, Managed::Open) {
        let reason = match options.allow_bus {
            true => "--allow-bus is given",
            false => "the command runs as root",
        };
        require(options, Closure::Managers, reason)?;
    }
    if lacks_domain && identity.is_some() {
        let more = if managed.names().is_some() {
            ""
        } else {
            "; and it can ask its user's systemd and container engines to run programs outside the fence"
        };
        notify(format_args!(
            "warning: {NO_DOMAIN}: the command can join the namespaces of its user's containers, and reach this host through \
             their networks{more}"
        ));
    }
    Ok(())
}

/// Why processes outside cannot be closed.
const NO_DOMAIN: &str = "this kernel has no Landlock domains for signals (Linux 6.12 has them)";

/// Warns of managers that cannot be masked, or fails if that is required.
///
/// # Errors
/// If it is required.
pub(super) fn settle_managers(options: &Exec, reason: &str) -> Result<()> {
    require(options, Closure::Managers, reason)?;
    notify(format_args!(
        "warning: the command can ask its user's systemd and container engines to run programs outside the fence: their \
         sockets cannot be masked ({reason})"
    ));
    Ok(())
}

/// Fails if an open way out is required to be closed.
fn require(options: &Exec, closure: Closure, reason: &str) -> Result<()> {
    let name = closure.to_possible_value();
    let name = name.as_ref().map_or("", |value| value.get_name());
    ensure!(
        !options.require.contains(&closure),
        "--require {name}: it is not closed for the command: {reason}"
    );
    Ok(())
}

/// The names of the ways out that are open for the command, although they are closed by default where that is possible.
pub(super) fn open(masks_managers: bool, closes_processes: bool, managed: &Managed) -> Vec<String> {
    // Other processes lead around the masks, and not around the programs.
    let is_closed = managed.names().is_some() || (masks_managers && closes_processes);
    let managers = (!is_closed).then_some(Closure::Managers);
    let processes = (!closes_processes).then_some(Closure::Processes);
    let names = managers.into_iter().chain(processes);
    names
        .filter_map(|closure| Some(closure.to_possible_value()?.get_name().to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::manager_names::ManagerNames;

    #[test]
    fn managers_are_closed_by_masks_and_domain_or_by_programs() {
        let judged = Managed::Judged(ManagerNames::default());
        let masked = Managed::OnlyMasked("no such program".into());
        for (masks, domain, managed, wanted) in [
            (true, true, &Managed::Masked, &[][..]),
            (true, false, &masked, &["managers", "processes"]),
            (true, false, &judged, &["processes"]),
            (false, false, &judged, &["processes"]),
            (false, true, &Managed::Open, &["managers"]),
        ] {
            assert_eq!(open(masks, domain, managed), wanted, "{managed:?}");
        }
    }
}
