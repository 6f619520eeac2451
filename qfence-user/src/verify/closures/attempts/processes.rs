//! Attempts on other processes of the user.

use std::{
    fs::{self, File},
    io::{IoSlice, IoSliceMut},
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    libc::{self, c_long},
    sched::{sched_getaffinity, sched_setaffinity},
    sys::{
        signal::kill,
        socket::{AddressFamily, SockFlag, SockType, socketpair},
        uio::{RemoteIoVec, process_vm_readv, process_vm_writev},
        wait::waitpid,
    },
    unistd::{Pid, write},
};
use rustix::process::{
    PidfdFlags, PidfdGetfdFlags, Resource, Rlimit, Signal, pidfd_getfd, pidfd_open,
    pidfd_send_signal, prlimit, setpriority_process,
};

use super::{Tried, errno_of, raw, tried};
use crate::verify::closures::victims::{BLOCKED, Victims};

/// Requests of ptrace(2), from linux/ptrace.h.
const PTRACE_ATTACH: c_long = 16;
const PTRACE_DETACH: c_long = 17;
const PTRACE_SEIZE: c_long = 0x4206;

fn ptrace(request: c_long, pid: i32) -> Tried {
    raw::numbers(libc::SYS_ptrace, [request, pid.into(), 0, 0, 0]).map(drop)
}

/// Attaches to a process, and detaches again.
pub(crate) fn attach(victims: &Victims) -> Tried {
    attach_to(victims.pid)
}

/// Attaches to this process, and detaches again.
pub(super) fn attach_to(pid: i32) -> Tried {
    ptrace(PTRACE_ATTACH, pid)?;
    waitpid(Pid::from_raw(pid), None)?;
    ptrace(PTRACE_DETACH, pid)
}

/// Attaches to a process without stopping it. The kernel detaches when this process ends.
pub(crate) fn seize(victims: &Victims) -> Tried {
    ptrace(PTRACE_SEIZE, victims.pid)
}

fn remote(victims: &Victims) -> [RemoteIoVec; 1] {
    [RemoteIoVec {
        base: victims.address,
        len: 8,
    }]
}

pub(crate) fn read_memory(victims: &Victims) -> Tried {
    let mut bytes = [0; 8];
    let mut local = [IoSliceMut::new(&mut bytes)];
    let pid = Pid::from_raw(victims.pid);
    process_vm_readv(pid, &mut local, &remote(victims)).map(drop)
}

pub(crate) fn write_memory(victims: &Victims) -> Tried {
    let local = [IoSlice::new(&[1; 8])];
    let pid = Pid::from_raw(victims.pid);
    process_vm_writev(pid, &local, &remote(victims)).map(drop)
}

pub(crate) fn open_memory(victims: &Victims) -> Tried {
    let path = format!("/proc/{}/mem", victims.pid);
    tried(File::options().read(true).write(true).open(path))
}

pub(crate) fn read_environment(victims: &Victims) -> Tried {
    tried(fs::read(format!("/proc/{}/environ", victims.pid)))
}

pub(crate) fn list_root(victims: &Victims) -> Tried {
    tried(fs::read_dir(format!("/proc/{}/root/", victims.pid)))
}

pub(crate) fn list_descriptors(victims: &Victims) -> Tried {
    tried(fs::read_link(format!("/proc/{}/fd/0", victims.pid)))
}

pub(crate) fn read_arguments(victims: &Victims) -> Tried {
    tried(fs::read(format!("/proc/{}/cmdline", victims.pid)))
}

pub(crate) fn compare(victims: &Victims) -> Tried {
    // KCMP_VM of linux/kcmp.h.
    let own = std::process::id().into();
    raw::numbers(libc::SYS_kcmp, [own, victims.pid.into(), 1, 0, 0]).map(drop)
}

