//! Opens tap devices for a command that may not open /dev/net/tun itself.

use std::{
    ffi::c_int,
    fs::File,
    io, mem,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::{errno::Errno, libc, unistd::Uid};

/// The device of all tap devices.
const TUN: &str = "/dev/net/tun";

/// The length of the shortest header for offloads (`struct virtio_net_hdr`), which QEMU expects at first.
const SHORT_HEADER: c_int = 10;

/// How a process uses a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// The number of queues.
    pub queues: u16,
    /// Whether frames have a header for offloads.
    pub vnet_hdr: bool,
}

/// Opens an existing device, as QEMU does: one descriptor a queue, each closed on exec. It takes the network namespace of
/// this thread. If there is no such device, the kernel makes one, which ends with the descriptors.
///
/// # Errors
/// The errors of the kernel: EBUSY if a process has it open, EINVAL if it was made for another number of queues.
pub fn open(name: &str, how: Use) -> io::Result<Vec<OwnedFd>> {
    (0..how.queues).map(|_| queue(name, how, 0)).collect()
}

/// Makes a device, which ends with the last of the descriptors. It is down.
///
/// # Errors
/// The errors of the kernel: EBUSY if there is a device of this name.
pub fn make(name: &str, how: Use, owner: Option<Uid>) -> io::Result<Vec<OwnedFd>> {
    let mut queues = vec![queue(name, how, libc::IFF_TUN_EXCL)?];
    if let (Some(owner), [first]) = (owner, &queues[..]) {
        let owner = libc::c_ulong::from(owner.as_raw());
        // SAFETY: the argument is a number.
        let set = unsafe { libc::ioctl(first.as_raw_fd(), libc::TUNSETOWNER, owner) };
        Errno::result(set)?;
    }
    for _ in 1..how.queues {
        queues.push(queue(name, how, 0)?);
    }
    Ok(queues)
}

fn queue(name: &str, how: Use, more: c_int) -> io::Result<OwnedFd> {
    let several = if how.queues > 1 {
        libc::IFF_MULTI_QUEUE
    } else {
        0
    };
    let header = if how.vnet_hdr { libc::IFF_VNET_HDR } else { 0 };
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | several | header | more;
    // SAFETY: a struct of integers, for which zero is a valid value.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(Errno::ENAMETOOLONG.into());
    }
    for (to, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([byte]);
    }
    // The kernel reads the lower half of the flags.
    request.ifr_ifru.ifru_flags = libc::c_short::from_ne_bytes(low_half(flags));
    let file = File::options().read(true).write(true).open(TUN)?;
    // SAFETY: the kernel reads and writes the request, which is alive.
    let set = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    Errno::result(set)?;
    if how.vnet_hdr {
        // An earlier user may have left another length.
        let length = SHORT_HEADER;
        // SAFETY: the kernel reads a number.
        let set =
            unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const length) };
        Errno::result(set)?;
    }
    Ok(file.into())
}

/// The lower two bytes, in native order.
fn low_half(flags: c_int) -> [u8; 2] {
    let [.., a, b] = flags.to_be_bytes();
    u16::from_be_bytes([a, b]).to_ne_bytes()
}
