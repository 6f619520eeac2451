//! Finds out which helper functions of the kernel the programs may call, by loading a minimal program that calls
//! them. The kernel's feature probes are not reliable for this.

use qfence_common::{Hook, frame::checksum, local_in};

use super::{program_load::Load, syscall::bpf_fd};

/// `BPF_PROG_TYPE_SCHED_CLS`.
const CLASSIFIER: u32 = 3;
/// `BPF_PROG_TYPE_CGROUP_SOCK`, `BPF_PROG_TYPE_CGROUP_DEVICE` and `BPF_PROG_TYPE_CGROUP_SOCK_ADDR`.
const SOCK: u32 = 9;
const DEVICE: u32 = 15;
const SOCK_ADDR: u32 = 18;
/// `BPF_PROG_TYPE_NETFILTER`.
pub(super) const NETFILTER: u32 = 32;
/// `BPF_CGROUP_INET_SOCK_CREATE`.
const SOCK_CREATE: u32 = 2;
/// `BPF_CGROUP_INET4_CONNECT`.
const CONNECT4: u32 = Hook::Connect4.row().attach_type;
/// `BPF_CGROUP_UNIX_CONNECT`.
const CONNECT_UNIX: u32 = Hook::ConnectUnix.row().attach_type;

/// Numbers of helpers, of `enum bpf_func_id`.
const GET_CURRENT_PID_TGID: i32 = 14;
const GET_CURRENT_COMM: i32 = 16;
const GET_CURRENT_TASK: i32 = 35;
const PROBE_READ_KERNEL: i32 = 113;
const SET_RETVAL: i32 = 187;
const SKC_TO_MPTCP_SOCK: i32 = 196;

/// The offset of the socket in `struct bpf_sock_addr`.
const SOCKET_OF_A_CALL: i16 = 64;

/// `BPF_LDX | BPF_MEM` for eight bytes, four, two and one.
const EIGHT: u8 = 0x79;
const FOUR: u8 = 0x61;
const TWO: u8 = 0x69;
const ONE: u8 = 0x71;

/// One instruction: `struct bpf_insn`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Instruction {
    code: u8,
    /// The destination register in the lower half, the source register in the upper.
    registers: u8,
    offset: i16,
    immediate: i32,
}

impl Instruction {
    const EXIT: Self = Self::new(0x95, 0, 0);

    const fn new(code: u8, registers: u8, immediate: i32) -> Self {
        Self {
            code,
            registers,
            offset: 0,
            immediate,
        }
    }

    /// Loads a number into a register.
    const fn set(register: u8, number: i32) -> Self {
        Self::new(0xb7, register, number)
    }

    /// Copies a register into another.
    const fn copy(register: u8, from: u8) -> Self {
        Self::new(0xbf, from << 4 | register, 0)
    }

    /// Copies the frame's address into a register.
    const fn frame(register: u8) -> Self {
        Self::copy(register, 10)
    }

    /// Adds a number to a register.
    const fn add(register: u8, number: i32) -> Self {
        Self::new(0x07, register, number)
    }

    /// Adds another register to a register.
    const fn add_register(register: u8, other: u8) -> Self {
        Self::new(0x0f, other << 4 | register, 0)
    }

    /// Loads eight bytes into a register, from an offset of the address in another register.
    const fn load(register: u8, from: u8, offset: i16) -> Self {
        Self::load_by(EIGHT, register, from, offset)
    }

    /// As above, by an instruction for another number of bytes.
    const fn load_by(code: u8, register: u8, from: u8, offset: i16) -> Self {
        Self {
            offset,
            ..Self::new(code, from << 4 | register, 0)
        }
    }

    /// Calls a helper.
    const fn call(helper: i32) -> Self {
        Self::new(0x85, 0, helper)
    }

    /// Calls a function of the kernel (`BPF_PSEUDO_KFUNC_CALL`), by its number in the kernel's type information.
    const fn call_function(function: i32) -> Self {
        Self::new(0x85, 2 << 4, function)
    }
}

const _: () = assert!(size_of::<Instruction>() == 8);

/// Whether a program can set the error of a refused call (Linux 5.18).
pub(super) fn can_set_retval() -> bool {
    const PROGRAM: [Instruction; 4] = [
        Instruction::set(1, -1),
        Instruction::call(SET_RETVAL),
        Instruction::set(0, 1),
        Instruction::EXIT,
    ];
    takes(SOCK_ADDR, CONNECT4, &PROGRAM)
}

