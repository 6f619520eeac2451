use super::{
    super::{bpf::evaluate::Call, calls::HERE},
    *,
};

fn all() -> Refusals {
    Refusals::new(&Strict::of(&Closure::ALL)).unwrap()
}

/// Evaluates a filter of the crate, which uses more instructions than ours.
fn run(program: &BpfProgram, call: &Call) -> u32 {
    let mut data = [call.number, call.arch, 0, 0].to_vec();
    for argument in call.arguments {
        let bytes = argument.to_le_bytes();
        data.extend([0, 4].map(|at| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())));
    }
    let (mut at, mut word) = (0, 0);
    loop {
        let step = &program[at];
        at += 1;
        let jump = |is_true| usize::from(if is_true { step.jt } else { step.jf });
        match step.code {
            0x20 => word = data[usize::try_from(step.k).unwrap() / 4],
            0x54 => word &= step.k,
            0x06 => return step.k,
            0x05 => at += usize::try_from(step.k).unwrap(),
            0x15 => at += jump(word == step.k),
            0x25 => at += jump(word > step.k),
            0x35 => at += jump(word >= step.k),
            other => panic!("unknown instruction {other:#x}"),
        }
    }
}

/// The answer of all filters together: the strictest one.
fn answer(number: i64, arguments: [u64; 3]) -> u32 {
    let [a, b, c] = arguments;
    let call = Call {
        arch: HERE[0].arch,
        number: u32::try_from(number).unwrap(),
        arguments: [a, b, c, 0, 0, 0],
    };
    let Refusals { answered, reported } = all();
    let all = answered.iter().chain(&reported);
    // The smaller action value is the stricter one, of those that occur here.
    all.map(|program| run(program, &call)).min().unwrap()
}

const EPERM: u32 = libc::SECCOMP_RET_ERRNO | 1;
const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | 38;

#[test]
fn each_kind_of_call_has_its_answer() {
    for (number, arguments, expected) in [
        (libc::SYS_clone3, [0; 3], ENOSYS),
        (libc::SYS_io_uring_setup, [4, 0, 0], ENOSYS),
        (libc::SYS_keyctl, [0; 3], EPERM),
        (libc::SYS_ptrace, [16, 1, 0], libc::SECCOMP_RET_USER_NOTIF),
        (libc::SYS_mount, [0; 3], libc::SECCOMP_RET_USER_NOTIF),
        (libc::SYS_read, [0; 3], libc::SECCOMP_RET_ALLOW),
        (libc::SYS_execve, [0; 3], libc::SECCOMP_RET_ALLOW),
    ] {
        assert_eq!(answer(number, arguments), expected, "{number}");
    }
}

#[test]
fn a_family_is_compared_in_32_bits() {
    for family in [1, 2, 10] {
        assert_eq!(
            answer(libc::SYS_socket, [family, 1, 0]),
            libc::SECCOMP_RET_ALLOW
        );
        let high = family | 1 << 40;
        assert_eq!(
            answer(libc::SYS_socket, [high, 1, 0]),
            libc::SECCOMP_RET_ALLOW
        );
    }
    for family in [0, 17, 38, 40, 44, 40 | 1 << 40] {
        let made = answer(libc::SYS_socket, [family, 1, 0]);
        assert_eq!(made, libc::SECCOMP_RET_USER_NOTIF, "{family}");
    }
    assert_eq!(
        answer(libc::SYS_socket, [16, 3, 0]),
        libc::SECCOMP_RET_ALLOW
    );
    for protocol in [9, 15, 16] {
        assert_eq!(answer(libc::SYS_socket, [16, 3, protocol]), EPERM);
    }
}

#[test]
fn a_flag_of_a_namespace_is_seen_among_others() {
    let thread = 0x003d_0f00;
    assert_eq!(
        answer(libc::SYS_clone, [thread, 0, 0]),
        libc::SECCOMP_RET_ALLOW
    );
    for namespace in [
        0x2_0000,
        0x200_0000,
        0x400_0000,
        0x800_0000,
        0x1000_0000,
        0x2000_0000,
        0x4000_0000,
    ] {
        for call in [libc::SYS_clone, libc::SYS_unshare] {
            let made = answer(call, [0x11 | namespace, 0, 0]);
            assert_eq!(made, libc::SECCOMP_RET_USER_NOTIF, "{namespace:#x}");
        }
    }
    // For clone(2) this bit is part of the signal.
    assert_eq!(
        answer(libc::SYS_clone, [0x80, 0, 0]),
        libc::SECCOMP_RET_ALLOW
    );
    assert_eq!(
        answer(libc::SYS_unshare, [0x80, 0, 0]),
        libc::SECCOMP_RET_USER_NOTIF
    );
}

#[test]
fn only_the_caller_itself_is_changed() {
    for call in [
        libc::SYS_prlimit64,
        libc::SYS_sched_setaffinity,
        libc::SYS_sched_setscheduler,
    ] {
        assert_eq!(answer(call, [0, 1, 2]), libc::SECCOMP_RET_ALLOW);
        assert_eq!(answer(call, [77, 1, 2]), EPERM);
    }
    for (call, own) in [(libc::SYS_setpriority, 0), (libc::SYS_ioprio_set, 1)] {
        assert_eq!(answer(call, [own, 0, 5]), libc::SECCOMP_RET_ALLOW);
        assert_eq!(answer(call, [own, 77, 5]), EPERM);
        // Of a user, 0 means all processes.
        assert_eq!(answer(call, [own + 2, 0, 5]), EPERM);
    }
}

#[test]
fn the_calls_of_another_architecture_kill() {
    let call = Call {
        arch: 0x4000_0003,
        number: 3,
        arguments: [0; 6],
    };
    let Refusals { answered, .. } = all();
    assert_eq!(run(&answered[0], &call), libc::SECCOMP_RET_KILL_PROCESS);
}

#[test]
fn a_closure_brings_its_own_calls_only() {
    let none = Refusals::new(&Strict::of(&[Closure::Files])).unwrap();
    assert!(none.answered.is_empty() && none.reported.is_none());
    let processes = Refusals::new(&Strict::of(&[Closure::Processes])).unwrap();
    assert_eq!(processes.answered.len(), 1);
    assert!(processes.reported.is_none());
}

#[test]
fn each_reported_call_has_a_name() {
    for call in lists::REPORTED {
        let (number, _) = conditions(*call).unwrap();
        let name = describe(number, 40);
        #[cfg(target_arch = "x86_64")]
        let is_nameless = [libc::SYS_iopl, libc::SYS_ioperm].contains(&number);
        #[cfg(not(target_arch = "x86_64"))]
        let is_nameless = false;
        assert!(is_nameless || !name.starts_with("system call"), "{name}");
    }
    assert_eq!(
        describe(libc::SYS_socket, 40),
        "socket with address family 40"
    );
}
