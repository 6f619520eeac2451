//! The prefixes of this network's NAT64 translators, which its resolvers reveal (RFC 7050).
//!
//! A host without a global IPv6 address cannot send to a translator, so it sends no query. Otherwise there is one query to
//! each nameserver at first, when the nameservers or the addresses have changed, and from time to time.

mod message;

use std::{
    collections::BTreeSet,
    convert::Infallible,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio::{
    net::UdpSocket,
    sync::watch,
    time::{sleep_until, timeout},
};

use super::{
    addresses::Addresses,
    fact::Fact,
    nameservers::{Nameservers, ResolvConf},
    subscription::{Source, Subscription},
};
use crate::{
    base::random,
    policy::{Prefix, nameservers::Nameserver, nat64::translators},
};

/// The port of nameservers.
const PORT: u16 = 53;

/// How many nameservers are asked. C libraries use as many.
const ASKED: usize = 3;

/// The longest time to wait for responses.
const PATIENCE: Duration = Duration::from_secs(2);

/// The time between queries that are answered. The answer of a resolver is valid longer.
const PERIOD: Duration = Duration::from_secs(600);

/// The time after the first query that a nameserver has not answered. It doubles up to [`PERIOD`].
const RETRY: Duration = Duration::from_secs(30);

/// How many translators are known at most while a nameserver does not answer. No network has as many.
const MOST: usize = 32;

/// The shortest time between queries, while the host's addresses change.
const REST: Duration = Duration::from_secs(5);

/// The prefixes of translators, besides the well-known one.
pub type Translators = BTreeSet<Prefix>;

/// When the last question was sent to the nameservers; `None` before that.
pub type Asked = watch::Receiver<Option<Instant>>;

/// The translators of this network, as a fact that can be followed.
pub struct Nat64 {
    addresses: Subscription<Addresses>,
    nameservers: Source<ResolvConf>,
    /// `None` while the host has no global IPv6 address.
    followed: Option<Subscription<ResolvConf>>,
    /// The host's global IPv6 addresses at the last reading; `None` before it.
    global: Option<BTreeSet<Prefix>>,
    /// The nameservers at the last reading; `None` before it, and while the host has no global IPv6 address.
    servers: Option<Vec<Nameserver>>,
    found: Translators,
    /// The time after which nameservers are asked again, if one does not answer.
    retry: Duration,
    /// When the last reading began.
    asked: Option<Instant>,
    /// Is told when a question was sent.
    sent: Arc<watch::Sender<Option<Instant>>>,
    due: Option<Instant>,
}

impl Nat64 {
    /// Follows the translators of a network with these nameservers. Tells `sent` of each question. Must be called within a
    /// tokio runtime.
    #[must_use]
    pub fn new(
        addresses: &Source<Addresses>,
        nameservers: &Source<ResolvConf>,
        sent: &Arc<watch::Sender<Option<Instant>>>,
    ) -> Self {
        Self {
            addresses: addresses.subscribe(),
            nameservers: nameservers.clone(),
            followed: None,
            global: None,
            servers: None,
            found: Translators::new(),
            retry: RETRY,
            asked: None,
            sent: Arc::clone(sent),
            due: None,
        }
    }

    /// Reads the other facts.
    async fn look(&mut self) {
        if !self.addresses.is_followed() {
            // The task that reads them has ended. Their other subscribers start another one.
            return;
        }
        if let Ok(addresses) = self.addresses.reading().await {
            self.global = Some(addresses.global_v6());
        }
        if self.global.as_ref().is_none_or(BTreeSet::is_empty) {
            self.followed = None;
            self.servers = None;
            return;
        }
        let nameservers = &self.nameservers;
        let followed = self.followed.get_or_insert_with(|| nameservers.subscribe());
        if let Ok(found) = followed.reading().await {
            self.servers = Some(found.servers.clone());
        }
    }
}

impl Fact for Nat64 {
    type Value = Revealed;
    type Error = Infallible;

    async fn read(&mut self) -> Result<Revealed, Infallible> {
        self.look().await;
        let now = Instant::now();
        self.asked = Some(now);
        let sent = || {
            self.sent.send_replace(Some(Instant::now()));
        };
        let revealed = match (&self.global, &self.servers) {
            (Some(global), _) if global.is_empty() => Revealed::complete(Translators::new()),
            (Some(_), Some(servers)) if servers.is_empty() => {
                Revealed::complete(Translators::new())
            }
            (Some(_), Some(servers)) => ask(servers, PATIENCE, sent).await,
            // Other facts cannot be read.
            _ => Revealed::default(),
        };
        let is_complete = revealed.is_complete;
        let has_servers = self.servers.as_ref().is_some_and(|all| !all.is_empty());
        let period = if is_complete { PERIOD } else { self.retry };
        self.due = has_servers.then_some(now + period);
        self.retry = if is_complete {
            RETRY
        } else {
            (2 * self.retry).min(PERIOD)
        };
        revealed.put_in_place_of(&mut self.found);
        Ok(Revealed {
            translators: self.found.clone(),
            is_complete,
        })
    }

    async fn changed(&mut self) -> Result<(), Infallible> {
        loop {
            let due = self.due;
            let nameservers = async {
                match &mut self.followed {
                    Some(followed) => followed.changed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.addresses.changed() => (),
                () = nameservers => (),
                () = sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => return Ok(()),
            }
            let (global, servers) = (self.global.clone(), self.servers.clone());
            self.look().await;
            if self.servers != servers {
                self.retry = RETRY;
                return Ok(());
            }
            if self.global != global {
                let soon = self.asked.map_or_else(Instant::now, |asked| asked + REST);
                self.due = Some(self.due.map_or(soon, |due| due.min(soon)));
            }
        }
    }
}

/// What nameservers have revealed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revealed {
    translators: Translators,
    /// Whether each of them has answered. Otherwise there may be other translators.
    is_complete: bool,
}

impl Revealed {
    /// What a file names.
    #[must_use]
    pub const fn complete(translators: Translators) -> Self {
        Self {
            translators,
            is_complete: true,
        }
    }

    /// The translators, whatever was known before.
    #[must_use]
    pub fn translators(&self) -> &Translators {
        &self.translators
    }

    /// Puts them in place of those that were known. If a nameserver has not answered, these may be the same, and they stay.
    pub fn put_in_place_of(self, known: &mut Translators) {
        if self.is_complete {
            *known = self.translators;
            return;
        }
        for translator in self.translators {
            if known.len() < MOST {
                known.insert(translator);
            }
        }
    }

    /// The same, but those that were known stay in any case.
    pub fn add_to(mut self, known: &mut Translators) {
        self.is_complete = false;
        self.put_in_place_of(known);
    }
}

/// Asks each nameserver, and calls `sent` when all questions are on their way. Waits for each for at most `patience`.
async fn ask(servers: &[Nameserver], patience: Duration, sent: impl FnOnce()) -> Revealed {
    let questions = servers.iter().take(ASKED).map(Question::send);
    let questions = join_all(questions).await;
    sent();
    let answers = questions.into_iter().map(|question| async {
        let answer = timeout(patience, question?.answer()).await;
        answer.ok().flatten()
    });
    let answers = join_all(answers).await;
    Revealed {
        is_complete: answers.iter().all(Option::is_some),
        translators: translators(answers.into_iter().flatten().flatten()),
    }
}

/// A question to a nameserver for the IPv6 addresses of a name that has only IPv4 addresses.
struct Question {
    socket: UdpSocket,
    id: u16,
}

impl Question {
    /// Sends it; `None` if that fails.
    async fn send(server: &Nameserver) -> Option<Self> {
        let to = server.endpoint(PORT)?;
        let any = match to.ip() {
            IpAddr::V4(_) => SocketAddr::from(([0; 4], 0)),
            IpAddr::V6(_) => SocketAddr::from(([0; 16], 0)),
        };
        let socket = UdpSocket::bind(any).await.ok()?;
        // A connected socket receives from its peer only.
        socket.connect(to).await.ok()?;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "as many bits as an identifier has"
        )]
        let id = random::number() as u16;
        // The kernel does not wait for a datagram to leave.
        let sent = timeout(PATIENCE, socket.send(&message::query(id))).await;
        sent.ok()?.ok()?;
        Some(Self { socket, id })
    }

    async fn answer(self) -> Option<Vec<Ipv6Addr>> {
        let mut received = [0; message::LONGEST];
        loop {
            // A closed port is an error.
            let length = self.socket.recv(&mut received).await.ok()?;
            if let Some(found) = message::addresses(&received[..length], self.id) {
                return Some(found);
            }
        }
    }
}

/// Asks once, and waits for each nameserver for at most `patience`. Must be called within a tokio runtime.
pub async fn ask_once(
    global_v6: &BTreeSet<Prefix>,
    nameservers: &Nameservers,
    patience: Duration,
) -> Revealed {
    if global_v6.is_empty() || nameservers.servers.is_empty() {
        return Revealed::complete(Translators::new());
    }
    ask(&nameservers.servers, patience, || {}).await
}

#[cfg(test)]
mod tests;
