//! The lists of refused system calls.

use nix::libc;

use super::Refused::{self, Bits, Call, First, NoneOf};

/// Calls that do not exist for the command. A filter does not see the flags of clone3(2), which are in memory, nor the
/// operations of a ring, which make sockets and connect them.
pub(super) const ABSENT: &[Refused] = &[
    Call(libc::SYS_clone3),
    Call(libc::SYS_io_uring_setup),
    Call(libc::SYS_io_uring_enter),
    Call(libc::SYS_io_uring_register),
];

/// Calls that many programs try. The keys of the user are outside the fence, and so are devices' events.
pub(super) const REFUSED: &[Refused] = &[
    Call(libc::SYS_add_key),
    Call(libc::SYS_request_key),
    Call(libc::SYS_keyctl),
    First(libc::SYS_socket, NETLINK, 2),
];

/// The families of sockets that the command keeps; of netlink only routes, see [`REFUSED`].
const FAMILIES: &[u64] = &[1, 2, 10, NETLINK];
/// `AF_NETLINK`. Its protocol 0 is `NETLINK_ROUTE`, which libraries use to list addresses.
const NETLINK: u64 = 16;

/// The flags of clone(2) and unshare(2) that make namespaces: mount, cgroup, UTS, IPC, user, process ids, network.
const NAMESPACES: &[u64] = &[
    0x0002_0000,
    0x0200_0000,
    0x0400_0000,
    0x0800_0000,
    0x1000_0000,
    0x2000_0000,
    0x4000_0000,
];
/// The one for time, which is another flag in clone(2).
const TIME_NAMESPACE: &[u64] = &[0x80];

// Calls that libc does not have yet. Their numbers are the same on all architectures. The first two list mounts (Linux 6.8).
const STATMOUNT: i64 = 457;
const LISTMOUNT: i64 = 458;
/// Linux 6.15.
const OPEN_TREE_ATTR: i64 = 467;

/// Calls that no program makes by accident.
pub(super) const REPORTED: &[Refused] = &[
    NoneOf(libc::SYS_socket, 0, FAMILIES),
    NoneOf(libc::SYS_socketpair, 0, FAMILIES),
    Bits(libc::SYS_clone, 0, NAMESPACES),
    Bits(libc::SYS_unshare, 0, NAMESPACES),
    Bits(libc::SYS_unshare, 0, TIME_NAMESPACE),
    Call(libc::SYS_acct),
    Call(libc::SYS_bpf),
    Call(libc::SYS_chroot),
    Call(libc::SYS_delete_module),
    Call(libc::SYS_fanotify_init),
    Call(libc::SYS_finit_module),
    Call(libc::SYS_fsconfig),
    Call(libc::SYS_fsmount),
    Call(libc::SYS_fsopen),
    Call(libc::SYS_fspick),
    Call(libc::SYS_init_module),
    #[cfg(target_arch = "x86_64")]
    Call(libc::SYS_ioperm),
    #[cfg(target_arch = "x86_64")]
    Call(libc::SYS_iopl),
    Call(libc::SYS_kcmp),
    Call(libc::SYS_kexec_file_load),
    Call(libc::SYS_kexec_load),
    Call(LISTMOUNT),
    Call(libc::SYS_mount),
    Call(libc::SYS_mount_setattr),
    Call(libc::SYS_move_mount),
    Call(libc::SYS_move_pages),
    Call(libc::SYS_migrate_pages),
    Call(libc::SYS_open_tree),
    Call(OPEN_TREE_ATTR),
    Call(libc::SYS_perf_event_open),
    Call(libc::SYS_pidfd_getfd),
    Call(libc::SYS_pivot_root),
    Call(libc::SYS_process_madvise),
    Call(libc::SYS_process_vm_readv),
    Call(libc::SYS_process_vm_writev),
    Call(libc::SYS_ptrace),
    Call(libc::SYS_quotactl),
    Call(libc::SYS_quotactl_fd),
    Call(libc::SYS_reboot),
    Call(libc::SYS_setns),
    Call(STATMOUNT),
    Call(libc::SYS_swapoff),
    Call(libc::SYS_swapon),
    Call(libc::SYS_syslog),
    Call(libc::SYS_umount2),
    Call(libc::SYS_userfaultfd),
    Call(libc::SYS_vhangup),
];

