//! Devices: those that give a guest a network other than QEMU's own sockets, and those that may be opened where a closure
//! refuses all others.

use crate::Halves;

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

/// In the global [`crate::abi::ALLOW_DEVICES`]: all forbidden devices may be opened.
pub const ALLOW_ALL: u32 = 1;

/// As above: [`VHOST_NET`] may be opened. It attaches only to devices whose descriptors the process has.
pub const ALLOW_VHOST_NET: u32 = 2;

/// As above: [`TUN`] and [`VHOST_NET`] may be opened. The frames of their devices leave by a device that is fenced.
pub const ALLOW_TAPS: u32 = 3;

/// Whether a character device must not be opened, if the global has this value.
#[must_use]
#[inline(always)]
pub const fn is_refused(allowed: u32, major: u32, minor: u32) -> bool {
    let is_excepted = match allowed {
        ALLOW_ALL => true,
        ALLOW_VHOST_NET => major == VHOST_NET.major && minor == VHOST_NET.minor,
        ALLOW_TAPS => major == TUN.major && (minor == TUN.minor || minor == VHOST_NET.minor),
        _ => false,
    };
    is_forbidden(major, minor) && !is_excepted
}

/// Whether a character device must not be opened without an exception.
#[must_use]
#[inline(always)]
pub const fn is_forbidden(major: u32, minor: u32) -> bool {
    major == TUN.major
        && (minor == TUN.minor || minor == VHOST_NET.minor || minor == VHOST_VSOCK.minor)
}

/// The number of bits of a minor number in the kernel (MINORBITS, linux/kdev_t.h).
pub const MINOR_BITS: u32 = 20;

/// Whether the kernel gives this major number of character devices to drivers that have none of their own, such as those of
/// macvtap and vhost-vdpa (CHRDEV_MAJOR_DYN_END and its like, linux/fs.h).
#[must_use]
#[inline(always)]
pub const fn is_dynamic(major: u32) -> bool {
    matches!(major, 234..=254 | 384..=511)
}

/// In [`crate::AttemptKey::address`]: the device is a block device.
pub const BLOCK: Halves = Halves { upper: 0, lower: 1 };

/// The types of devices, as `struct bpf_cgroup_dev_ctx` has them (linux/bpf.h).
pub const KIND_BLOCK: u32 = 1;
/// As above.
pub const KIND_CHARACTER: u32 = 2;

/// Read and write access, as `struct bpf_cgroup_dev_ctx` has them (linux/bpf.h). Creating a device node (1) opens
/// nothing.
pub const READ: u32 = 2;
/// As above.
pub const WRITE: u32 = 4;
/// Both.
pub const ACCESSES: u32 = READ | WRITE;

/// In [`DeviceKey::minor`]: every device of the major number.
pub const ANY_MINOR: u32 = u32::MAX;

/// A device that may be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct DeviceKey {
    /// [`KIND_BLOCK`] or [`KIND_CHARACTER`].
    pub kind: u32,
    /// The major number.
    pub major: u32,
    /// The minor number, or [`ANY_MINOR`].
    pub minor: u32,
}

const _: () = assert!(size_of::<DeviceKey>() == 12 && align_of::<DeviceKey>() == 4);

/// Whether an access is among the allowed ones.
#[must_use]
#[inline(always)]
pub const fn may_access(allowed: u32, access: u32) -> bool {
    access & ACCESSES & !allowed == 0
}

// SAFETY: a `repr(C)` struct of integers without padding (asserted above): any bytes are a value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for DeviceKey {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_is_allowed_if_all_of_it_is() {
        for (allowed, access, may) in [
            (READ, READ, true),
            (READ, WRITE, false),
            (READ, ACCESSES, false),
            (ACCESSES, ACCESSES, true),
            (0, 1, true),
            (0, READ, false),
        ] {
            assert_eq!(may_access(allowed, access), may, "{allowed} {access}");
        }
    }

    #[test]
    fn an_exception_is_for_one_device_or_for_all() {
        for device in FORBIDDEN {
            let refused = |allowed| is_refused(allowed, device.major, device.minor);
            assert!(refused(0) && refused(4) && !refused(ALLOW_ALL));
            assert_eq!(refused(ALLOW_TAPS), device == VHOST_VSOCK, "{device:?}");
            assert_eq!(refused(ALLOW_VHOST_NET), device != VHOST_NET, "{device:?}");
        }
        assert!(!is_refused(0, 1, 3));
    }

    #[test]
    fn numbers_of_drivers_of_their_own_are_not_dynamic() {
        let dynamic = [234, 246, 254, 384, 511];
        assert!(dynamic.into_iter().all(is_dynamic));
        // Null, terminals, misc, graphics, and what is between the two ranges.
        let others = [0, 1, 5, 10, 136, 226, 233, 255, 383, 512];
        assert!(!others.into_iter().any(is_dynamic));
    }

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
