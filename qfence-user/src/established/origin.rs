//! Whether a connection is one that the fence has opened: the attributes that tell.

use std::collections::BTreeSet;

use netlink_packet_core::{
    NLA_HEADER_SIZE, NLA_TYPE_MASK, Nla as _, NlasIterator, parse_u32, parse_u64,
};
use netlink_packet_sock_diag::inet::{InetResponse, nlas::Nla};
use qfence_common::Protocol;

use super::diag::Found;

/// `INET_DIAG_*` in linux/inet_diag.h.
const ULP_INFO: u16 = 19;
const SK_BPF_STORAGES: u16 = 20;
const CGROUP_ID: u16 = 21;

/// `INET_ULP_INFO_MPTCP` in linux/inet_diag.h.
const ULP_INFO_MPTCP: u16 = 3;

/// `MPTCP_SUBFLOW_ATTR_FLAGS` in linux/mptcp.h, and of the flags those that say who asked for MPTCP.
const SUBFLOW_FLAGS: u16 = 8;
const CAPABLE_REMOTE: u32 = 1 << 0;
const CAPABLE_LOCAL: u32 = 1 << 1;
const JOIN_REMOTE: u32 = 1 << 2;
const JOIN_LOCAL: u32 = 1 << 3;

/// Whether the fence of these cgroups has opened a connection.
///
/// Of TCP: if its socket was made by a call in the fence, which the storage of owners says. A socket
/// that came out of a listener has no such record, as it is not cloned. Neither has one that the
/// kernel made for MPTCP (`mptcp_subflow_create_socket` in net/mptcp/subflow.c: the hook does not see
/// it, and the cgroup is that of the socket it was made for), whose flags say which end asked for it.
///
/// Of UDP: if its socket was made in one of the cgroups. The kernel tells of storages with
/// connection-oriented sockets only (`inet_sk_diag_fill` in net/ipv4/inet_diag.c).
pub(super) fn is_opened(found: &Found, cgroups: &BTreeSet<u64>) -> bool {
    let response = &found.response;
    let is_within = || cgroup(response).is_some_and(|id| cgroups.contains(&id));
    if found.connection.protocol != Protocol::TCP {
        return is_within();
    }
    has_owner(response) || (mptcp_flags(response).is_some_and(has_asked) && is_within())
}

/// Whether this end asked for a subflow: it says so, or it has given MPTCP up before it asked. The
/// kernel has no such subflow where the other end asked: that is a plain socket then
/// (`subflow_ulp_fallback` in net/mptcp/subflow.c).
fn has_asked(flags: u32) -> bool {
    flags & (CAPABLE_LOCAL | JOIN_LOCAL) != 0 || flags & (CAPABLE_REMOTE | JOIN_REMOTE) == 0
}

/// The cgroup that the socket was made in, Linux 5.9 (`inet_diag_msg_attrs_fill`). It need not be
/// asked for; sockets that are no more than a request or a remainder come without.
fn cgroup(response: &InetResponse) -> Option<u64> {
    parse_u64(&attribute(response, CGROUP_ID)?).ok()
}

/// Whether there is a value in the storage that was asked for (`bpf_sk_storage_diag_put` in
/// net/core/bpf_sk_storage.c).
fn has_owner(response: &InetResponse) -> bool {
    attribute(response, SK_BPF_STORAGES).is_some_and(|storages| !storages.is_empty())
}

/// The flags of a subflow of MPTCP; `None` if it is none (`tcp_diag_put_ulp` in net/ipv4/tcp_diag.c,
/// `subflow_get_info` in net/mptcp/diag.c).
fn mptcp_flags(response: &InetResponse) -> Option<u32> {
    let ulp = attribute(response, ULP_INFO)?;
    let mptcp = nested(&ulp, ULP_INFO_MPTCP)?;
    // Without its flags it has given MPTCP up.
    Some(nested(mptcp, SUBFLOW_FLAGS).map_or(0, |flags| parse_u32(flags).unwrap_or(0)))
}

/// The value of an attribute that the crate does not know.
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

/// The value of an attribute among those in another.
fn nested(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    let found = NlasIterator::new(attributes)
        .map_while(Result::ok)
        .find(|attribute| attribute.kind() == kind)?;
    let length = usize::from(found.length());
    found.into_inner().get(NLA_HEADER_SIZE..length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subflow_is_of_the_end_that_asked_for_it() {
        assert!(has_asked(CAPABLE_LOCAL));
        assert!(has_asked(CAPABLE_LOCAL | CAPABLE_REMOTE));
        assert!(has_asked(JOIN_LOCAL | JOIN_REMOTE));
        // Another path of a connection that came in, which the kernel opened from here.
        assert!(has_asked(CAPABLE_REMOTE | JOIN_LOCAL));
        assert!(!has_asked(CAPABLE_REMOTE));
        assert!(!has_asked(JOIN_REMOTE));
        // Given up before it was asked for.
        assert!(has_asked(0));
    }

    #[test]
    fn an_attribute_is_found_among_others_and_only_there() {
        // Length and kind of each, in the order of bytes of the machine; the values are padded to four.
        let attributes: Vec<u8> = [(5_u16, 1_u16, 7_u32), (8, 8, 3)]
            .into_iter()
            .flat_map(|(length, kind, value)| {
                let head = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
                [head, value.to_le_bytes().to_vec()].concat()
            })
            .collect();
        assert_eq!(nested(&attributes, 1), Some(&[7][..]));
        assert_eq!(nested(&attributes, 8), Some(&[3, 0, 0, 0][..]));
        assert_eq!(nested(&attributes, 2), None);
        assert_eq!(nested(&attributes[..6], 8), None);
        assert_eq!(nested(&[], 8), None);
    }
}
