//! The steps of the child before it executes the command, and the errors of each.

use std::{
    ffi::{OsString, c_long},
    fs::File,
    io,
    os::fd::{AsRawFd, OwnedFd, RawFd},
};

use anyhow::anyhow;
use nix::{
    errno::Errno,
    libc,
    sys::{
        prctl,
        signal::{SigSet, SigmaskHow, sigprocmask},
    },
    unistd::{Gid, Uid, read},
};
use qfence_common::Hook;

use super::{
    Closures, Launch, StartError, apply, capabilities, descriptors, keyring, seccomp, spawn::enter,
};
use crate::{base::inherited, kernel::proof::Proof};

/// The steps of the child. The child reports each step to its parent before it takes it, so the last reported step is
/// the failed one. Otherwise a failed exec could not be distinguished from the other errors.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(super) enum Step {
    EnterCgroup,
    CloseDescriptors,
    AwaitFence,
    ProveConnect4,
    ProveConnect6,
    ProveSendmsg4,
    ProveSendmsg6,
    ProveConnectUnix,
    ProveSendmsgUnix,
    ProveBind4,
    ProveBind6,
    ProveUnixStreamConnect,
    ProveUnixMaySend,
    RestoreLimitsAndSignals,
    TakeRights,
    SetGroups,
    LeaveKeyring,
    SetSecurebits,
    SetUser,
    DropCapabilities,
    SetNoNewPrivs,
    EnterDomain,
    ProveFiles,
    ProveProcesses,
    InstallFilter,
    ProveFilter,
    Report,
    Exec,
}

/// The steps that prove the fence, with the hook of each. The proofs at connect send nothing, so they come first:
/// if the fence does not work, no datagram leaves.
const PROOFS: [(Step, Hook); 10] = [
    (Step::ProveConnect4, Hook::Connect4),
    (Step::ProveConnect6, Hook::Connect6),
    (Step::ProveSendmsg4, Hook::Sendmsg4),
    (Step::ProveSendmsg6, Hook::Sendmsg6),
    (Step::ProveConnectUnix, Hook::ConnectUnix),
    (Step::ProveSendmsgUnix, Hook::SendmsgUnix),
    (Step::ProveBind4, Hook::Bind4),
    (Step::ProveBind6, Hook::Bind6),
    (Step::ProveUnixStreamConnect, Hook::UnixStreamConnect),
    (Step::ProveUnixMaySend, Hook::UnixMaySend),
];

/// A description of each step before exec, in order.
const DEEDS: [&str; Step::Exec as usize] = [
    "enter the cgroup",
    "close the descriptors of the parent",
    "wait for the fence",
    "prove the fence at connect4",
    "prove the fence at connect6",
    "prove the fence at sendmsg4",
    "prove the fence at sendmsg6",
    "prove the fence at connect_unix",
    "prove the fence at sendmsg_unix",
    "prove the fence at bind4",
    "prove the fence at bind6",
    "prove the fence at unix_stream_connect",
    "prove the fence at unix_may_send",
    "restore limits and signals",
    "take away shared memory and core dumps",
    "set the groups",
    "leave the caller's session keyring",
    "clear the securebits that keep capabilities",
    "set the user",
    "drop the capabilities of root",
    "set no_new_privs",
    "enter a Landlock domain",
    "prove that files are closed",
    "prove that other processes are closed",
    "install the system call filter",
    "prove the filter of system calls",
    "install the filter that reports system calls",
];

