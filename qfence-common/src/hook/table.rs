//! The table of hooks: one row for each point in the kernel where qfence has a program. Everything that qfence needs to
//! know about a hook is in its row.
//!
//! How to add a hook: ARCHITECTURE.md. It takes a row here, a program of that name in qfence-ebpf, and a test.

use super::{FIRST_FRAME, FIRST_LSM, Hook, HookRow, Layer, Subject};

/// All hooks but those of the security module BPF, in the order of their numbers.
pub const HOOKS: [HookRow; 17] = [
    call(Hook::Connect4, "connect4", "judge_connect4", 10),
    call(Hook::Connect6, "connect6", "judge_connect6", 11),
    call(Hook::Sendmsg4, "sendmsg4", "judge_sendmsg4", 14),
    call(Hook::Sendmsg6, "sendmsg6", "judge_sendmsg6", 15),
    HookRow {
        hook: Hook::Egress,
        name: "egress",
        layer: Layer::Packet,
        subject: Subject::Destination,
        program: "judge_egress",
        attach_type: 1,
        may_redirect: false,
        is_optional: false,
    },
    HookRow {
        hook: Hook::Ingress,
        name: "ingress",
        layer: Layer::Packet,
        subject: Subject::Destination,
        program: "judge_ingress",
        attach_type: 0,
        may_redirect: false,
        is_optional: false,
    },
    HookRow {
        hook: Hook::SockCreate,
        name: "sock_create",
        layer: Layer::Socket,
        subject: Subject::Socket,
        program: "judge_sock_create",
        attach_type: 2,
        may_redirect: false,
        is_optional: false,
    },
    HookRow {
        hook: Hook::Device,
        name: "device",
        layer: Layer::Device,
        subject: Subject::Device,
        program: "judge_device",
        attach_type: 6,
        may_redirect: false,
        is_optional: false,
    },
    HookRow {
        hook: Hook::Setsockopt,
        name: "setsockopt",
        layer: Layer::Socket,
        subject: Subject::Socket,
        program: "judge_setsockopt",
        attach_type: 22,
        may_redirect: false,
        is_optional: false,
    },
    optional(
        Hook::ConnectUnix,
        "connect_unix",
        Subject::Name,
        "judge_connect_unix",
        49,
    ),
    optional(
        Hook::SendmsgUnix,
        "sendmsg_unix",
        Subject::Name,
        "judge_sendmsg_unix",
        50,
    ),
    optional(Hook::Bind4, "bind4", Subject::Local, "judge_bind4", 8),
    optional(Hook::Bind6, "bind6", Subject::Local, "judge_bind6", 9),
    source(Hook::Recvmsg4, "recvmsg4", "restore_recvmsg4", 19),
    source(Hook::Recvmsg6, "recvmsg6", "restore_recvmsg6", 20),
    source(
        Hook::Getpeername4,
        "getpeername4",
        "restore_getpeername4",
        29,
    ),
    source(
        Hook::Getpeername6,
        "getpeername6",
        "restore_getpeername6",
        30,
    ),
];

/// The hooks of the security module BPF (`lsm_cgroup`). Not every fence has them: the first two only that of a command whose
/// managers are closed by them, the last only that of a guest of libvirt. They share one attach type: the kernel takes the
/// hook from the loaded program.
pub const LSM_HOOKS: [HookRow; 3] = [
    lsm(
        Hook::UnixStreamConnect,
        "unix_stream_connect",
        "judge_unix_connect",
    ),
    lsm(Hook::UnixMaySend, "unix_may_send", "judge_unix_send"),
    HookRow {
        layer: Layer::Device,
        subject: Subject::Device,
        ..lsm(Hook::FileReceive, "file_receive", "judge_received")
    },
];

/// The hooks of network devices. Only a fence with devices has them.
pub const FRAME_HOOKS: [HookRow; 3] = [
    frame(Hook::Frame, "frame", "judge_frame", 46),
    frame(Hook::FrameOut, "frame_out", "note_frame", 47),
    frame(Hook::LocalIn, "local_in", "judge_local_in", 45),
];

// `Hook::row` uses the number as the index.
const _: () = {
    let mut index = 0;
    while index < HOOKS.len() {
        assert!(HOOKS[index].hook as usize == index);
        index += 1;
    }
    assert!(HOOKS.len() <= FIRST_LSM as usize);
    index = 0;
    while index < LSM_HOOKS.len() {
        assert!(LSM_HOOKS[index].hook as usize == FIRST_LSM as usize + index);
        index += 1;
    }
    assert!(FIRST_LSM as usize + LSM_HOOKS.len() <= FIRST_FRAME as usize);
    index = 0;
    while index < FRAME_HOOKS.len() {
        assert!(FRAME_HOOKS[index].hook as usize == FIRST_FRAME as usize + index);
        index += 1;
    }
};

/// The row of a hook of the security module BPF.
const fn lsm(hook: Hook, name: &'static str, program: &'static str) -> HookRow {
    HookRow {
        hook,
        name,
        layer: Layer::Socket,
        subject: Subject::Peer,
        program,
        attach_type: 43,
        may_redirect: false,
        is_optional: true,
    }
}

/// The row of a hook at which the source of an answer is shown as the nameserver that was asked: see [`crate::resolved`].
const fn source(
    hook: Hook,
    name: &'static str,
    program: &'static str,
    attach_type: u32,
) -> HookRow {
    HookRow {
        hook,
        name,
        layer: Layer::Call,
        subject: Subject::Destination,
        program,
        attach_type,
        may_redirect: false,
        is_optional: true,
    }
}

/// The row of a hook of network devices.
const fn frame(hook: Hook, name: &'static str, program: &'static str, attach_type: u32) -> HookRow {
    HookRow {
        hook,
        name,
        layer: Layer::Frame,
        subject: Subject::Frame,
        program,
        attach_type,
        may_redirect: false,
        is_optional: true,
    }
}

/// The row of a hook for calls with a destination.
const fn call(hook: Hook, name: &'static str, program: &'static str, attach_type: u32) -> HookRow {
    HookRow {
        hook,
        name,
        layer: Layer::Call,
        subject: Subject::Destination,
        program,
        attach_type,
        may_redirect: true,
        is_optional: false,
    }
}

/// The row of a hook at which only some fences have a program.
const fn optional(
    hook: Hook,
    name: &'static str,
    subject: Subject,
    program: &'static str,
    attach_type: u32,
) -> HookRow {
    HookRow {
        hook,
        name,
        layer: Layer::Socket,
        subject,
        program,
        attach_type,
        may_redirect: matches!(subject, Subject::Name),
        is_optional: true,
    }
}
