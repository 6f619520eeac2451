//! Lets programs call two functions of the kernel (Linux 6.2), after which they read by plain loads: those for frames
//! `bpf_cast_to_kern_ctx`, for the `sk_buff`, and that of the second layer `bpf_rdonly_cast`, for an Ethernet header.
//!
//! aya 0.14 cannot relocate calls of kernel functions. So the objects have instructions that call a helper that does not exist,
//! and here they become calls of the function before aya reads the object. Without the function they stay: the verifier never
//! reaches them.

use std::borrow::Cow;

use anyhow::{Context as _, Result, ensure};
use object::{LittleEndian, Object as _, ObjectSection as _, SectionKind, read::elf::ElfFile64};
use qfence_common::{
    abi::{KERNEL_FUNCTION, KERNEL_FUNCTION_CALLS},
    frame::checksum,
    local_in,
};

use super::helpers;

/// `BPF_JMP | BPF_CALL`, and in the upper half of the registers `BPF_PSEUDO_KFUNC_CALL`.
const CALL: u8 = 0x85;
const OF_FUNCTION: u8 = 2 << 4;

/// An object, and the offsets for the global of its programs. Those of a fence with `devices` call the function if the kernel
/// lets programs for frames do so and read all members by loads. It does not without a JIT compiler for such calls, for
/// instance.
///
/// # Errors
/// If the object is not as it was built.
pub(super) fn prepare_frames(
    object: &[u8],
    devices: bool,
    offsets: checksum::Offsets,
) -> Result<(Cow<'_, [u8]>, checksum::Offsets)> {
    let can = devices && offsets.casts != 0 && helpers::can_cast(&offsets);
    let casts = if can { offsets.casts } else { 0 };
    let object = prepare(object, casts)?;
    Ok((object, checksum::Offsets { casts, ..offsets }))
}

/// The same for the object of the second layer.
///
/// # Errors
/// As above.
pub(super) fn prepare_local_in(
    object: &[u8],
    offsets: local_in::Offsets,
) -> Result<(Cow<'_, [u8]>, local_in::Offsets)> {
    let can = offsets.casts != 0 && helpers::can_cast_to_ethernet(&offsets);
    let casts = if can { offsets.casts } else { 0 };
    let object = prepare(object, casts)?;
    Ok((object, local_in::Offsets { casts, ..offsets }))
}

/// An object whose programs call the function of this number, or for 0, the object as it is.
fn prepare(object: &[u8], function: u32) -> Result<Cow<'_, [u8]>> {
    match function {
        0 => Ok(object.into()),
        function => calling(object, function).map(Cow::Owned),
    }
}

/// A copy of an object whose programs call the function of this number.
fn calling(object: &[u8], function: u32) -> Result<Vec<u8>> {
    const WHAT: &str = "cannot prepare the eBPF object";
    let elf = ElfFile64::<LittleEndian>::parse(object).context(WHAT)?;
    let marks = elf
        .section_by_name(KERNEL_FUNCTION_CALLS)
        .map_or(0, |section| section.size());
    let placeholder = instruction(0, KERNEL_FUNCTION.to_le_bytes());
    let call = instruction(OF_FUNCTION, function.to_le_bytes());
    let mut bytes = object.to_vec();
    let mut count = 0;
    for section in elf.sections() {
        let (SectionKind::Text, Some((start, size))) = (section.kind(), section.file_range())
        else {
            continue;
        };
        let range = usize::try_from(start)?..usize::try_from(start.saturating_add(size))?;
        let code = bytes.get_mut(range).context("a section is cut off")?;
        let calls = code.as_chunks_mut().0.iter_mut();
        for place in calls.filter(|place| **place == placeholder) {
            *place = call;
            count += 1;
        }
    }
    ensure!(
        count == marks && count != 0,
        "{WHAT}: it has {marks} calls of a kernel function, and {count} were found"
    );
    Ok(bytes)
}

