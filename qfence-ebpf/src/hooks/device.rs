//! The hook for devices: refuses those that give a guest a network other than QEMU's own sockets, and with the closure of
//! devices all that the command may not open.

use aya_ebpf::programs::DeviceContext;
use qfence_common::{
    Halves, Hook,
    device::{
        ACCESSES, ANY_MINOR, BLOCK, DeviceKey, KIND_BLOCK, KIND_CHARACTER, is_refused, may_access,
    },
    verdict::DEVICE,
};

use crate::{
    account::{
        PROCEED,
        record::{Refusal, refuse},
    },
    judge::policy::monitors,
    maps::{ALLOW_DEVICES, CLOSES_DEVICES, DEVICES},
    subject::author::Author,
};

// include/uapi/linux/bpf.h: the low half is the type of device, the high half the type of access.
const KIND_MASK: u32 = 0xffff;

/// Judges access to a device. Creating a device node gives no access to it.
#[inline(always)]
pub(crate) fn judge_device(ctx: &DeviceContext) -> i32 {
    // SAFETY: the kernel passes a valid context; the verifier checks each access.
    let access_type = unsafe { (*ctx.device).access_type };
    // SAFETY: as above.
    let major = unsafe { (*ctx.device).major };
    // SAFETY: as above.
    let minor = unsafe { (*ctx.device).minor };
    let (kind, access) = (access_type & KIND_MASK, access_type >> 16 & ACCESSES);
    let is_network = kind == KIND_CHARACTER && is_refused(ALLOW_DEVICES.load(), major, minor);
    // Monitor mode does not concern the closure.
    let is_closed = CLOSES_DEVICES.load() != 0 && !is_listed(kind, major, minor, access);
    if access == 0 || !is_closed && !is_network {
        return PROCEED;
    }
    let what = Refusal {
        address: if kind == KIND_BLOCK {
            BLOCK
        } else {
            Halves::NONE
        },
        port: minor,
        protocol: major,
        hook: Hook::Device as u32,
        rule: DEVICE,
        source: Halves::NONE,
        source_port: 0,
    };
    refuse(&what, &Author::current_if_known(), !is_closed && monitors())
}

/// Whether a device is among those that the command may open in this way.
#[inline(always)]
fn is_listed(kind: u32, major: u32, minor: u32, access: u32) -> bool {
    let may = |minor| {
        let device = DeviceKey { kind, major, minor };
        // SAFETY: nothing changes the map while programs are attached.
        unsafe { DEVICES.get(device) }.is_some_and(|allowed| may_access(*allowed, access))
    };
    may(minor) || may(ANY_MINOR)
}
