//! TCP connections whose first packet was refused.

use crate::Halves;

/// A TCP connection whose SYN the packet layer refused. TCP takes no notice of that and sends the SYN again
/// (`tcp_connect` in net/ipv4/tcp_output.c returns only ECONNREFUSED, and a program cannot return it), so the supervisor
/// ends the connection. The addresses and ports are those of the socket: NAT may have changed the packet's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct RefusedSyn {
    /// The address of the fence.
    pub local: Halves,
    /// The address that the process connects to.
    pub remote: Halves,
    /// The port of the fence, in host order.
    pub local_port: u16,
    /// The port that the process connects to, in host order.
    pub remote_port: u16,
    /// Zero.
    pub reserved: u32,
}

const _: () = assert!(size_of::<RefusedSyn>() == 40 && align_of::<RefusedSyn>() == 8);

impl RefusedSyn {
    /// Reads a record of the ring; `None` if it has another size.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != size_of::<Self>() {
            return None;
        }
        let word = |at: usize| Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let port = |at: usize| Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        let halves = |at: usize| {
            Some(Halves {
                upper: word(at)?,
                lower: word(at + 8)?,
            })
        };
        Some(Self {
            local: halves(0)?,
            remote: halves(16)?,
            local_port: port(32)?,
            remote_port: port(34)?,
            reserved: 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_the_fields_at_their_offsets() {
        let mut bytes: [u8; size_of::<RefusedSyn>()] =
            core::array::from_fn(|at| u8::try_from(at).unwrap());
        bytes[36..].fill(0);
        let syn = RefusedSyn::from_bytes(&bytes).unwrap();
        // SAFETY: any bytes are such a value.
        let same: RefusedSyn = unsafe { core::mem::transmute(bytes) };
        assert_eq!(syn, same);
        assert_eq!(RefusedSyn::from_bytes(&bytes[1..]), None);
    }
}
