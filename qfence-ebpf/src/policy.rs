//! Asks the policy in force.

use qfence_common::{Address, Nodes as _, Path, Protocol, Query, Verdict, decide, tree::FLAGS};

use crate::maps::POLICY;

/// The policy's verdict on a destination.
#[inline(always)]
pub(crate) fn verdict(path: Path, address: Address, protocol: Protocol, port: u16) -> Verdict {
    let query = Query::of_halves(path, halves(address), protocol, port);
    let Query {
        root,
        upper,
        lower,
        port,
    } = query;
    Verdict::from_bits(qfence_verdict(root, upper, lower, port))
}

/// A verdict with the flags that all of the policy have; without a policy it has none.
#[inline(always)]
pub(crate) fn flags() -> Verdict {
    POLICY
        .get(0)
        .and_then(|tree| tree.read(FLAGS))
        .and_then(|node| node.verdict())
        .unwrap_or(Verdict::NONE)
}

/// The bits of the policy's verdict on a query. No policy in the slot denies.
///
/// Global, which for the verifier means: looked at once for each program, by itself, and not along every
/// way that leads here and on from here (`do_check_subprogs` in kernel/bpf/verifier.c). That takes
/// numbers alone as arguments (before Linux 5.12).
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_verdict(root: u32, upper: u64, lower: u64, port: u32) -> u32 {
    match POLICY.get(0) {
        Some(tree) => {
            let query = Query {
                root,
                upper,
                lower,
                port,
            };
            decide(tree, &query).bits()
        }
        None => Verdict::NONE.bits(),
    }
}

/// The two halves of an address, as numbers.
#[inline(always)]
fn halves(address: Address) -> [u64; 2] {
    #[repr(align(8))]
    struct Aligned(Address);

    let aligned = Aligned(address);
    // SAFETY: two words, aligned, of initialised memory. Volatile, or LLVM makes them out of single bytes
    // in registers, and does so before it is known that there is an address: the verifier finds
    // registers that nothing was written to ("R9 !read_ok").
    let [upper, lower] = unsafe {
        core::ptr::from_ref(&aligned.0)
            .cast::<[u64; 2]>()
            .read_volatile()
    };
    [u64::from_be(upper), u64::from_be(lower)]
}
