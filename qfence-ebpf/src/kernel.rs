//! What differs between kernels: offsets in their types, and their own functions. All objects have this.
//!
//! aya 0.14 cannot relocate calls of the kernel's functions. They are instructions that the loader changes (`kernel/cast.rs` of
//! qfence-user).

use core::{mem::MaybeUninit, ptr::from_ref};

use aya_ebpf::Global;

/// Reads one number of a global that the loader sets. The whole global would be a load for each of them.
#[inline(always)]
pub(crate) fn number<T>(of: &Global<T>, select: impl FnOnce(&T) -> &u32) -> u32 {
    // SAFETY: a `Global` is its value alone.
    let all = unsafe { &*from_ref(of).cast::<T>() };
    // SAFETY: a reference. The read is volatile, as that of `Global::load` is, because the loader sets the value.
    unsafe { from_ref(select(all)).read_volatile() }
}

/// Calls the function that the loader puts here, which takes one argument, or two. To be called only if the loader has done
/// so: the verifier rejects a program that can reach such an instruction as it was built.
#[cfg(target_arch = "bpf")]
#[inline(always)]
pub(crate) fn call(first: *const u8, second: MaybeUninit<u64>) -> *const u8 {
    use core::arch::asm;

    use qfence_common::abi::KERNEL_FUNCTION;

    let result;
    // SAFETY: the function takes r1, and r2 if it has a second argument. As every call, it has its result in r0, and leaves
    // nothing in r1 to r5. For each, a byte in a section of its own lets the loader count them.
    unsafe {
        asm!(
            "call {number}",
            ".pushsection qfence_calls,\"\",@progbits",
            ".byte 1",
            ".popsection",
            number = const KERNEL_FUNCTION,
            inlateout("r1") first => _,
            inlateout("r2") second => _,
            lateout("r0") result,
            lateout("r3") _,
            lateout("r4") _,
            lateout("r5") _,
            options(nostack),
        );
    }
    result
}

/// What the call becomes. Lints are for the machine on which they run, which has no such registers.
#[cfg(not(target_arch = "bpf"))]
pub(crate) fn call(first: *const u8, _second: MaybeUninit<u64>) -> *const u8 {
    first
}
