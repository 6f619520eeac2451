//! The addresses of this host: the prefixes that its kernel treats as local.

mod announcements;
pub mod everything;
mod filter;
pub mod gateways;
mod pace;
pub(super) mod routes;
#[cfg(test)]
mod testing;

use std::{collections::BTreeSet, io, time::Instant};

use thiserror::Error;
use tokio::time::sleep_until;

use super::fact::Fact;
use crate::policy::{
    Prefix,
    hostset::{host_set, many_set},
    rule::V4,
};
use announcements::{Announcements, News};
use pace::Pace;
use routes::{LocalPrefixes, LocalRoutes};

/// The members of sets that depend on the host's addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostAddresses {
    /// See [`SetName::Host`](crate::policy::set::SetName::Host).
    pub host: BTreeSet<Prefix>,
    /// The members of `host` that have many receivers.
    pub many: BTreeSet<Prefix>,
    /// The numbers of the interfaces with link-local addresses.
    pub links: BTreeSet<u32>,
}

impl HostAddresses {
    /// The IPv6 addresses of the host that are valid beyond its links.
    #[must_use]
    pub fn global_v6(&self) -> BTreeSet<Prefix> {
        let is_global = |prefix: &&Prefix| {
            let address = prefix.addr();
            !V4.contains(*prefix)
                && !address.is_loopback()
                && !address.is_unspecified()
                && !address.is_multicast()
                && !address.is_unicast_link_local()
        };
        self.host.iter().filter(is_global).copied().collect()
    }
}

/// Why the host's addresses cannot be read or followed.
#[derive(Debug, Error)]
pub enum AddressError {
    /// The socket for announcements cannot be opened.
    #[error("cannot subscribe to the kernel's addresses and routes over netlink")]
    Subscribe(#[source] io::Error),
    /// The socket for routes cannot be opened.
    #[error("cannot open a netlink socket for the kernel's routes")]
    Open(#[source] io::Error),
    /// The kernel does not list the routes.
    #[error("cannot dump the {kind} routes of {family}")]
    Dump {
        /// The type of route.
        kind: String,
        /// The family of addresses.
        family: String,
        /// Why.
        #[source]
        error: Box<rtnetlink::Error>,
    },
    /// Announcements cannot be received.
    #[error("the kernel's netlink announcements have ended")]
    Ended(#[source] io::Error),
}

/// The host's addresses, as a fact that can be followed.
#[derive(Default)]
pub struct Addresses {
    /// Opened by the first reading, and again after a failure.
    sockets: Option<Sockets>,
    /// The result of the last reading.
    known: LocalPrefixes,
    pace: Pace,
    /// When the next reading is due, because of announcements since the last one, and of the most urgent of them.
    due: Option<(Instant, News)>,
}

/// Subscribes before the first dump, so that no change is missed between the two.
struct Sockets {
    announcements: Announcements,
    routes: LocalRoutes,
}

impl Sockets {
    fn open() -> Result<Self, AddressError> {
        Ok(Self {
            announcements: Announcements::subscribe().map_err(AddressError::Subscribe)?,
            routes: LocalRoutes::open().map_err(AddressError::Open)?,
        })
    }
}

impl Addresses {
    /// Schedules a reading for an announcement.
    fn note(&mut self, news: News) {
        let due = (self.pace.due(news, Instant::now()), news);
        self.due = Some(match self.due {
            Some((before, of)) => (before.min(due.0), of.max(news)),
            None => due,
        });
    }

    async fn dump(&mut self) -> Result<LocalPrefixes, AddressError> {
        let sockets = match &mut self.sockets {
            Some(sockets) => sockets,
            none => none.insert(Sockets::open()?),
        };
        // The dump includes all changes announced before it.
        sockets.announcements.discard()?;
        self.due = None;
        self.pace.read_at(Instant::now());
        sockets.routes.dump().await
    }
}

impl Fact for Addresses {
    type Value = HostAddresses;
    type Error = AddressError;

    async fn read(&mut self) -> Result<HostAddresses, AddressError> {
        match self.dump().await {
            Ok(found) => {
                self.known = found.clone();
                Ok(found.into())
            }
            Err(error) => {
                self.sockets = None;
                Err(error)
            }
        }
    }

    async fn changed(&mut self) -> Result<(), AddressError> {
        loop {
            let Some(sockets) = &mut self.sockets else {
                return Ok(());
            };
            let announcements = &mut sockets.announcements;
            let news = match self.due {
                None => announcements.next(&self.known, false).await,
                // Nothing makes it more urgent.
                Some((due, News::Address)) => {
                    sleep_until(due.into()).await;
                    return Ok(());
                }
                Some((due, News::Other)) if due <= Instant::now() => return Ok(()),
                Some((due, News::Other)) => tokio::select! {
                    news = announcements.next(&self.known, true) => news,
                    () = sleep_until(due.into()) => return Ok(()),
                },
            };
            match news {
                Ok(news) => self.note(news),
                Err(error) => {
                    self.sockets = None;
                    return Err(error);
                }
            }
        }
    }
}

impl From<LocalPrefixes> for HostAddresses {
    fn from(local: LocalPrefixes) -> Self {
        Self {
            host: host_set(local.all),
            many: many_set(local.broadcast),
            links: local.links,
        }
    }
}

/// Reads the host's addresses once. Must be called within a tokio runtime.
///
/// # Errors
/// If the kernel does not list the routes.
pub async fn read() -> Result<HostAddresses, AddressError> {
    let routes = LocalRoutes::open().map_err(AddressError::Open)?;
    Ok(routes.dump().await?.into())
}
