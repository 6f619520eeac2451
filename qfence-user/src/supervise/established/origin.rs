//! Determines whether the fence has opened a connection, by the attributes of its socket.

use std::collections::BTreeSet;

use netlink_packet_core::{NLA_TYPE_MASK, Nla as _, NlasIterator, parse_u64};
use netlink_packet_sock_diag::inet::{InetResponse, nlas::Nla};
use qfence_common::{
    Protocol,
    netns::INSIDE,
    own::{LET_THROUGH, PAIR, SELF},
};

use super::diag::Found;

/// `INET_DIAG_*` in linux/inet_diag.h.
const SK_BPF_STORAGES: u16 = 20;
const CGROUP_ID: u16 = 21;
/// `SK_DIAG_BPF_STORAGE*` in linux/sock_diag.h.
const SK_DIAG_BPF_STORAGE: u16 = 1;
const SK_DIAG_BPF_STORAGE_MAP_VALUE: u16 = 3;

/// How the fence has opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// It has not.
    NotOpened,
    /// By a call that the policy allowed.
    Opened,
    /// To a listener of the fence's own, by a rule for the set `self`.
    BySelf,
}

/// How the fence with these cgroups has opened a connection.
///
/// TCP: whether its socket has called connect() in the fence, according to the storage of owners. This includes the
/// subflows of MPTCP. A socket from a listener has no value in that storage, because the storage is not cloned.
/// Listeners are not listed. A [pair](qfence_common::own::is_pair) counts as not opened: no policy ends it. So does a
/// connection by the loopback of a network namespace that was made in the fence: no rule is about it.
///
/// UDP: whether its socket was made in one of the cgroups. The kernel returns storages only for connection-oriented
/// sockets (`inet_sk_diag_fill` in net/ipv4/inet_diag.c).
pub(super) fn of(found: &Found, cgroups: &BTreeSet<u64>) -> Origin {
    let response = &found.response;
    if found.connection.protocol != Protocol::TCP {
        let is_ours = cgroup(response).is_some_and(|id| cgroups.contains(&id));
        return if is_ours {
            Origin::Opened
        } else {
            Origin::NotOpened
        };
    }
    let storages = attribute(response, SK_BPF_STORAGES).unwrap_or_default();
    if storages.is_empty() {
        return Origin::NotOpened;
    }
    // A value that cannot be read is that of an ordinary connection.
    let flags = flags(&storages).unwrap_or_default();
    if flags & INSIDE != 0 && found.connection.remote.ip().is_loopback() {
        return Origin::NotOpened;
    }
    match flags & LET_THROUGH {
        PAIR => Origin::NotOpened,
        SELF => Origin::BySelf,
        _ => Origin::Opened,
    }
}

/// Whether a TCP socket that was made in one of the cgroups has no owner. A request for a connection has no cgroup: a
/// listener is going to make its socket.
pub(super) fn is_unowned(found: &Found, cgroups: &BTreeSet<u64>) -> bool {
    let response = &found.response;
    let storages = attribute(response, SK_BPF_STORAGES).unwrap_or_default();
    storages.is_empty() && cgroup(response).is_some_and(|id| cgroups.contains(&id))
}

/// The flags of an owner, the last word of its value (`Owner` in qfence-ebpf/src/subject/owner/mod.rs). The attribute has
/// nested attributes for each requested storage (`diag_get` in net/core/bpf_sk_storage.c).
fn flags(storages: &[u8]) -> Option<u32> {
    let storage = nested(storages, SK_DIAG_BPF_STORAGE)?;
    let value = nested(&storage, SK_DIAG_BPF_STORAGE_MAP_VALUE)?;
    let word = value.last_chunk()?;
    Some(u32::from_ne_bytes(*word))
}

fn nested(attributes: &[u8], kind: u16) -> Option<Vec<u8>> {
    NlasIterator::new(attributes)
        .map_while(Result::ok)
        .find(|attribute| attribute.kind() & NLA_TYPE_MASK == kind)
        .map(|attribute| attribute.value().to_vec())
}

/// The cgroup in which the socket was made (Linux 5.9, `inet_diag_msg_attrs_fill`). The kernel returns it unasked,
/// except for connection requests and for sockets in TIME_WAIT.
fn cgroup(response: &InetResponse) -> Option<u64> {
    parse_u64(&attribute(response, CGROUP_ID)?).ok()
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
