//! Connects and sends through io_uring.

use std::{fmt, io, os::fd::AsRawFd, time::Duration};

use io_uring::{
    IoUring, Probe, opcode, squeue,
    types::{Fd, Timespec},
};
use nix::{errno::Errno, libc};
use socket2::{SockAddr, Socket};

use super::result::{At, Step, Stop};

/// A ring with one operation at a time.
pub(super) struct Ring(IoUring);

/// Values that distinguish the completion of an operation from that of its time limit.
const OPERATION: u64 = 1;
const LIMIT: u64 = 2;

impl Ring {
    /// Sets up a ring that supports connect and send.
    pub(super) fn new() -> Result<Self, Stop> {
        let ring = IoUring::new(4).at(Step::Ring)?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe).at(Step::Ring)?;
        let needed = [
            opcode::Connect::CODE,
            opcode::SendMsg::CODE,
            opcode::LinkTimeout::CODE,
        ];
        if needed.into_iter().all(|code| probe.is_supported(code)) {
            Ok(Self(ring))
        } else {
            Err(Stop::Failed(Step::Ring, Errno::ENOSYS))
        }
    }

    /// `IORING_OP_CONNECT`.
    pub(super) fn connect(
        &mut self,
        socket: &Socket,
        to: &SockAddr,
        limit: Duration,
    ) -> Result<(), Stop> {
        let connect = opcode::Connect::new(Fd(socket.as_raw_fd()), to.as_ptr().cast(), to.len());
        self.run(connect.build(), limit, Step::Connect)
    }

    /// `IORING_OP_SENDMSG`.
    pub(super) fn send(
        &mut self,
        socket: &Socket,
        to: Option<&SockAddr>,
        packet: &[u8],
        limit: Duration,
    ) -> Result<(), Stop> {
        let mut slice = libc::iovec {
            iov_base: packet.as_ptr().cast_mut().cast(),
            iov_len: packet.len(),
        };
        let message = libc::msghdr {
            msg_name: to.map_or(std::ptr::null_mut(), |to| to.as_ptr().cast_mut().cast()),
            msg_namelen: to.map_or(0, SockAddr::len),
            msg_iov: &raw mut slice,
            msg_iovlen: 1,
            msg_control: std::ptr::null_mut(),
            msg_controllen: 0,
            msg_flags: 0,
        };
        let send = opcode::SendMsg::new(Fd(socket.as_raw_fd()), &raw const message);
        self.run(send.build(), limit, Step::Send)
    }

    /// Runs one operation with a time limit, and waits until both have completed.
    fn run(&mut self, operation: squeue::Entry, limit: Duration, step: Step) -> Result<(), Stop> {
        let limit = Timespec::from(limit);
        let entries = [
            operation.flags(squeue::Flags::IO_LINK).user_data(OPERATION),
            opcode::LinkTimeout::new(&raw const limit)
                .build()
                .user_data(LIMIT),
        ];
        // SAFETY: the entries point to values in this frame and in those of the callers. The loop below ends only when
        // both entries have completed, or when the kernel accepted neither.
        let pushed = unsafe { self.0.submission().push_multiple(&entries) };
        pushed.map_err(io::Error::other).at(Step::Ring)?;
        let (mut result, mut completed) = (None, 0);
        while completed < entries.len() {
            match self.0.submit_and_wait(1) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                waited => waited.at(Step::Ring)?,
            };
            for completion in self.0.completion() {
                completed += 1;
                if completion.user_data() == OPERATION {
                    result = Some(completion.result());
                }
            }
        }
        match result {
            Some(error) if error == -libc::ECANCELED => Err(Stop::Timeout(step)),
            Some(error) if error < 0 => Err(Stop::Failed(step, Errno::from_raw(-error))),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Ring")
    }
}
