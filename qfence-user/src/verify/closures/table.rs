//! The attempts, and the promise of each kind of fence about them.

use nix::errno::Errno;

use super::{
    attempts::{Tried, files, kernel, own, processes, rights, sockets, terminal},
    promise::{Attempt, Mechanism, Promise},
    victims::Victims,
};
use crate::confinement::Closure;

use Closure::{Devices, Files, Listeners, Processes, Rights, Sockets, Syscalls};
use Mechanism::{Domain, Filter, Keyring, Masks, MasksAndDomain};

type Make = fn(&Victims) -> Tried;

const fn attempt(name: &'static str, make: Make, mechanism: Mechanism) -> Attempt {
    Attempt {
        name,
        make,
        default: Promise::Stops,
        strict: Promise::Stops,
        mechanism: Some(mechanism),
        untried: &[],
    }
}

/// Closed by `--strict` only. By default it works, because programs need it.
const fn useful(name: &'static str, make: Make, closure: Closure) -> Attempt {
    Attempt {
        default: Promise::Keeps,
        ..attempt(name, make, Mechanism::Strict(closure))
    }
}

/// Closed by `--strict` only. By default nothing is promised.
const fn open(name: &'static str, make: Make, closure: Closure) -> Attempt {
    Attempt {
        default: Promise::Open,
        ..attempt(name, make, Mechanism::Strict(closure))
    }
}

/// Works in every fence.
const fn kept(name: &'static str, make: Make) -> Attempt {
    Attempt {
        name,
        make,
        default: Promise::Keeps,
        strict: Promise::Keeps,
        mechanism: None,
        untried: &[],
    }
}

/// Where a host has turned a feature off for everybody.
const OFF: &[Errno] = &[Errno::EPERM, Errno::EACCES, Errno::ENOSYS, Errno::ENOSPC];

/// Where a kernel has no such sockets.
const NO_FAMILY: &[Errno] = &[
    Errno::EAFNOSUPPORT,
    Errno::EPERM,
    Errno::ESOCKTNOSUPPORT,
    Errno::EPROTONOSUPPORT,
];