/// An instruction that calls.
const fn instruction(registers: u8, [a, b, c, d]: [u8; 4]) -> [u8; 8] {
    [CALL, registers, 0, 0, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{
        LOCAL_IN_OBJECT, OBJECT, TRACING_OBJECT, device,
        load::try_frames,
        object::{of_hooks, with_programs},
        offsets,
    };

    /// The places of an instruction in an object.
    fn places(object: &[u8], instruction: [u8; 8]) -> Vec<usize> {
        let all = object.windows(8).enumerate();
        all.filter(|(_, bytes)| **bytes == instruction)
            .map(|(at, _)| at)
            .collect()
    }

    #[test]
    fn each_call_becomes_one_of_the_kernels_function_and_nothing_else_changes() {
        let call = [0x85, 0x20, 0, 0, 0x39, 0x30, 0, 0];
        let placeholder = [0x85, 0, 0, 0, 0x61, 0x63, 0x66, 0x71];
        for object in [OBJECT, TRACING_OBJECT, LOCAL_IN_OBJECT] {
            let before = places(object, placeholder);
            assert!(!before.is_empty());
            let mut changed = calling(object, 12345).unwrap();
            assert_eq!(places(&changed, call), before);
            for at in before {
                changed[at..at + 8].copy_from_slice(&placeholder);
            }
            assert!(changed == object);
        }
    }

    #[test]
    fn all_calls_are_in_programs_that_a_fence_with_devices_loads() {
        for object in [OBJECT, TRACING_OBJECT] {
            let pruned = with_programs(object, &of_hooks(&device::HOOKS)).unwrap();
            calling(&pruned, 12345).unwrap();
            // Without these programs, only the functions' calls are found.
            let pruned = with_programs(object, &["judge_connect4"].into()).unwrap();
            let error = calling(&pruned, 12345).unwrap_err().to_string();
            assert!(error.ends_with("were found"), "{error}");
        }
    }

    #[test]
    fn an_object_with_other_calls_than_it_says_is_an_error() {
        let placeholder = instruction(0, KERNEL_FUNCTION.to_le_bytes());
        let mut object = OBJECT.to_vec();
        let first = places(&object, placeholder)[0];
        object[first + 4] ^= 1;
        let error = calling(&object, 1).unwrap_err().to_string();
        assert!(error.ends_with("were found"), "{error}");
        calling(&OBJECT[..4096], 1).unwrap_err();
        // One without calls.
        let mut none = LOCAL_IN_OBJECT.to_vec();
        for at in places(LOCAL_IN_OBJECT, placeholder) {
            none[at] = 0xb7;
        }
        let name = KERNEL_FUNCTION_CALLS.as_bytes();
        let names = none.windows(name.len()).position(|bytes| bytes == name);
        none[names.unwrap()] ^= 1;
        let error = calling(&none, 1).unwrap_err().to_string();
        assert!(error.contains("has 0 calls"), "{error}");
    }

    #[test]
    fn this_kernel_lets_programs_read_by_loads_what_is_in_the_structure() {
        let offsets = try_frames().unwrap();
        assert_ne!(offsets.casts, 0, "Linux 6.2");
        let (object, used) = prepare_frames(OBJECT, true, offsets).unwrap();
        assert!(matches!(object, Cow::Owned(_)));
        assert_eq!(used, offsets);
        for casts in [
            checksum::Offsets {
                casts: 0,
                ..offsets
            },
            // Another function, or no function.
            checksum::Offsets {
                casts: offsets.casts - 1,
                ..offsets
            },
            checksum::Offsets {
                casts: 1,
                ..offsets
            },
            // Beyond the structure.
            checksum::Offsets {
                summed: 0x7fff,
                ..offsets
            },
            checksum::Offsets {
                data: 0x7ff8,
                ..offsets
            },
            // A part of an address.
            checksum::Offsets {
                head: offsets.head + 4,
                ..offsets
            },
        ] {
            let (object, used) = prepare_frames(OBJECT, true, casts).unwrap();
            assert!(
                matches!(object, Cow::Borrowed(bytes) if bytes == OBJECT),
                "{casts:?}"
            );
            assert_eq!(used, checksum::Offsets { casts: 0, ..casts });
        }
    }

    #[test]
    fn this_kernel_lets_the_second_layer_read_an_ethernet_header_by_loads() {
        let offsets = offsets::read_anew().unwrap().local_in.unwrap();
        assert_ne!(offsets.casts, 0, "Linux 6.2");
        let (object, used) = prepare_local_in(LOCAL_IN_OBJECT, offsets).unwrap();
        assert!(matches!(object, Cow::Owned(_)));
        assert_eq!(used, offsets);
        for (casts, ethernet) in [
            (0, offsets.ethernet),
            // Another function, a type that is no struct, and none.
            (offsets.casts - 1, offsets.ethernet),
            (offsets.casts, 1),
            (offsets.casts, 0x7fff_ffff),
        ] {
            let others = local_in::Offsets {
                casts,
                ethernet,
                ..offsets
            };
            let (object, used) = prepare_local_in(LOCAL_IN_OBJECT, others).unwrap();
            assert!(
                matches!(object, Cow::Borrowed(bytes) if bytes == LOCAL_IN_OBJECT),
                "{others:?}"
            );
            let casts = 0;
            assert_eq!(used, local_in::Offsets { casts, ..others });
        }
    }
}
