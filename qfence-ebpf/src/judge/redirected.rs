//! Questions to a nameserver of the host that the host's NAT sends to another port of it, as Docker does in containers.
//!
//! The call names the nameserver's port, and its packet has another one. The NAT belongs to the host, and a process in the
//! fence cannot change it.
//!
//! The port to which a UDP socket is connected does not show which port a call named for a packet. `udp_sendmsg`
//! (net/ipv4/udp.c) reads the address and then the port of the socket without its lock, while another thread connects it
//! elsewhere (`__ip4_datagram_connect` writes one, then the other). The packet then has the address of one destination and
//! the port of another. So the programs for calls note the ports that calls name, before the socket changes, and a UDP socket
//! asks a nameserver only if no call named another port.

use aya_ebpf::bindings::{__sk_buff, bpf_sock};
use qfence_common::{Action, Halves, LookupPath, Protocol};

use super::policy::verdict;
use crate::subject::{
    owner,
    skb::whole_socket,
    socket::{is_raw, remote_address, remote_port},
};

/// The port of nameservers.
pub(crate) const DNS: u16 = 53;

/// Returns the port by which a packet through the loopback device is judged: that of nameservers, if calls
/// to its own are denied and its socket asks for that port of the same address. Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn qfence_judged_port(
    skb: *mut __sk_buff,
    upper: u64,
    lower: u64,
    protocol: u32,
    port: u32,
) -> u32 {
    let (address, protocol) = (Halves { upper, lower }, Protocol(protocol));
    let own = u16::try_from(port).unwrap_or(0);
    let is_question = protocol == Protocol::UDP || protocol == Protocol::TCP;
    if own == DNS || !is_question || !asks(whole_socket(skb), address, protocol) {
        return port;
    }
    // If a call to this port is allowed, the packet may be one of such a call, and is judged as it is.
    match verdict(LookupPath::Address, address, protocol, own).action() {
        Action::Allow => port,
        Action::Deny => DNS.into(),
    }
}

/// Whether a socket is connected to the nameserver port of an address, or is not connected and sends UDP. A UDP socket must
/// also have been allowed to send to that port of the host, and no call may have named another port. TCP changes and
/// reads both values under the lock of the socket.
#[inline(always)]
fn asks(socket: *mut bpf_sock, address: Halves, protocol: Protocol) -> bool {
    // A raw socket sends to any port.
    if socket.is_null() || is_raw(socket) {
        return false;
    }
    let is_udp = protocol == Protocol::UDP;
    let is_open = match remote_port(socket) {
        DNS => remote_address(socket) == address,
        0 => is_udp,
        _ => false,
    };
    is_open && (!is_udp || owner::only_asks_nameservers(socket))
}
