//! The only user of NETLINK_SOCK_DIAG (sock_diag(7)): lists the connections of a network namespace, and ends them.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd, BorrowedFd},
};

use anyhow::{Context, Result, bail};
use netlink_packet_core::{
    DefaultNla, Emitable, NLA_F_NESTED, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST,
    NLMSG_ALIGNTO, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_sock_diag::{
    AF_INET, AF_INET6, SOCK_DIAG_BY_FAMILY, SockDiagDestroy, SockDiagMessage,
    inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags},
};
use netlink_sys::{Socket, SocketAddr as NetlinkAddress, protocols::NETLINK_SOCK_DIAG};
use qfence_common::Protocol;

use super::{Connection, message::Which};
use crate::policy::protocol::protocol_name;

/// The protocols and address families that are searched. An IPv6 socket with an IPv4 connection is in the list of IPv6.
///
/// The kernel cannot end UDP-Lite sockets (`udplite_prot` in net/ipv4/udplite.c has no `diag_destroy`).
pub(super) const KINDS: [(Protocol, u8); 4] = [
    (Protocol::TCP, AF_INET),
    (Protocol::TCP, AF_INET6),
    (Protocol::UDP, AF_INET),
    (Protocol::UDP, AF_INET6),
];

/// `INET_DIAG_REQ_SK_BPF_STORAGES` in linux/inet_diag.h, and `SK_DIAG_BPF_STORAGE_REQ_MAP_FD` in
/// linux/sock_diag.h.
const REQ_SK_BPF_STORAGES: u16 = 2;
const REQ_MAP_FD: u16 = 1;

/// How often a list is requested if it changes while it is read.
const ATTEMPTS: usize = 5;

/// A netlink socket in a network namespace.
pub(super) struct Diag {
    socket: Socket,
}

/// A connection that was found, whether or not the fence opened it.
pub(super) struct Found {
    pub(super) connection: Connection,
    pub(super) response: InetResponse,
}

impl Found {
    pub(super) fn new(protocol: Protocol, response: InetResponse) -> Self {
        let id = &response.header.socket_id;
        let connection = Connection {
            protocol,
            local: end(id.source_address, id.source_port),
            remote: end(id.destination_address, id.destination_port),
            by_self: false,
        };
        Self {
            connection,
            response,
        }
    }

    /// The kernel's identification of its socket.
    pub(super) fn id(&self) -> &SocketId {
        &self.response.header.socket_id
    }

    /// The cookie of its socket. A cookie is never reused in a namespace (`__sock_gen_cookie` in net/core/sock_diag.c).
    pub(super) fn cookie(&self) -> [u8; 8] {
        self.id().cookie
    }
}

fn end(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address.to_canonical(), port)
}

impl Diag {
    /// Opens a socket in the network namespace of this thread.
    ///
    /// # Errors
    /// If the kernel does not support sock_diag.
    pub(super) fn open() -> Result<Self> {
        let socket = Socket::new(NETLINK_SOCK_DIAG)
            .context("cannot open a netlink socket (CONFIG_INET_DIAG)")?;
        Ok(Self { socket })
    }

    /// The connections of a protocol and family in these states, with the values of the storage `owners`.
    ///
    /// # Errors
    /// If the kernel does not list them.
    pub(super) fn dump(
        &self,
        protocol: Protocol,
        family: u8,
        states: StateFlags,
        owners: BorrowedFd<'_>,
    ) -> Result<Vec<Found>> {
        let id = if family == AF_INET {
            SocketId::new_v4()
        } else {
            SocketId::new_v6()
        };
        for _ in 0..ATTEMPTS {
            let request = Dump {
                request: request(protocol, id.clone(), states.clone()),
                owners,
            };
            let (responses, is_whole) = self.ask(request, NLM_F_DUMP).with_context(|| {
                format!(
                    "the kernel cannot list the connections of {} (CONFIG_INET_DIAG, \
                     CONFIG_INET_UDP_DIAG, CAP_BPF)",
                    protocol_name(protocol.0)
                )
            })?;
            if is_whole {
                let found = |response| Found::new(protocol, response);
                return Ok(responses.into_iter().map(found).collect());
            }
        }
        bail!("the kernel's list of connections changes faster than it can be read")
    }

