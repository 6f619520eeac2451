//! Determines whether the fence has opened a connection, by the attributes of its socket.

use std::collections::BTreeSet;

use netlink_packet_core::{NLA_TYPE_MASK, Nla as _, NlasIterator, parse_u64};
use netlink_packet_sock_diag::inet::{InetResponse, nlas::Nla};
use qfence_common::{
    Protocol,
    netns::{INSIDE, OWNER_FLAGS},
};

use super::diag::Found;

/// `INET_DIAG_*` in linux/inet_diag.h.
const SK_BPF_STORAGES: u16 = 20;
const CGROUP_ID: u16 = 21;

/// `SK_DIAG_BPF_STORAGE_MAP_VALUE` in linux/sock_diag.h.
const MAP_VALUE: u16 = 3;

/// Whether the fence with these cgroups has opened a connection.
///
/// TCP: whether its socket has called connect() in the fence, according to the storage of owners. This includes the
/// subflows of MPTCP. A socket from a listener has no value in that storage, because the storage is not cloned.
/// Listeners are not listed. Connections by the loopback of a network namespace that was made in the fence do not count:
/// no rule is about them.
///
/// UDP: whether its socket was made in one of the cgroups. The kernel returns storages only for connection-oriented
/// sockets (`inet_sk_diag_fill` in net/ipv4/inet_diag.c).
pub(super) fn is_opened(found: &Found, cgroups: &BTreeSet<u64>) -> bool {
    let response = &found.response;
    if found.connection.protocol != Protocol::TCP {
        return cgroup(response).is_some_and(|id| cgroups.contains(&id));
    }
    let is_own = || {
        found.connection.remote.ip().is_loopback()
            && owner_flags(response).is_some_and(|flags| flags & INSIDE != 0)
    };
    has_owner(response) && !is_own()
}

/// The cgroup in which the socket was made (Linux 5.9, `inet_diag_msg_attrs_fill`). The kernel returns it unasked,
/// except for connection requests and for sockets in TIME_WAIT.
fn cgroup(response: &InetResponse) -> Option<u64> {
    parse_u64(&attribute(response, CGROUP_ID)?).ok()
}

/// Whether the socket has a value in the requested storage (`bpf_sk_storage_diag_put` in net/core/bpf_sk_storage.c).
fn has_owner(response: &InetResponse) -> bool {
    attribute(response, SK_BPF_STORAGES).is_some_and(|storages| !storages.is_empty())
}

/// The flags of the owner of a socket. The requested storage is the only one, and has one value.
fn owner_flags(response: &InetResponse) -> Option<u32> {
    let storages = attribute(response, SK_BPF_STORAGES)?;
    let storage = NlasIterator::new(&storages).next()?.ok()?;
    let value = NlasIterator::new(storage.value())
        .filter_map(Result::ok)
        .find(|attribute| attribute.kind() & NLA_TYPE_MASK == MAP_VALUE)?;
    let bytes = value.value().get(OWNER_FLAGS..OWNER_FLAGS + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

/// The value of an attribute that the crate does not support.
fn attribute(response: &InetResponse, kind: u16) -> Option<Vec<u8>> {
    response.nlas.iter().find_map(|attribute| match attribute {
        Nla::Other(other) if attribute.kind() & NLA_TYPE_MASK == kind => {
            let mut value = vec![0; other.value_len()];
            other.emit_value(&mut value);
            Some(value)
        }
        _ => None,
    })
}
