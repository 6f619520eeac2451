//! Resolvers that serve, between clients and scripted nameservers of the tests, all on the loopback device.

mod answers;
mod bounds;
mod client;
mod fence;
mod nameserver;
mod options;
mod strangers;
mod trouble;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use domain::base::Rtype;
use tokio::sync::watch;

use self::{
    client::{Answered, Client},
    fence::Fence,
    nameserver::Scripted,
};
use super::{
    Handle, Nameservers, Resolver, Sockets,
    bucket::{QUERIES, Rate},
};

/// How long a test waits for what must happen.
const HANG: Duration = Duration::from_secs(60);

/// A resolver that serves a fence.
struct Served {
    handle: Handle,
    fence: Arc<Fence>,
    nameservers: watch::Sender<Nameservers>,
}

impl Served {
    /// Starts one with these nameservers.
    fn by(servers: &[SocketAddr]) -> Self {
        Self::start(servers, QUERIES)
    }

    /// Starts one without nameservers that answers no more queries than this.
    fn at_rate(rate: Rate) -> Self {
        Self::start(&[], rate)
    }

    fn start(servers: &[SocketAddr], rate: Rate) -> Self {
        let fence = Arc::<Fence>::default();
        let (nameservers, followed) = watch::channel(Nameservers {
            servers: servers.to_vec(),
            ..Nameservers::default()
        });
        let sockets = Sockets::bind().unwrap();
        let handle = Resolver::start_at(sockets, Fence::ends(&fence), followed, rate).unwrap();
        Self {
            handle,
            fence,
            nameservers,
        }
    }

    fn v4(&self) -> SocketAddr {
        let endpoint = self.handle.endpoint();
        (endpoint.v4, endpoint.port).into()
    }

    async fn client(&self) -> Client {
        Client::of(self.v4()).await
    }

    /// Asks as a new client.
    async fn ask(&self, name: &str, kind: Rtype) -> Answered {
        self.client().await.ask(name, kind).await
    }
}

/// Waits until a condition is met.
async fn until(mut is_met: impl FnMut() -> bool) {
    let wait = async {
        while !is_met() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(HANG, wait).await.unwrap();
}
