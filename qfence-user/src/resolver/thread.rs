//! The thread of a resolver.

use std::{io, panic::resume_unwind, rc::Rc, sync::Arc, thread};

use tokio::{
    net::{TcpListener, UdpSocket},
    runtime::{Builder, Runtime},
    sync::{oneshot, watch},
    task::{JoinSet, LocalSet, spawn_local},
};

use super::{
    bucket::{QUERIES, Rate},
    counts::Counts,
    desk::Desk,
    ends::{Ends, Nameservers},
    flight::Flights,
    serve::{Server, serve_tcp, serve_udp},
    sockets::{Endpoint, Sockets},
    upstream::Upstream,
};

/// A resolver that serves.
#[derive(Debug)]
pub struct Resolver;

/// The owner's end of a resolver. Dropping it ends the resolver.
#[derive(Debug)]
pub struct Handle {
    endpoint: Endpoint,
    counts: Arc<Counts>,
    stop: Option<oneshot::Sender<()>>,
    /// The same sockets, so that nobody else can bind their port if the thread ends by a panic.
    _held: Vec<(std::net::UdpSocket, std::net::TcpListener)>,
    thread: Option<thread::JoinHandle<()>>,
}

/// What the thread serves.
struct Served {
    sockets: Registered,
    ends: Ends,
    rate: Rate,
    counts: Arc<Counts>,
}

/// Sockets that are registered with the runtime.
struct Registered {
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
}

impl Resolver {
    /// Starts a thread that serves.
    ///
    /// # Errors
    /// If no thread or no runtime can be made.
    pub fn start(
        sockets: Sockets,
        ends: Ends,
        nameservers: watch::Receiver<Nameservers>,
    ) -> io::Result<Handle> {
        Self::start_at(sockets, ends, nameservers, QUERIES)
    }

    /// Starts a thread that serves no more queries than this.
    pub(super) fn start_at(
        sockets: Sockets,
        ends: Ends,
        nameservers: watch::Receiver<Nameservers>,
        rate: Rate,
    ) -> io::Result<Handle> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let endpoint = sockets.endpoint();
        let pairs = sockets.pairs.iter();
        let held = pairs.map(|pair| Ok((pair.udp.try_clone()?, pair.tcp.try_clone()?)));
        let held = held.collect::<io::Result<_>>()?;
        let registered = register(&runtime, sockets)?;
        let counts = Arc::<Counts>::default();
        let (stop, stopped) = oneshot::channel();
        let served = Arc::clone(&counts);
        let thread = thread::Builder::new()
            .name("resolver".to_owned())
            .spawn(move || {
                let served = Served {
                    sockets: registered,
                    ends,
                    rate,
                    counts: served,
                };
                serve(&runtime, served, nameservers, stopped);
            })?;
        Ok(Handle {
            endpoint,
            counts,
            stop: Some(stop),
            _held: held,
            thread: Some(thread),
        })
    }
}

fn register(runtime: &Runtime, sockets: Sockets) -> io::Result<Registered> {
    let _entered = runtime.enter();
    let mut registered = Registered {
        udp: Vec::new(),
        tcp: Vec::new(),
    };
    for pair in sockets.pairs {
        registered.udp.push(UdpSocket::from_std(pair.udp)?);
        registered.tcp.push(TcpListener::from_std(pair.tcp)?);
    }
    Ok(registered)
}

fn serve(
    runtime: &Runtime,
    served: Served,
    mut nameservers: watch::Receiver<Nameservers>,
    stopped: oneshot::Receiver<()>,
) {
    let Served {
        sockets,
        ends,
        rate,
        counts,
    } = served;
    let local = LocalSet::new();
    local.block_on(runtime, async move {
        let upstream = Upstream::new(nameservers.clone());
        let flights = Rc::new(Flights::new(upstream, Arc::clone(&counts)));
        let desk = Desk {
            ends,
            flights: Rc::clone(&flights),
            counts,
        };
        let server = Rc::new(Server::new(desk, rate));
        let mut loops = JoinSet::new();
        for socket in sockets.udp {
            loops.spawn_local(serve_udp(Rc::clone(&server), Rc::new(socket)));
        }
        for listener in sockets.tcp {
            loops.spawn_local(serve_tcp(Rc::clone(&server), listener));
        }
        spawn_local(async move {
            while nameservers.changed().await.is_ok() {
                flights.forget();
            }
        });
        tokio::select! {
            // An error: the handle was dropped.
            _ = stopped => {}
            // None ends but by a panic. A resolver that serves half of its sockets is none: so the thread panics.
            Some(Err(error)) = loops.join_next() => {
                if let Ok(panic) = error.try_into_panic() {
                    resume_unwind(panic);
                }
            }
        }
    });
}

impl Handle {
    /// Where it listens.
    #[must_use]
    pub const fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    /// Its counters.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Why no nameserver answers, if so.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.counts.reach.trouble()
    }

    /// Whether its thread runs. It ends by a panic, or by [`Self::end`].
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let thread = self.thread.as_ref();
        thread.is_some_and(|thread| !thread.is_finished())
    }

    /// Ends it, and waits until its sockets are closed.
    ///
    /// # Errors
    /// If its thread panicked.
    pub fn end(mut self) -> thread::Result<()> {
        self.stop()
    }

    fn stop(&mut self) -> thread::Result<()> {
        drop(self.stop.take());
        self.thread.take().map_or(Ok(()), thread::JoinHandle::join)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // A panic was reported by the thread itself.
        let _ = self.stop();
    }
}