/// All attempts, in the order of the table.
pub const ATTEMPTS: &[Attempt] = &[
    attempt("connect to the user's bus", sockets::user_bus, Masks),
    attempt(
        "the same, by a symbolic link",
        sockets::bus_by_symlink,
        Masks,
    ),
    attempt(
        "the same, by a relative path",
        sockets::bus_by_relative_path,
        Masks,
    ),
    attempt(
        "the same, by /proc/PID/root",
        sockets::bus_by_root,
        MasksAndDomain,
    ),
    attempt(
        "the same, in a user namespace",
        sockets::bus_unmasked,
        Masks,
    )
    .unless(OFF),
    attempt(
        "connect to the user's systemd",
        sockets::private_socket,
        Masks,
    ),
    attempt("connect to the system's bus", sockets::system_bus, Masks),
    attempt("connect to Docker", sockets::engine, Masks),
    useful("connect to the desktop", sockets::desktop, Sockets),
    useful(
        "connect to an abstract name",
        sockets::by_abstract_name,
        Sockets,
    ),
    useful("connect to a socket of packets", sockets::packets, Sockets),
    useful("send a datagram to a path", sockets::datagram, Sockets),
    attempt("trace a process", processes::attach, Domain).unless(OFF),
    attempt("trace it without stopping it", processes::seize, Domain).unless(OFF),
    attempt("read its memory", processes::read_memory, Domain).unless(OFF),
    attempt("write its memory", processes::write_memory, Domain).unless(OFF),
    attempt("open /proc/PID/mem", processes::open_memory, Domain).unless(OFF),
    attempt(
        "read /proc/PID/environ",
        processes::read_environment,
        Domain,
    ),
    attempt("list /proc/PID/root", processes::list_root, Domain),
    attempt("read /proc/PID/fd/0", processes::list_descriptors, Domain),
    attempt("take its descriptor", processes::take_descriptor, Domain).unless(OFF),
    attempt("compare it by kcmp", processes::compare, Domain).unless(OFF),
    attempt("signal it", processes::signal, Domain),
    attempt("signal its process group", processes::signal_group, Domain),
    attempt("signal it by a pidfd", processes::signal_by_pidfd, Domain),
    attempt(
        "signal it as owner of a socket",
        processes::signal_as_owner,
        Domain,
    ),
    open("read its limits", processes::read_limit, Processes),
    open("lower its limits", processes::set_limit, Processes),
    open("lower its priority", processes::set_priority, Processes),
    open("set its processors", processes::set_processors, Processes),
    open(
        "lower its priority for disks",
        processes::set_io_priority,
        Processes,
    ),
    open(
        "make it the first to be ended",
        processes::set_oom_score,
        Files,
    ),
    attempt("type into the terminal", terminal::insert, Filter).unless(&[Errno::EIO]),
    attempt(
        "the same, by high bits",
        terminal::insert_by_high_bits,
        Filter,
    )
    .unless(&[Errno::EIO]),
    // Only virtual consoles have a selection.
    attempt("paste into the terminal", terminal::paste, Filter).unless(&[
        Errno::ENOTTY,
        Errno::EINVAL,
        Errno::EPERM,
    ]),
    attempt(
        "find a key of the caller's session",
        rights::session_key,
        Keyring,
    )
    .unless(OFF),
    useful("read a key of ~/.ssh", files::read_key, Files),
    useful("list the home", files::list_home, Files),
    useful("append to ~/.bashrc", files::append, Files),
    useful("truncate ~/.profile", files::truncate, Files),
    useful("create ~/.ssh/authorized_keys", files::create_key, Files),
    useful("rename ~/.vimrc", files::rename, Files),
    useful("remove ~/.inputrc", files::remove, Files),
    useful("make a link in the home", files::link, Files),
    useful("change the mode of ~/.netrc", files::change_mode, Files),
    useful(
        "change the mode of the home",
        files::change_mode_of_home,
        Files,
    ),
    useful(
        "change the times of ~/.gitconfig",
        files::change_times,
        Files,
    ),
    useful("create a file in /tmp", files::create_in_tmp, Files),
    useful("open a file in /dev/shm", files::open_in_shm, Files).unless(&[Errno::ENOENT]),
    useful("make a terminal", files::new_terminal, Devices),
    open("open /dev/fuse", files::fuse, Devices).unless(&[
        Errno::ENOENT,
        Errno::ENXIO,
        Errno::ENODEV,
        Errno::EPERM,
        Errno::EACCES,
    ]),
    useful("make a user namespace", kernel::user_namespace, Syscalls).unless(OFF),
    useful(
        "the same, by clone3",
        kernel::user_namespace_by_clone3,
        Syscalls,
    )
    .unless(OFF),
    useful("mount in it", kernel::mount_anew, Syscalls).unless(OFF),
    useful(
        "open a file system in it",
        kernel::open_file_system,
        Syscalls,
    )
    .unless(OFF),
    useful("clone mounts in it", kernel::clone_mounts, Syscalls).unless(OFF),
    open("packets of a device in it", sockets::packet, Syscalls).unless(OFF),
    open("a socket to the hypervisor", sockets::vsock, Syscalls).unless(NO_FAMILY),
    open("messages of devices", sockets::device_messages, Syscalls),
    open(
        "a socket of a rare family",
        sockets::any_other_family,
        Syscalls,
    )
    .unless(NO_FAMILY),
    useful("io_uring", kernel::ring, Syscalls).unless(OFF),
    open("an eBPF map", kernel::bpf, Syscalls).unless(OFF),
    open("a performance counter", kernel::perf, Syscalls).unless(&[
        Errno::EPERM,
        Errno::EACCES,
        Errno::ENOSYS,
        Errno::ENOENT,
    ]),
    open("handle own page faults", kernel::page_faults, Syscalls).unless(&[
        Errno::EPERM,
        Errno::ENOSYS,
        Errno::EINVAL,
    ]),
    open(
        "find the keyring of the user",
        kernel::user_keyring,
        Syscalls,
    )
    .unless(OFF),
    open("add a key", kernel::add_key, Syscalls).unless(OFF),
    useful("listen on a port", rights::listen, Listeners),
    useful("receive on a port", rights::receive, Listeners),
    useful(
        "attach the shared memory of a process",
        rights::shared_memory,
        Rights,
    )
    .unless(&[Errno::ENOSYS]),
    useful("read a variable of the caller", rights::secret, Rights),
    useful("request core dumps", rights::core_dump, Rights).unless(&[Errno::EPERM]),
    // What must work.
    open(
        "read /proc/PID/cmdline",
        processes::read_arguments,
        Processes,
    )
    .always_open(),
    open("read the mode of ~/.ssh/id_rsa", files::stat, Files).always_open(),
    useful("trace a child", own::trace_child, Syscalls).unless(OFF),
    kept("signal a child", own::signal_child),
    kept("write a file where that is allowed", own::write_file),
    kept("read a public file", own::read_public),
    kept("read /proc/self/status", own::read_own_status),
    kept("write to /dev/null", own::null_device),
    kept("make a file in memory", own::memory_file),
    kept("make a pair of sockets", own::pair),
    open("connect to an own socket", own::connect_to_own, Sockets).kept_by_default(),
    kept("listen on any port", rights::listen_anywhere),
    kept("listen on an allowed port", rights::listen_where_allowed),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_attempt_is_there_once() {
        let names: BTreeSet<_> = ATTEMPTS.iter().map(|attempt| attempt.name).collect();
        assert_eq!(names.len(), ATTEMPTS.len());
    }

    #[test]
    fn strict_stops_what_is_stopped_by_default() {
        for attempt in ATTEMPTS {
            let (default, strict) = match attempt.mechanism {
                None => (false, false),
                Some(Mechanism::Strict(_)) => (false, true),
                Some(_) => (true, true),
            };
            assert_eq!(attempt.default == Promise::Stops, default, "{attempt:?}");
            assert_eq!(attempt.strict == Promise::Stops, strict, "{attempt:?}");
        }
    }

    #[test]
    fn each_closure_has_an_attempt_that_it_stops() {
        for closure in Closure::ALL {
            let by_it = Some(Mechanism::Strict(closure));
            let mut attempts = ATTEMPTS.iter();
            let found = attempts.any(|attempt| attempt.mechanism == by_it);
            assert!(found, "{closure}");
        }
    }
}
