//! System calls of the attempts that no library has, or none without further features. This file alone has unsafe code.

use std::{
    ffi::{CStr, c_int, c_long, c_ulong},
    os::fd::{FromRawFd as _, OwnedFd, RawFd},
    ptr,
};

use nix::{
    errno::Errno,
    libc,
    sys::signal::{SigHandler, Signal, signal},
    unistd::ForkResult,
};

/// Numbers of keyctl(2), from linux/keyctl.h.
const KEYCTL_GET_KEYRING_ID: c_long = 0;
const KEYCTL_JOIN_SESSION_KEYRING: c_long = 1;
const KEYCTL_SEARCH: c_long = 10;
const SESSION_KEYRING: c_long = -3;
const USER_KEYRING: c_long = -4;

/// The description of the key that [`make_session_key`] makes.
const KEY: &CStr = c"qfence:closures";

/// Makes a system call whose arguments are numbers, or null in place of pointers.
pub(super) fn numbers(call: c_long, arguments: [c_long; 5]) -> nix::Result<c_long> {
    let [a, b, c, d, e] = arguments;
    // SAFETY: no argument is the address of memory. The callers pass calls that change no memory of this process.
    Errno::result(unsafe { libc::syscall(call, a, b, c, d, e) })
}

/// Makes a system call that returns a descriptor; its arguments are numbers.
pub(super) fn descriptor(call: c_long, arguments: [c_long; 5]) -> nix::Result<OwnedFd> {
    let made = RawFd::try_from(numbers(call, arguments)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor, and nothing else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(made) })
}

/// Stops ignoring SIGCHLD, which a caller may have had ignored: the kernel would discard the exit status of children.
pub(in super::super) fn heed_children() -> nix::Result<()> {
    // SAFETY: the default action of SIGCHLD installs no handler and does not end the process.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }.map(drop)
}

/// Makes a new process. Until the child ends, it must not return from the function that has called this.
pub(super) fn fork() -> nix::Result<ForkResult> {
    // SAFETY: this process has one thread, so the child may do anything.
    unsafe { nix::unistd::fork() }
}

/// Makes a new process in a new user namespace by clone3(2), and waits for its end.
pub(super) fn clone3_user() -> nix::Result<()> {
    /// The first version of `clone_args` of linux/sched.h.
    #[repr(C)]
    struct Arguments {
        flags: u64,
        pidfd: u64,
        child_tid: u64,
        parent_tid: u64,
        exit_signal: u64,
        stack: u64,
        stack_size: u64,
        tls: u64,
    }
    let arguments = Arguments {
        flags: u64::from(libc::CLONE_NEWUSER.cast_unsigned()),
        pidfd: 0,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: u64::from(libc::SIGCHLD.cast_unsigned()),
        stack: 0,
        stack_size: 0,
        tls: 0,
    };
    // SAFETY: the structure lives during the call. Without CLONE_VM the child has a copy of the memory.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw const arguments,
            size_of::<Arguments>(),
        )
    };
    if pid == 0 {
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(0) };
    }
    let pid = Errno::result(pid)?;
    let pid = i32::try_from(pid).map_err(|_| Errno::ESRCH)?;
    nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None).map(drop)
}

/// ioctl(2) with a request and a byte. The C library passes on all bits of the request.
pub(super) fn ioctl(descriptor: RawFd, request: u64, byte: u8) -> nix::Result<()> {
    let request = c_ulong::from(request);
    // SAFETY: the requests of the callers read at most this byte.
    let done = unsafe { libc::syscall(libc::SYS_ioctl, descriptor, request, &raw const byte) };
    Errno::result(done).map(drop)
}

/// Opens a file system by fsopen(2).
pub(super) fn fsopen(name: &CStr) -> nix::Result<()> {
    // SAFETY: the name is a zero-terminated string that lives during the call.
    let opened = unsafe { libc::syscall(libc::SYS_fsopen, name.as_ptr(), 0) };
    Errno::result(opened).map(drop)
}

/// Clones the tree of mounts by open_tree(2).
pub(super) fn clone_tree(path: &CStr) -> nix::Result<()> {
    let flags = libc::OPEN_TREE_CLONE;
    // SAFETY: the path is a zero-terminated string that lives during the call.
    let opened =
        unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
    Errno::result(opened).map(drop)
}

