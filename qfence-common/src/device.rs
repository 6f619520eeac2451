//! Devices that give a guest a network other than QEMU's own sockets.

/// A character device that must not be opened in a fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its usual path.
    pub path: &'static str,
    /// The major number: "misc" devices (Documentation/admin-guide/devices.txt).
    pub major: u32,
    /// The minor number (include/linux/miscdevice.h).
    pub minor: u32,
}

/// Tap and tun devices.
pub const TUN: Device = misc("/dev/net/tun", 200);

/// In-kernel network queues for tap devices.
pub const VHOST_NET: Device = misc("/dev/vhost-net", 238);

/// Sockets between guest and host.
pub const VHOST_VSOCK: Device = misc("/dev/vhost-vsock", 241);

/// All forbidden devices.
pub const FORBIDDEN: [Device; 3] = [TUN, VHOST_NET, VHOST_VSOCK];

const fn misc(path: &'static str, minor: u32) -> Device {
    Device {
        path,
        major: 10,
        minor,
    }
}

/// Whether a character device must not be opened.
#[must_use]
#[inline(always)]
pub const fn is_forbidden(major: u32, minor: u32) -> bool {
    major == TUN.major
        && (minor == TUN.minor || minor == VHOST_NET.minor || minor == VHOST_VSOCK.minor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_listed_is_forbidden_and_nothing_else() {
        for major in 0..20 {
            for minor in 0..=255 {
                let listed = FORBIDDEN
                    .iter()
                    .any(|device| (device.major, device.minor) == (major, minor));
                assert_eq!(is_forbidden(major, minor), listed, "{major}:{minor}");
            }
        }
    }
}
