//! A small assembler of classic BPF for seccomp(2). Blocks are combined, so jump offsets need not be counted by hand.
//!
//! The crate for this purpose kills a process that calls by the numbers of another architecture, and does not support
//! x32.

use nix::libc::sock_filter;

/// Instructions, in their order.
pub(super) type Code = Vec<sock_filter>;

// From linux/bpf_common.h, combined. libc has only the parts, in a type other than that of an instruction.
/// `BPF_LD | BPF_W | BPF_ABS`.
pub(super) const LOAD: u16 = 0x20;
/// `BPF_JMP | BPF_JA`.
pub(super) const JUMP: u16 = 0x05;
/// `BPF_JMP | BPF_JEQ | BPF_K`.
pub(super) const JUMP_IF_EQUAL: u16 = 0x15;
/// `BPF_JMP | BPF_JGE | BPF_K`.
pub(super) const JUMP_IF_AT_LEAST: u16 = 0x35;
/// `BPF_RET | BPF_K`.
pub(super) const RETURN: u16 = 0x06;

/// A word of `struct seccomp_data` (linux/seccomp.h), on a little-endian machine.
#[derive(Clone, Copy, Debug)]
pub(super) enum Word {
    /// The number of the system call.
    Number,
    /// `AUDIT_ARCH_…`: the architecture whose numbers are used.
    Arch,
    /// The low half of an argument, counted from 0. For an `int`, and for every argument of a 32-bit call, the kernel
    /// ignores the upper half of the register.
    Low(u8),
    /// The high half of an argument, counted from 0.
    High(u8),
}

/// A comparison with the loaded word.
#[derive(Clone, Copy, Debug)]
pub(super) enum Test {
    /// The word equals this value.
    Equal(u32),
    /// The word is at least this value.
    AtLeast(u32),
}

/// Loads a word for the tests that follow.
pub(super) fn load(word: Word) -> sock_filter {
    let offset = match word {
        Word::Number => 0,
        Word::Arch => 4,
        Word::Low(argument) => 16 + 8 * u32::from(argument),
        Word::High(argument) => 20 + 8 * u32::from(argument),
    };
    step(LOAD, [0, 0], offset)
}

/// Ends the filter with an action, `SECCOMP_RET_…`.
pub(super) fn end(action: u32) -> sock_filter {
    step(RETURN, [0, 0], action)
}

/// Runs `then`, which must end the filter, if the test is true. Otherwise continues after this code.
pub(super) fn when(test: Test, then: Code) -> Code {
    let (code, operand) = match test {
        Test::Equal(operand) => (JUMP_IF_EQUAL, operand),
        Test::AtLeast(operand) => (JUMP_IF_AT_LEAST, operand),
    };
    // A conditional jump reaches 255 instructions, an unconditional one any distance. The kernel refuses a filter that
    // is too long for that.
    let past = u32::try_from(then.len()).unwrap_or(u32::MAX);
    let head = [step(code, [1, 0], operand), step(JUMP, [0, 0], past)];
    head.into_iter().chain(then).collect()
}

fn step(code: u16, [jt, jf]: [u8; 2], k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

#[cfg(test)]
pub(super) mod evaluate {
    //! Evaluates a filter as the kernel does.

    use super::*;

    /// A system call, as seen by a filter.
    #[derive(Clone, Copy, Debug)]
    pub(in super::super) struct Call {
        /// `AUDIT_ARCH_…`.
        pub(in super::super) arch: u32,
        /// The number of the call.
        pub(in super::super) number: u32,
        /// Its arguments.
        pub(in super::super) arguments: [u64; 6],
    }

    /// Returns the action that the filter ends with.
    pub(in super::super) fn run(code: &[sock_filter], call: &Call) -> u32 {
        let mut data = [call.number, call.arch, 0, 0].to_vec();
        for argument in call.arguments {
            let bytes = argument.to_le_bytes();
            let half = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
            data.extend([half(0), half(4)]);
        }
        let (mut at, mut word) = (0, 0);
        loop {
            let step = code.get(at).expect("a filter ends");
            at += 1;
            match step.code {
                LOAD => word = data[usize::try_from(step.k).unwrap() / 4],
                RETURN => return step.k,
                JUMP => at += usize::try_from(step.k).unwrap(),
                JUMP_IF_EQUAL => at += usize::from(if word == step.k { step.jt } else { step.jf }),
                JUMP_IF_AT_LEAST => {
                    at += usize::from(if word >= step.k { step.jt } else { step.jf });
                }
                other => panic!("no instruction of ours: {other:#x}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::libc;

    use super::*;

    #[test]
    fn the_codes_are_those_of_the_kernel() {
        for (ours, parts) in [
            (LOAD, libc::BPF_LD | libc::BPF_W | libc::BPF_ABS),
            (JUMP, libc::BPF_JMP | libc::BPF_JA),
            (JUMP_IF_EQUAL, libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K),
            (
                JUMP_IF_AT_LEAST,
                libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K,
            ),
            (RETURN, libc::BPF_RET | libc::BPF_K),
        ] {
            assert_eq!(u32::from(ours), parts);
        }
    }

    #[test]
    fn the_words_are_where_the_kernel_has_them() {
        use std::mem::offset_of;
        let at = |word| usize::try_from(load(word).k).unwrap();
        assert_eq!(at(Word::Number), offset_of!(libc::seccomp_data, nr));
        assert_eq!(at(Word::Arch), offset_of!(libc::seccomp_data, arch));
        let arguments = offset_of!(libc::seccomp_data, args);
        assert_eq!(at(Word::Low(0)), arguments);
        assert_eq!(at(Word::High(2)), arguments + 20);
    }

    #[test]
    fn a_block_is_passed_over_whole_whatever_its_length() {
        for length in [1, 255, 256, 1000] {
            let mut code = vec![load(Word::Number)];
            code.extend(when(Test::Equal(7), vec![end(1); length]));
            code.extend(when(Test::AtLeast(9), vec![end(2); length]));
            code.push(end(3));
            let of = |number| {
                let (arch, arguments) = (0, [0; 6]);
                evaluate::run(
                    &code,
                    &evaluate::Call {
                        arch,
                        number,
                        arguments,
                    },
                )
            };
            assert_eq!([of(6), of(7), of(8), of(9), of(10)], [3, 1, 3, 2, 2]);
        }
    }
}