/// Makes an eBPF array.
pub(super) fn bpf_array() -> nix::Result<()> {
    /// `BPF_MAP_CREATE` and `BPF_MAP_TYPE_ARRAY` of linux/bpf.h.
    const MAP_CREATE: c_int = 0;
    const ARRAY: u32 = 2;
    // Type, sizes of key and value, entries.
    let attributes: [u32; 4] = [ARRAY, 4, 4, 1];
    // SAFETY: the attributes live during the call, and the size is theirs.
    let made = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            MAP_CREATE,
            attributes.as_ptr(),
            size_of_val(&attributes),
        )
    };
    Errno::result(made).map(drop)
}

/// Counts an event of this process by perf_event_open(2): a software clock, without the kernel's part.
pub(super) fn perf_event() -> nix::Result<()> {
    /// The size of the first version of `perf_event_attr` of linux/perf_event.h, in words.
    const WORDS: usize = 8;
    let mut attributes = [0_u64; WORDS];
    // Type PERF_TYPE_SOFTWARE, and the size in the upper half.
    attributes[0] = 1 | (8 * WORDS as u64) << 32;
    // The bits disabled, exclude_kernel and exclude_hv.
    attributes[5] = 1 | 1 << 5 | 1 << 6;
    // SAFETY: the attributes live during the call, and contain their size.
    let opened =
        unsafe { libc::syscall(libc::SYS_perf_event_open, attributes.as_ptr(), 0, -1, -1, 0) };
    Errno::result(opened).map(drop)
}

/// Makes System V shared memory, which the kernel removes when the last process has detached it; returns its id.
pub(in super::super) fn make_shared_memory() -> nix::Result<i32> {
    // SAFETY: the arguments are numbers.
    let id =
        Errno::result(unsafe { libc::shmget(libc::IPC_PRIVATE, 4096, libc::IPC_CREAT | 0o600) })?;
    let attached = attach_shared_memory(id);
    // SAFETY: a null pointer is allowed for this command.
    unsafe { libc::shmctl(id, libc::IPC_RMID, ptr::null_mut()) };
    attached.map(|()| id)
}

/// Attaches System V shared memory for good.
pub(super) fn attach_shared_memory(id: i32) -> nix::Result<()> {
    // SAFETY: the kernel chooses an address where nothing is.
    let address = unsafe { libc::shmat(id, ptr::null(), 0) };
    // The address of an error is -1.
    if address.addr() == usize::MAX {
        return Err(Errno::last());
    }
    Ok(())
}

/// Gives this thread a session keyring with a key.
pub(in super::super) fn make_session_key() -> nix::Result<()> {
    numbers(libc::SYS_keyctl, [KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0])?;
    add_key(SESSION_KEYRING)
}

/// Searches that key.
pub(super) fn find_session_key() -> nix::Result<()> {
    // SAFETY: the pointers are to zero-terminated strings; the rest are numbers.
    let found = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_SEARCH,
            SESSION_KEYRING,
            c"user".as_ptr(),
            KEY.as_ptr(),
            0,
        )
    };
    Errno::result(found).map(drop)
}

/// Finds the keyring that all processes of the user share.
pub(super) fn user_keyring() -> nix::Result<()> {
    numbers(
        libc::SYS_keyctl,
        [KEYCTL_GET_KEYRING_ID, USER_KEYRING, 1, 0, 0],
    )
    .map(drop)
}

/// Adds a key to the keyring of this process, with which it ends.
pub(super) fn process_key() -> nix::Result<()> {
    const PROCESS_KEYRING: c_long = -2;
    add_key(PROCESS_KEYRING)
}

fn add_key(keyring: c_long) -> nix::Result<()> {
    // SAFETY: the pointers are to zero-terminated strings, and the length is that of the third.
    let added = unsafe {
        libc::syscall(
            libc::SYS_add_key,
            c"user".as_ptr(),
            KEY.as_ptr(),
            c"x".as_ptr(),
            1,
            keyring,
        )
    };
    Errno::result(added).map(drop)
}
