//! Asks the host's nameservers: one after the other, until one has an answer.

mod query;
mod tcp;
mod udp;

use std::{cell::Cell, fmt, io, net::SocketAddr, time::Duration};

use domain::base::iana::{ExtendedErrorCode, Rcode};
use tokio::{
    sync::{Semaphore, watch},
    time::timeout,
};

use self::query::Query;
use super::{cache::Key, ends::Nameservers, found::Found};
use crate::policy::resolv_options::ResolvOptions;

/// The most questions that are asked at a time. Further ones wait.
const AT_A_TIME: usize = 64;

/// The longest time for a question, however many nameservers there are.
const LONGEST: Duration = Duration::from_secs(30);

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// There are no nameservers.
    NoNameserver,
    /// No nameserver answered in time.
    Silent,
    /// The network failed: a nameserver cannot be reached.
    Network(io::ErrorKind),
    /// A nameserver answered by this error, or by a malformed message.
    Code(Option<Rcode>),
    /// The look-up was given up.
    GivenUp,
}

impl Failure {
    /// The extended error (RFC 8914).
    pub(super) const fn code(self) -> ExtendedErrorCode {
        match self {
            Self::NoNameserver | Self::Silent => ExtendedErrorCode::NO_REACHABLE_AUTHORITY,
            Self::Network(_) => ExtendedErrorCode::NETWORK_ERROR,
            Self::Code(_) => ExtendedErrorCode::INVALID_DATA,
            Self::GivenUp => ExtendedErrorCode::OTHER,
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Network(error.kind())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoNameserver => f.write_str("the host has no nameserver"),
            Self::Silent => f.write_str("no nameserver of the host answers"),
            Self::Network(kind) => write!(f, "no nameserver of the host can be reached: {kind}"),
            Self::Code(Some(code)) => write!(f, "a nameserver of the host answers {code}"),
            Self::Code(None) => f.write_str("the answer of a nameserver is malformed"),
            Self::GivenUp => f.write_str("the look-up was given up"),
        }
    }
}

/// The nameservers.
pub(super) struct Upstream {
    nameservers: watch::Receiver<Nameservers>,
    /// The one that is asked first: that answered last, or with `rotate` the next one.
    first: Cell<usize>,
    places: Semaphore,
}

impl Upstream {
    pub(super) fn new(nameservers: watch::Receiver<Nameservers>) -> Self {
        Self {
            nameservers,
            first: Cell::new(0),
            places: Semaphore::new(AT_A_TIME),
        }
    }

    /// Asks until a nameserver has an answer. If the nameservers change meanwhile, the new ones are asked.
    pub(super) async fn ask(&self, key: &Key) -> Result<Found, Failure> {
        let Ok(_place) = self.places.acquire().await else {
            return Err(Failure::GivenUp);
        };
        let mut followed = self.nameservers.clone();
        let asking = async {
            loop {
                let nameservers = followed.borrow_and_update().clone();
                tokio::select! {
                    found = self.ask_all(&nameservers, key) => return found,
                    Ok(()) = followed.changed() => {}
                }
            }
        };
        let asked = timeout(LONGEST, asking).await;
        asked.unwrap_or(Err(Failure::Silent))
    }

    async fn ask_all(&self, nameservers: &Nameservers, key: &Key) -> Result<Found, Failure> {
        let used = nameservers.servers.iter().take(Nameservers::USED);
        let servers: Vec<SocketAddr> = used.copied().collect();
        let ResolvOptions {
            timeout: patience,
            attempts,
            rotates,
            by_tcp,
        } = nameservers.options;
        let first = self.first.get();
        if rotates {
            self.first.set(first.wrapping_add(1));
        }
        let mut failure = Failure::NoNameserver;
        for _ in 0..attempts {
            for number in 0..servers.len() {
                let at = first.wrapping_add(number) % servers.len();
                let Some(server) = servers.get(at) else {
                    continue;
                };
                match timeout(patience, ask(*server, key, by_tcp)).await {
                    Ok(Ok(found)) => {
                        if !rotates {
                            self.first.set(at);
                        }
                        return Ok(found);
                    }
                    Ok(Err(error)) => failure = error,
                    Err(_elapsed) => failure = Failure::Silent,
                }
            }
        }
        Err(failure)
    }
}

/// Asks one nameserver: by UDP, then by TCP if the answer is cut off. Some do not know EDNS: these are asked again without
/// it.
async fn ask(server: SocketAddr, key: &Key, by_tcp: bool) -> Result<Found, Failure> {
    let answer = ask_with(server, key, by_tcp, true).await;
    let Err(Failure::Code(Some(Rcode::FORMERR | Rcode::NOTIMP))) = answer else {
        return answer;
    };
    ask_with(server, key, by_tcp, false).await
}

async fn ask_with(
    server: SocketAddr,
    key: &Key,
    by_tcp: bool,
    with_options: bool,
) -> Result<Found, Failure> {
    let query = Query::new(key, with_options).ok_or(Failure::GivenUp)?;
    if !by_tcp && let Some(found) = udp::ask(server, &query).await? {
        return Ok(found);
    }
    tcp::ask(server, &query).await
}