/// Whether programs for devices can ask for the current process (Linux 6.1). The same holds for programs for socket
/// options (`cgroup_current_func_proto` in kernel/bpf/cgroup.c).
pub(super) fn can_name_caller() -> bool {
    const PROGRAM: [Instruction; 7] = [
        Instruction::call(GET_CURRENT_PID_TGID),
        Instruction::frame(1),
        Instruction::add(1, -16),
        Instruction::set(2, 16),
        Instruction::call(GET_CURRENT_COMM),
        Instruction::set(0, 1),
        Instruction::EXIT,
    ];
    takes(DEVICE, 0, &PROGRAM)
}

/// Whether programs for new sockets can read the kernel's memory. They cannot if the kernel is locked down for
/// confidentiality, or without CAP_PERFMON (`bpf_base_func_proto` in kernel/bpf/helpers.c).
pub(super) fn can_read_kernel() -> bool {
    takes(SOCK, SOCK_CREATE, &READ_KERNEL)
}

/// Reads eight bytes of the kernel's memory to the stack, and allows the call.
const READ_KERNEL: [Instruction; 7] = [
    Instruction::frame(1),
    Instruction::add(1, -8),
    Instruction::set(2, 8),
    Instruction::set(3, 0),
    Instruction::call(PROBE_READ_KERNEL),
    Instruction::set(0, 1),
    Instruction::EXIT,
];

/// Whether programs can ask for the MPTCP connection of a socket (Linux 5.19, with CONFIG_MPTCP).
pub(super) fn can_find_mptcp() -> bool {
    const PROGRAM: [Instruction; 4] = [
        Instruction::load(1, 1, SOCKET_OF_A_CALL),
        Instruction::call(SKC_TO_MPTCP_SOCK),
        Instruction::set(0, 1),
        Instruction::EXIT,
    ];
    takes(SOCK_ADDR, CONNECT4, &PROGRAM)
}

/// Whether programs can judge calls on Unix sockets (Linux 6.7), and read the kernel's memory there.
pub(super) fn can_judge_unix() -> bool {
    let program = [&[Instruction::call(GET_CURRENT_TASK)][..], &READ_KERNEL].concat();
    takes(SOCK_ADDR, CONNECT_UNIX, &program)
}

/// Whether programs for frames can call the function of the number `casts`, `bpf_cast_to_kern_ctx` (Linux 6.2), and then read
/// the members at these offsets by loads, as they do: they add a number that the verifier knows to the address. They cannot
/// without a JIT compiler that supports such calls.
pub(super) fn can_cast(offsets: &checksum::Offsets) -> bool {
    let program = || {
        let mut program = vec![Instruction::call_function(offsets.casts.try_into().ok()?)];
        for (code, member) in [
            (EIGHT, offsets.head),
            (EIGHT, offsets.data),
            (TWO, offsets.start),
            (TWO, offsets.offset),
            (ONE, offsets.summed),
        ] {
            program.extend([
                Instruction::set(1, member.try_into().ok()?),
                Instruction::copy(2, 0),
                Instruction::add_register(2, 1),
                Instruction::load_by(code, 1, 2, 0),
            ]);
        }
        program.extend([Instruction::set(0, 0), Instruction::EXIT]);
        Some(program)
    };
    program().is_some_and(|program| takes(CLASSIFIER, 0, &program))
}

/// Whether programs for netfilter can call the function of the number `casts`, `bpf_rdonly_cast` (Linux 6.2), and then read the
/// source of an Ethernet header by loads.
pub(super) fn can_cast_to_ethernet(offsets: &local_in::Offsets) -> bool {
    let program = || {
        Some([
            Instruction::set(1, 0),
            Instruction::set(2, offsets.ethernet.try_into().ok()?),
            Instruction::call_function(offsets.casts.try_into().ok()?),
            Instruction::load_by(FOUR, 1, 0, 6),
            Instruction::load_by(TWO, 1, 0, 10),
            Instruction::set(0, 1),
            Instruction::EXIT,
        ])
    };
    let attach_type = Hook::LocalIn.row().attach_type;
    program().is_some_and(|program| takes(NETFILTER, attach_type, &program))
}

/// Whether there are programs for netfilter (Linux 6.4, `CONFIG_NETFILTER_BPF_LINK`).
pub(super) fn can_judge_packets_of_netfilter() -> bool {
    const PROGRAM: [Instruction; 2] = [Instruction::set(0, 1), Instruction::EXIT];
    takes(NETFILTER, Hook::LocalIn.row().attach_type, &PROGRAM)
}

/// Whether the kernel loads a program. If it loads none at all, loading the real programs will report the reason.
fn takes(kind: u32, attach_type: u32, program: &[Instruction]) -> bool {
    let mut load = Load {
        kind,
        count: u32::try_from(program.len()).unwrap_or_default(),
        instructions: program.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        attach_type,
        ..Load::default()
    };
    bpf_fd(&mut load).is_ok()
}
