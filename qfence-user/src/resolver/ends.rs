//! What the resolver needs of its fence. It knows neither the policy nor the kernel; both are behind these traits.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use qfence_common::resolved::Grant;

use crate::policy::{domain::DomainName, resolv_options::ResolvOptions};

/// The protocol by which a query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// A datagram.
    Udp,
    /// A message on a connection.
    Tcp,
}

/// The decision of the rules on a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Permission {
    /// The name is resolved.
    Allowed {
        /// The number of the rule that decided.
        rule: u32,
        /// What the addresses of the name are opened for. If it is empty, nothing is published, and no address is struck:
        /// then the policy judges the addresses of the answer as all others.
        grants: Vec<Grant>,
    },
    /// The name does not exist for the fence.
    Denied {
        /// The number of the rule that decided.
        rule: u32,
    },
}

/// The rules of the policy in force. It is asked for each query, and may change between two queries.
pub trait Rules: Send + Sync {
    /// Decides on a name.
    fn permission(&self, name: &DomainName) -> Permission;
}

/// Why an address was not put in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotPublished {
    /// There is no more room for addresses of names.
    Full,
    /// The kernel failed to.
    Failed,
}

/// The addresses in force.
pub trait Publisher: Send + Sync {
    /// Puts an address in force for this time; for up to a second less if it is in force already. It never shortens the time
    /// of an address. When it returns, the kernel allows the address.
    ///
    /// The answer is sent afterwards. The resolver calls this on its thread for each answer, from the cache too.
    ///
    /// The rules can change after they were asked about the name. What they do not allow any more is not in force when
    /// this returns.
    ///
    /// # Errors
    /// If there is no room, or the kernel fails to. The address is then left out of the answer.
    fn publish(
        &self,
        name: &DomainName,
        address: IpAddr,
        grants: &[Grant],
        lasts: Duration,
    ) -> Result<(), NotPublished>;
}

/// The addresses that no name opens.
pub trait Guarded: Send + Sync {
    /// Why a name never opens an address: `host`, `lan`, and so on. `None` if it may. It is asked after [`Rules`], for each
    /// address of an answer.
    fn reason(&self, address: IpAddr) -> Option<&'static str>;
}

/// Those who may ask.
pub trait Askers: Send + Sync {
    /// Whether a query from this source is the fence's.
    fn is_of_fence(&self, source: SocketAddr, transport: Transport) -> bool;
}

/// The record of look-ups.
pub trait Reporter: Send + Sync {
    /// Takes a look-up that is answered. It must not block.
    fn lookup(&self, lookup: Lookup);
}

/// The result of a look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// The rules allow the name.
    Allowed,
    /// The rules do not allow it.
    Denied,
    /// The rules allow it, but no nameserver gave an answer.
    Failed,
    /// The rules allow it, but there was no room for some of its addresses, or for all.
    Full,
    /// The rules allow it, but the kernel failed to put some of its addresses in force, or all.
    Unpublished,
}

/// A look-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// The name, as text. Names that no rule can have are escaped.
    pub name: Arc<str>,
    /// The type: `A`, `AAAA`, …
    pub kind: Arc<str>,
    /// The protocol of the query.
    pub transport: Transport,
    /// The source of the query.
    pub source: SocketAddr,
    /// The result.
    pub verdict: Verdict,
    /// The number of the rule that decided. `None` if no rule was asked: the name is none that a rule can have.
    pub rule: Option<u32>,
    /// The response code (RFC 1035, 4.1.1).
    pub rcode: u8,
    /// The addresses in the answer.
    pub addresses: Vec<IpAddr>,
    /// The addresses that are not in the answer, because no name opens them, and why.
    pub struck: Vec<(IpAddr, &'static str)>,
    /// The time to live of the answer, in seconds.
    pub ttl: u32,
    /// Why no nameserver gave an answer, if so.
    pub error: Option<Arc<str>>,
}

/// All that the resolver needs of its fence.
#[derive(Clone)]
#[expect(missing_debug_implementations, reason = "trait objects")]
pub struct Ends {
    /// The rules.
    pub rules: Arc<dyn Rules>,
    /// The addresses in force.
    pub publisher: Arc<dyn Publisher>,
    /// The addresses that no name opens.
    pub guarded: Arc<dyn Guarded>,
    /// Those who may ask.
    pub askers: Arc<dyn Askers>,
    /// The record.
    pub reporter: Arc<dyn Reporter>,
}

/// The nameservers of the host, and how they are asked: resolv.conf(5).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nameservers {
    /// Where they receive queries. The first [`Self::USED`] are asked.
    pub servers: Vec<SocketAddr>,
    /// How they are asked.
    pub options: ResolvOptions,
}

impl Nameservers {
    /// How many nameservers are asked. C libraries use as many.
    pub const USED: usize = 3;
}