/// Everything that the child does between fork and exec. The child waits for a byte from `wait`. Of the parent's
/// descriptors it keeps `failure` and the ones that it needs. Uses system calls only.
pub(super) fn before_exec(
    launch: &Launch<'_>,
    progress: OwnedFd,
    wait: OwnedFd,
    failure: RawFd,
) -> anyhow::Result<impl FnMut(Option<&mut File>) -> io::Result<()> + Send + use<>> {
    let identity = launch
        .identity
        .map(|who| (who.uid, who.gid, who.groups.clone()));
    let limits = launch.limits;
    let mask = launch.signal_mask;
    let reignored = launch.reignored;
    let allow_new_privs = launch.allow_new_privs;
    let proof = launch.proof;
    let closures = launch.closures.clone();
    let first_own = inherited::FIRST + RawFd::from(launch.preserve_fds);
    let given: Vec<RawFd> = launch.given.iter().map(AsRawFd::as_raw_fd).collect();
    let needed = closures.as_deref().map(Closures::descriptors);
    let proc = limits.proc()?;
    let mut kept = vec![progress.as_raw_fd(), failure, wait.as_raw_fd()];
    kept.extend(proc.as_ref().map(AsRawFd::as_raw_fd));
    kept.extend(needed.into_iter().flatten().flatten());
    kept.extend(&given);
    kept.sort_unstable();
    Ok(move |procs: Option<&mut File>| {
        let tell = |step: Step| nix::unistd::write(&progress, &[step as u8]);
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
        // First, while this process is still root: the file belongs to root.
        tell(Step::EnterCgroup)?;
        if let Some(procs) = procs {
            enter(procs)?;
        }
        tell(Step::CloseDescriptors)?;
        // The descriptors include the other end of `wait`. With that open, the child would not notice the end of the
        // supervisor.
        descriptors::close_all_but(first_own, &kept)?;
        for fd in &given {
            descriptors::keep(*fd)?;
        }
        tell(Step::AwaitFence)?;
        if read(&wait, &mut [0])? == 0 {
            return Err(Errno::ECANCELED.into());
        }
        if let Some(proof) = proof {
            for (step, hook) in PROOFS.into_iter().filter(|(_, hook)| proof.covers(*hook)) {
                tell(step)?;
                proof.check(hook)?;
            }
        }
        tell(Step::RestoreLimitsAndSignals)?;
        limits.restore(proc.as_ref())?;
        reignored.ignore()?;
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&mask), None)?;
        let close = || match closures.as_deref() {
            Some(closures) => apply::close(closures, &tell),
            None => Ok(()),
        };
        if let Some(closures) = closures.as_deref() {
            apply::take_rights(closures, &tell)?;
        }
        if let Some((uid, gid, groups)) = &identity {
            tell(Step::SetGroups)?;
            set_groups(groups, *gid)?;
            if !uid.is_root() {
                // Not later: the filter may refuse all calls for keys.
                tell(Step::LeaveKeyring)?;
                keyring::leave_to(*uid)?;
            }
        }
        // Needs no_new_privs or root.
        if allow_new_privs {
            close()?;
        }
        if let Some((uid, ..)) = &identity {
            if !uid.is_root() && allow_new_privs {
                // With no_new_privs the process can never become root again, so the securebits have no effect.
                tell(Step::SetSecurebits)?;
                capabilities::lose_with_root()?;
            }
            tell(Step::SetUser)?;
            set_user(*uid)?;
            if !uid.is_root() {
                tell(Step::DropCapabilities)?;
                capabilities::drop_all()?;
                if !capabilities::are_none()? {
                    return Err(Errno::EEXIST.into());
                }
            }
        }
        if !allow_new_privs {
            tell(Step::SetNoNewPrivs)?;
            prctl::set_no_new_privs()?;
            close()?;
        }
        tell(Step::Exec)?;
        Ok(())
    })
}

/// Sets the groups of this process, which has one thread. The C library's function is not used, because it would change
/// the threads of the parent.
fn set_groups(groups: &[Gid], gid: Gid) -> nix::Result<()> {
    let gid = c_long::from(gid.as_raw());
    // SAFETY: the kernel reads this many groups. `Gid` is a transparent wrapper.
    let set = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    Errno::result(set)?;
    // SAFETY: the arguments are numbers.
    Errno::result(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) }).map(drop)
}

/// Sets the user of this process, in the same way.
fn set_user(uid: Uid) -> nix::Result<()> {
    let uid = c_long::from(uid.as_raw());
    // SAFETY: the arguments are numbers.
    Errno::result(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

/// Distinguishes a failed step from a failed exec, by the reported steps.
pub(super) fn explain(
    program: &OsString,
    proof: Option<Proof>,
    error: io::Error,
    steps: &[u8],
) -> StartError {
    let failed = PROOFS
        .into_iter()
        .find(|(step, _)| steps.last() == Some(&(*step as u8)));
    if let (Some(proof), Some((_, hook))) = (proof, failed) {
        return proof.unproven(hook, &error).into();
    }
    // Without any report, not even the first step was taken.
    let last = steps.last().map_or("begin", |step| {
        DEEDS.get(usize::from(*step)).copied().unwrap_or("")
    });
    if !last.is_empty() {
        let mut doing = format!("cannot {last} for the command");
        if error.raw_os_error() == Some(apply::NOT_CLOSED as i32) {
            return StartError::Failed(anyhow!("{doing}: it has no effect here"));
        }
        if steps.last() == Some(&(Step::InstallFilter as u8)) {
            let errno = Errno::from_raw(error.raw_os_error().unwrap_or_default());
            doing = format!("{doing} ({})", seccomp::advice(errno));
        }
        return StartError::Failed(anyhow::Error::new(error).context(doing));
    }
    match error.kind() {
        io::ErrorKind::NotFound => StartError::NotFound(program.clone()),
        _ => StartError::NotExecutable {
            program: program.clone(),
            error,
        },
    }
}