/// Calls that change other processes of the user without tracing them, which the Landlock domain does not see. Process 0
/// is the caller itself.
pub(super) const OF_PROCESSES: &[Refused] = &[
    NoneOf(libc::SYS_prlimit64, 0, &[0]),
    NoneOf(libc::SYS_sched_setaffinity, 0, &[0]),
    NoneOf(libc::SYS_sched_setattr, 0, &[0]),
    NoneOf(libc::SYS_sched_setparam, 0, &[0]),
    NoneOf(libc::SYS_sched_setscheduler, 0, &[0]),
    // The first argument is the type of the second: one process (`PRIO_PROCESS`, `IOPRIO_WHO_PROCESS`), a group, a user.
    NoneOf(libc::SYS_setpriority, 0, &[0]),
    NoneOf(libc::SYS_setpriority, 1, &[0]),
    NoneOf(libc::SYS_ioprio_set, 0, &[1]),
    NoneOf(libc::SYS_ioprio_set, 1, &[0]),
];

/// The names of calls, for reports.
const NAMES: &[(i64, &str)] = &[
    (libc::SYS_acct, "acct"),
    (libc::SYS_bpf, "bpf"),
    (libc::SYS_chroot, "chroot"),
    (libc::SYS_clone, "clone with a new namespace"),
    (libc::SYS_delete_module, "delete_module"),
    (libc::SYS_fanotify_init, "fanotify_init"),
    (libc::SYS_finit_module, "finit_module"),
    (libc::SYS_fsconfig, "fsconfig"),
    (libc::SYS_fsmount, "fsmount"),
    (libc::SYS_fsopen, "fsopen"),
    (libc::SYS_fspick, "fspick"),
    (libc::SYS_init_module, "init_module"),
    (libc::SYS_kcmp, "kcmp"),
    (libc::SYS_kexec_file_load, "kexec_file_load"),
    (libc::SYS_kexec_load, "kexec_load"),
    (LISTMOUNT, "listmount"),
    (libc::SYS_migrate_pages, "migrate_pages"),
    (libc::SYS_mount, "mount"),
    (libc::SYS_mount_setattr, "mount_setattr"),
    (libc::SYS_move_mount, "move_mount"),
    (libc::SYS_move_pages, "move_pages"),
    (libc::SYS_open_tree, "open_tree"),
    (OPEN_TREE_ATTR, "open_tree_attr"),
    (libc::SYS_perf_event_open, "perf_event_open"),
    (libc::SYS_pidfd_getfd, "pidfd_getfd"),
    (libc::SYS_pivot_root, "pivot_root"),
    (libc::SYS_process_madvise, "process_madvise"),
    (libc::SYS_process_vm_readv, "process_vm_readv"),
    (libc::SYS_process_vm_writev, "process_vm_writev"),
    (libc::SYS_ptrace, "ptrace"),
    (libc::SYS_quotactl, "quotactl"),
    (libc::SYS_quotactl_fd, "quotactl_fd"),
    (libc::SYS_reboot, "reboot"),
    (libc::SYS_setns, "setns"),
    (STATMOUNT, "statmount"),
    (libc::SYS_swapoff, "swapoff"),
    (libc::SYS_swapon, "swapon"),
    (libc::SYS_syslog, "syslog"),
    (libc::SYS_umount2, "umount"),
    (libc::SYS_unshare, "unshare with a new namespace"),
    (libc::SYS_userfaultfd, "userfaultfd"),
    (libc::SYS_vhangup, "vhangup"),
];

/// A reported call, in words: its name, and of a socket the family.
pub(in crate::launch) fn describe(number: i64, first: u64) -> String {
    let known = NAMES.iter().find(|(known, _)| *known == number);
    match known {
        Some((_, name)) => (*name).to_owned(),
        None if [libc::SYS_socket, libc::SYS_socketpair].contains(&number) => {
            // The kernel reads 32 bits of it. There are fewer than a hundred families.
            let family = (first & 0xffff_ffff).min(u64::from(u8::MAX));
            format!("socket with address family {family}")
        }
        None => format!("system call {number}"),
    }
}
