//! IP protocol numbers.

/// An IP protocol number (`IPPROTO_*`), or [`Protocol::ANY`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Protocol(pub u32);

impl Protocol {
    /// In rules: every protocol. IPPROTO_IP (0) is never the protocol of a packet.
    pub const ANY: Self = Self(0);
    /// IPPROTO_ICMP.
    pub const ICMP: Self = Self(1);
    /// IPPROTO_TCP.
    pub const TCP: Self = Self(6);
    /// IPPROTO_UDP.
    pub const UDP: Self = Self(17);
    /// IPPROTO_DCCP.
    pub const DCCP: Self = Self(33);
    /// IPPROTO_ICMPV6.
    pub const ICMPV6: Self = Self(58);
    /// IPPROTO_SCTP.
    pub const SCTP: Self = Self(132);
    /// IPPROTO_UDPLITE.
    pub const UDP_LITE: Self = Self(136);
    /// IPPROTO_MPTCP: the protocol of a socket only. Its packets are TCP packets.
    pub const MPTCP: Self = Self(262);
}
