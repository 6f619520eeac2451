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

/// The time after a query without an answer.
const RETRY: Duration = Duration::from_secs(30);

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
    /// The host's global IPv6 addresses at the last reading.
    global: BTreeSet<Prefix>,
    /// The nameservers at the last reading.
    servers: Vec<Nameserver>,
    found: Translators,
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
            global: BTreeSet::new(),
            servers: Vec::new(),
            found: Translators::new(),
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
            self.global = addresses.global_v6();
        }
        if self.global.is_empty() {
            self.followed = None;
            self.servers.clear();
            return;
        }
        let nameservers = &self.nameservers;
        let followed = self.followed.get_or_insert_with(|| nameservers.subscribe());
        if let Ok(found) = followed.reading().await {
            self.servers.clone_from(&found.servers);
        }
    }
}

impl Fact for Nat64 {
    type Value = Translators;
    type Error = Infallible;

    async fn read(&mut self) -> Result<Translators, Infallible> {
        self.look().await;
        let now = Instant::now();
        self.asked = Some(now);
        let sent = || {
            self.sent.send_replace(Some(Instant::now()));
        };
        if self.servers.is_empty() {
            self.found.clear();
            self.due = None;
        } else if let Some(found) = ask(&self.servers, sent).await {
            self.found = found;
            self.due = Some(now + PERIOD);
        } else {
            // Without an answer the translators may be the same.
            self.due = Some(now + RETRY);
        }
        Ok(self.found.clone())
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
                return Ok(());
            }
            if self.global != global {
                let soon = self.asked.map_or_else(Instant::now, |asked| asked + REST);
                self.due = Some(self.due.map_or(soon, |due| due.min(soon)));
            }
        }
    }
}

/// Asks each nameserver, and calls `sent` when all questions are on their way. `None` if none of them answers.
async fn ask(servers: &[Nameserver], sent: impl FnOnce()) -> Option<Translators> {
    let questions = servers.iter().take(ASKED).map(Question::send);
    let questions = join_all(questions).await;
    sent();
    let answers = questions.into_iter().flatten();
    let answers = answers.map(|question| timeout(PATIENCE, question.answer()));
    let mut answers = join_all(answers)
        .await
        .into_iter()
        .filter_map(|answer| answer.ok()?)
        .peekable();
    answers.peek()?;
    Some(translators(answers.flatten()))
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

/// Asks once, for at most `patience`. Must be called within a tokio runtime.
pub async fn ask_once(
    global_v6: &BTreeSet<Prefix>,
    nameservers: &Nameservers,
    patience: Duration,
) -> Translators {
    if global_v6.is_empty() || nameservers.servers.is_empty() {
        return Translators::new();
    }
    let asked = timeout(patience, ask(&nameservers.servers, || {})).await;
    asked.ok().flatten().unwrap_or_default()
}