fn pidfd(victims: &Victims) -> nix::Result<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(victims.pid).ok_or(Errno::ESRCH)?;
    pidfd_open(pid, PidfdFlags::empty()).map_err(errno)
}

fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}

pub(crate) fn take_descriptor(victims: &Victims) -> Tried {
    let taken = pidfd_getfd(pidfd(victims)?, 0, PidfdGetfdFlags::empty());
    taken.map(drop).map_err(errno)
}

/// Asks whether a signal could be sent.
pub(crate) fn signal(victims: &Victims) -> Tried {
    kill(Pid::from_raw(victims.pid), None)
}

pub(crate) fn signal_group(victims: &Victims) -> Tried {
    kill(Pid::from_raw(-victims.pid), None)
}

/// Sends a signal that is ignored unless a process handles it.
pub(crate) fn signal_by_pidfd(victims: &Victims) -> Tried {
    pidfd_send_signal(pidfd(victims)?, Signal::WINCH).map_err(errno)
}

/// Makes the kernel send a signal: the process owns a socket, which becomes readable.
pub(crate) fn signal_as_owner(victims: &Victims) -> Tried {
    let (ours, other) = socketpair(
        AddressFamily::Unix,
        SockType::Stream,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?;
    let set = |command: i32, value: i32| {
        let descriptor = ours.as_raw_fd().into();
        let arguments = [descriptor, command.into(), value.into(), 0, 0];
        raw::numbers(libc::SYS_fcntl, arguments).map(drop)
    };
    // F_SETSIG of asm-generic/fcntl.h.
    set(10, BLOCKED as i32)?;
    set(libc::F_SETOWN, victims.pid)?;
    fcntl(ours.as_fd(), FcntlArg::F_SETFL(OFlag::O_ASYNC))?;
    write(&other, b"x")?;
    // The signal is sent within write(2). The pause is for kernels that change that.
    thread::sleep(Duration::from_millis(20));
    let status = fs::read_to_string(format!("/proc/{}/status", victims.pid)).map_err(errno_of)?;
    let pending = status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("ShdPnd:")?.trim(), 16).ok());
    let bit = 1 << (BLOCKED as i32 - 1);
    match pending {
        Some(pending) if pending & bit != 0 => Ok(()),
        // The kernel drops the signal silently.
        Some(_) => Err(Errno::EPERM),
        None => Err(Errno::UnknownErrno),
    }
}

pub(crate) fn read_limit(victims: &Victims) -> Tried {
    let resource = c_long::from(libc::RLIMIT_NOFILE.cast_signed());
    raw::numbers(libc::SYS_prlimit64, [victims.pid.into(), resource, 0, 0, 0]).map(drop)
}

pub(crate) fn set_limit(victims: &Victims) -> Tried {
    let pid = rustix::process::Pid::from_raw(victims.pid);
    let limit = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    prlimit(pid, Resource::Core, limit).map(drop).map_err(errno)
}

pub(crate) fn set_priority(victims: &Victims) -> Tried {
    let pid = rustix::process::Pid::from_raw(victims.pid);
    setpriority_process(pid, 19).map_err(errno)
}

pub(crate) fn set_processors(victims: &Victims) -> Tried {
    let pid = Pid::from_raw(victims.pid);
    sched_setaffinity(pid, &sched_getaffinity(pid)?)
}

pub(crate) fn set_io_priority(victims: &Victims) -> Tried {
    // IOPRIO_WHO_PROCESS, and the lowest priority of IOPRIO_CLASS_BE, of linux/ioprio.h.
    let arguments = [1, victims.pid.into(), 2 << 13 | 7, 0, 0];
    raw::numbers(libc::SYS_ioprio_set, arguments).map(drop)
}

/// Makes the kernel prefer to end the process when memory is short.
pub(crate) fn set_oom_score(victims: &Victims) -> Tried {
    tried(fs::write(
        format!("/proc/{}/oom_score_adj", victims.pid),
        "1000",
    ))
}
