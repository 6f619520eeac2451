//! Reads the TCP connections whose first packet the programs refused.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd, AsRawFd as _, BorrowedFd},
};

use anyhow::{Context, Result};
use aya::{
    Ebpf,
    maps::{MapData, RingBuf},
};
use qfence_common::{Halves, RefusedSyn, abi};

use super::load::take;

/// The reader of the ring. It is not pinned, so it is lost with the supervisor.
pub struct RefusedSyns(RingBuf<MapData>);

impl RefusedSyns {
    /// Takes the ring of programs that are not loaded yet.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self> {
        Ok(Self(take(ebpf, abi::REFUSED_SYNS_MAP)?.try_into()?))
    }

    /// The next connection, if there is one: the address of the fence, and that of the peer.
    ///
    /// # Errors
    /// If a record has another size.
    pub fn connection(&mut self) -> Result<Option<(SocketAddr, SocketAddr)>> {
        let Some(item) = self.0.next() else {
            return Ok(None);
        };
        let syn = RefusedSyn::from_bytes(&item)
            .context("the ring of refused connections has a record of an unknown size")?;
        Ok(Some((
            end(syn.local, syn.local_port),
            end(syn.remote, syn.remote_port),
        )))
    }
}

impl AsFd for RefusedSyns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring has the descriptor open for as long as it is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}

fn end(address: Halves, port: u16) -> SocketAddr {
    let address = IpAddr::from(Ipv6Addr::from(address.address()));
    SocketAddr::new(address.to_canonical(), port)
}
