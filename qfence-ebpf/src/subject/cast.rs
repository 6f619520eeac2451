//! Reads the kernel's `sk_buff` of a frame: by loads where the kernel has `bpf_cast_to_kern_ctx` (Linux 6.2), or else by a
//! helper, which takes some 8 ns a member.

use core::mem::MaybeUninit;

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_probe_read_kernel};
use qfence_common::frame::checksum::{MOST, Offsets};

use crate::{
    kernel::{call, number},
    maps::frame::FRAME_OFFSETS,
};

/// One of the offsets.
#[inline(always)]
pub(crate) fn offset(select: impl FnOnce(&Offsets) -> &u32) -> u32 {
    number(&FRAME_OFFSETS, select)
}

/// Whether the loader has turned the calls in [`Cast`] into calls of the kernel's function. The verifier knows the answer, and
/// removes the other way of reading.
#[inline(always)]
pub(crate) fn can_cast() -> bool {
    offset(|offsets| &offsets.casts) != 0
}

/// A way to read an `sk_buff`.
pub(crate) trait Read {
    /// Reads the member at an offset.
    fn read<T: Copy>(&self, offset: u32) -> Option<T>;
}

/// The kernel's own structure.
pub(crate) struct Cast(*const u8);

impl Cast {
    /// The structure of a frame. Only if [`can_cast`].
    #[inline(always)]
    pub(crate) fn of(skb: *mut __sk_buff) -> Self {
        Self(call(skb.cast_const().cast(), MaybeUninit::uninit()))
    }
}

impl Read for Cast {
    #[inline(always)]
    fn read<T: Copy>(&self, offset: u32) -> Option<T> {
        let member = self.0.wrapping_add(offset as usize).cast::<T>();
        // SAFETY: the verifier checks that the member is within the structure.
        Some(unsafe { member.read_volatile() })
    }
}

/// The address of the structure, which the context is (`bpf_prog_run` in net/core/dev.c).
pub(crate) struct Address(pub(crate) *mut __sk_buff);

impl Read for Address {
    /// The offset is masked, because the verifier requires a bound for numbers that are added to a context.
    #[inline(always)]
    fn read<T: Copy>(&self, offset: u32) -> Option<T> {
        let address = self.0 as u64 + u64::from(offset & MOST);
        // SAFETY: the helper fails for addresses that cannot be read.
        unsafe { bpf_probe_read_kernel(address as *const T) }.ok()
    }
}
