//! The hook for devices: refuses those that give a guest a network other than QEMU's own sockets.

use aya_ebpf::programs::DeviceContext;
use qfence_common::{Halves, Hook, device::is_forbidden, verdict::DEVICE};

use crate::{
    account::{
        PROCEED,
        record::{Refusal, refuse},
    },
    judge::policy::monitors,
    maps::ALLOW_DEVICES,
    subject::author::Author,
};

// include/uapi/linux/bpf.h: the low half is the type of device, the high half the type of access.
const KIND_MASK: u32 = 0xffff;
const CHARACTER: u32 = 2;
/// Read and write access. Creating a device node (1) gives no access to a network.
const OPEN: u32 = (2 | 4) << 16;

/// Judges access to a device.
#[inline(always)]
pub(crate) fn judge_device(ctx: &DeviceContext) -> i32 {
    // SAFETY: the kernel passes a valid context; the verifier checks each access.
    let access = unsafe { (*ctx.device).access_type };
    // SAFETY: as above.
    let major = unsafe { (*ctx.device).major };
    // SAFETY: as above.
    let minor = unsafe { (*ctx.device).minor };
    let opened = access & KIND_MASK == CHARACTER && access & OPEN != 0;
    if !opened || !is_forbidden(major, minor) || ALLOW_DEVICES.load() != 0 {
        return PROCEED;
    }
    let what = Refusal {
        address: Halves::NONE,
        port: minor,
        protocol: major,
        hook: Hook::Device as u32,
        rule: DEVICE,
        source: Halves::NONE,
        source_port: 0,
    };
    refuse(&what, &Author::current_if_known(), monitors())
}
