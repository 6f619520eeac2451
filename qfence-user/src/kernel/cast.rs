//! Lets the programs for frames call the kernel's function `bpf_cast_to_kern_ctx` (Linux 6.2), after which they read the
//! `sk_buff` by plain loads. aya 0.14 cannot relocate calls of kernel functions. So the object has instructions that call a
//! helper that does not exist, and here they become calls of the function before aya reads the object. Without the function
//! they stay: the verifier never reaches them.

use std::borrow::Cow;

use anyhow::{Context as _, Result, ensure};
use object::{LittleEndian, Object as _, ObjectSection as _, SectionKind, read::elf::ElfFile64};
use qfence_common::frame::checksum::{CAST, Offsets};

use super::helpers;

/// The section that has a byte for each of the instructions (`subject/cast.rs` of qfence-ebpf).
const CASTS: &str = "qfence_casts";

/// `BPF_JMP | BPF_CALL`, and in the upper half of the registers `BPF_PSEUDO_KFUNC_CALL`.
const CALL: u8 = 0x85;
const OF_FUNCTION: u8 = 2 << 4;

/// An object, and the offsets for the global of its programs. Those of a fence with `devices` call the function if the kernel
/// lets programs for frames do so and read all members by loads. It does not without a JIT compiler for such calls, for
/// instance.
///
/// # Errors
/// If the object is not as it was built.
pub(super) fn prepare(
    object: &[u8],
    devices: bool,
    offsets: Offsets,
) -> Result<(Cow<'_, [u8]>, Offsets)> {
    if !devices || offsets.casts == 0 || !helpers::can_cast(&offsets) {
        return Ok((
            object.into(),
            Offsets {
                casts: 0,
                ..offsets
            },
        ));
    }
    let object = calling(object, offsets.casts).context("cannot prepare the eBPF object")?;
    Ok((object.into(), offsets))
}

/// A copy of an object whose programs call the function of this number.
fn calling(object: &[u8], function: u32) -> Result<Vec<u8>> {
    let elf = ElfFile64::<LittleEndian>::parse(object)?;
    let marks = elf
        .section_by_name(CASTS)
        .map_or(0, |section| section.size());
    let placeholder = instruction(0, CAST.to_le_bytes());
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
        "it has {marks} calls of bpf_cast_to_kern_ctx, and {count} were found"
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
        OBJECT, TRACING_OBJECT, device,
        load::try_frames,
        object::{of_hooks, with_programs},
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
        for object in [OBJECT, TRACING_OBJECT] {
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
        let placeholder = instruction(0, CAST.to_le_bytes());
        let mut object = OBJECT.to_vec();
        let first = places(&object, placeholder)[0];
        object[first + 4] ^= 1;
        let error = calling(&object, 1).unwrap_err().to_string();
        assert!(error.ends_with("were found"), "{error}");
        // One without calls, and none at all.
        calling(super::super::LOCAL_IN_OBJECT, 1).unwrap_err();
        calling(&OBJECT[..4096], 1).unwrap_err();
    }

    #[test]
    fn this_kernel_lets_programs_read_by_loads_what_is_in_the_structure() {
        let offsets = try_frames().unwrap();
        assert_ne!(offsets.casts, 0, "Linux 6.2");
        let (object, used) = prepare(OBJECT, true, offsets).unwrap();
        assert!(matches!(object, Cow::Owned(_)));
        assert_eq!(used, offsets);
        for casts in [
            Offsets {
                casts: 0,
                ..offsets
            },
            // Another function, or no function.
            Offsets {
                casts: offsets.casts - 1,
                ..offsets
            },
            Offsets {
                casts: 1,
                ..offsets
            },
            // Beyond the structure.
            Offsets {
                summed: 0x7fff,
                ..offsets
            },
            Offsets {
                data: 0x7ff8,
                ..offsets
            },
            // A part of an address.
            Offsets {
                head: offsets.head + 4,
                ..offsets
            },
        ] {
            let (object, used) = prepare(OBJECT, true, casts).unwrap();
            assert!(
                matches!(object, Cow::Borrowed(bytes) if bytes == OBJECT),
                "{casts:?}"
            );
            assert_eq!(used, Offsets { casts: 0, ..casts });
        }
    }
}