    /// Ends a connection (`inet_diag_cmd_exact` in net/ipv4/inet_diag.c). Waits for the lock of its socket; signals do
    /// not interrupt that (`tcp_abort` in net/ipv4/tcp.c, `udp_abort` in net/ipv4/udp.c).
    ///
    /// # Errors
    /// ENOENT if it does not exist any more; EOPNOTSUPP if this kernel cannot end connections.
    pub(super) fn destroy(&self, protocol: Protocol, id: &SocketId) -> io::Result<()> {
        let request = request(protocol, id.clone(), StateFlags::all());
        let destroy = SockDiagDestroy::new(SockDiagMessage::InetRequest(request));
        self.ask(destroy, NLM_F_ACK).map(drop)
    }

    /// Sends a request and reads the complete answer. Returns whether the answer is consistent.
    fn ask(
        &self,
        request: impl NetlinkSerializable,
        flags: u16,
    ) -> io::Result<(Vec<InetResponse>, bool)> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send_to(&bytes, &NetlinkAddress::new(0, 0), 0)?;

        let mut responses = Vec::new();
        let mut is_whole = true;
        loop {
            let (received, _) = self.socket.recv_from_full()?;
            let mut rest = received.as_slice();
            while !rest.is_empty() {
                let message = NetlinkMessage::<SockDiagMessage>::deserialize(rest)
                    .map_err(|error| io::Error::other(error.to_string()))?;
                is_whole &= message.header.flags & NLM_F_DUMP_INTR == 0;
                match message.payload {
                    NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                        responses.push(*response);
                    }
                    NetlinkPayload::Done(done) if done.code < 0 => {
                        return Err(io::Error::from_raw_os_error(-done.code));
                    }
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(error.to_io());
                    }
                    NetlinkPayload::Done(_) | NetlinkPayload::Error(_) => {
                        return Ok((responses, is_whole));
                    }
                    other => {
                        return Err(io::Error::other(format!("an unexpected answer: {other:?}")));
                    }
                }
                let length = message.header.length.next_multiple_of(NLMSG_ALIGNTO.into());
                rest = usize::try_from(length)
                    .ok()
                    .and_then(|length| rest.get(length..))
                    .unwrap_or_default();
            }
        }
    }
}

/// The states of the connections of a protocol that are asked for; `None` if there are none.
pub(super) fn states(protocol: Protocol, which: Which) -> Option<StateFlags> {
    match (protocol, which) {
        (Protocol::TCP, Which::Opening) => Some(StateFlags::SYN_SENT),
        (Protocol::TCP, Which::All | Which::Unowned) => Some(connected()),
        (_, Which::Opening | Which::Unowned) => None,
        // The state of connected UDP sockets.
        (_, Which::All) => Some(StateFlags::ESTABLISHED),
    }
}

/// All states of a TCP socket, except those without a peer, and except TIME_WAIT.
fn connected() -> StateFlags {
    StateFlags::all() - StateFlags::LISTEN - StateFlags::CLOSE - StateFlags::TIME_WAIT
}

/// Requests no extensions: for INFO, the kernel waits for the lock of each socket (`tcp_get_info` in net/ipv4/tcp.c),
/// which a process can keep as long as it likes.
fn request(protocol: Protocol, socket_id: SocketId, states: StateFlags) -> InetRequest {
    InetRequest {
        family: if socket_id.source_address.is_ipv4() {
            AF_INET
        } else {
            AF_INET6
        },
        // Protocols above 255 are not requested.
        protocol: u8::try_from(protocol.0).unwrap_or_default(),
        extensions: ExtensionFlags::empty(),
        states,
        socket_id,
    }
}

/// A request for a list, with attributes. The crate's request has none.
struct Dump<'a> {
    request: InetRequest,
    owners: BorrowedFd<'a>,
}

impl Dump<'_> {
    fn attributes(&self) -> [DefaultNla; 1] {
        let fd = self.owners.as_raw_fd().to_ne_bytes().to_vec();
        let map = DefaultNla::new(REQ_MAP_FD, fd);
        let mut maps = vec![0; map.buffer_len()];
        map.emit(&mut maps);
        [DefaultNla::new(REQ_SK_BPF_STORAGES | NLA_F_NESTED, maps)]
    }
}

impl NetlinkSerializable for Dump<'_> {
    fn message_type(&self) -> u16 {
        SOCK_DIAG_BY_FAMILY
    }

    fn buffer_len(&self) -> usize {
        self.request.buffer_len() + self.attributes().as_slice().buffer_len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let (request, attributes) = buffer.split_at_mut(self.request.buffer_len());
        self.request.emit(request);
        self.attributes().as_slice().emit(attributes);
    }
}
