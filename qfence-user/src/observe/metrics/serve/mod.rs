//! The HTTP server: `GET /metrics`, and nothing else.

use std::{convert::Infallible, rc::Rc, thread, time::Duration};

use anyhow::{Context, Result};
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::oneshot,
    task::{LocalSet, spawn_local},
    time::{sleep, timeout},
};

pub use super::gather::Source;
use super::{
    address::Listener,
    connections::Connections,
    gather::{Gatherer, NoText},
};
use crate::base::console::notify;

/// The maximum number of connections. Another one replaces an idle one, or waits.
const AT_ONCE: usize = 16;

/// How long a connection may take to send its request.
const PATIENCE_ASKING: Duration = Duration::from_secs(2);

/// How long a collection may take. Prometheus waits for 10 s by default.
const PATIENCE_COLLECTING: Duration = Duration::from_secs(5);

/// The maximum duration of a connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// The pause after accepting a connection has failed.
const PAUSE: Duration = Duration::from_millis(100);

/// The content type of the answer.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A server in its own thread. Dropping it ends the server.
#[derive(Debug)]
pub struct Server {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Server {
    /// Starts the server.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(listener: Listener, source: Source) -> Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("qfence-metrics".into())
            .spawn(move || {
                let serving = run(listener, source, async {
                    // This returns when the sender is dropped, which means to stop.
                    let _ = stopped.await;
                });
                if let Err(error) = serving {
                    notify(format_args!("error: metrics are not served: {error:#}"));
                }
            })
            .context("cannot start the thread that serves metrics")?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // The thread has already reported its error.
            let _ = thread.join();
        }
    }
}

/// Serves until `stop` completes.
///
/// # Errors
/// If the event loop cannot be started, or the listener cannot be polled.
pub fn run(listener: Listener, source: Source, stop: impl Future<Output = ()>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    LocalSet::new().block_on(&runtime, async {
        tokio::select! {
            served = accept(&listener, source) => served,
            () = stop => Ok(()),
        }
    })
}

async fn accept(listener: &Listener, source: Source) -> Result<()> {
    let gatherer = Rc::new(Gatherer::new(source, PATIENCE_COLLECTING));
    let mut connections = Connections::new(AT_ONCE);
    match listener {
        Listener::Tcp(listener) => {
            let listener = tokio::net::TcpListener::from_std(listener.try_clone()?)?;
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => begin(stream, &mut connections, &gatherer).await,
                    Err(_) => sleep(PAUSE).await,
                }
            }
        }
        Listener::Unix(listener, _) => {
            let listener = tokio::net::UnixListener::from_std(listener.try_clone()?)?;
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => begin(stream, &mut connections, &gatherer).await,
                    Err(_) => sleep(PAUSE).await,
                }
            }
        }
    }
}

/// Serves one connection in a task of its own, once there is a place for it.
async fn begin<S>(stream: S, connections: &mut Connections, gatherer: &Rc<Gatherer>)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    connections.room().await;
    let gatherer = Rc::clone(gatherer);
    connections.add(|seat| {
        let serving = spawn_local(async move {
            let service = service_fn(|request| {
                seat.asked();
                let (gatherer, seat) = (Rc::clone(&gatherer), &seat);
                async move {
                    let answer = answer(&request, &gatherer).await;
                    seat.answered();
                    Ok::<_, Infallible>(answer)
                }
            });
            let connection = http1::Builder::new()
                .keep_alive(false)
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE_ASKING)
                .max_buf_size(16 * 1024)
                .serve_connection(TokioIo::new(stream), service);
            // Errors of the client do not matter here, and neither does a client that does not wait.
            let _ = timeout(PATIENCE, connection).await;
        });
        serving.abort_handle()
    });
}

async fn answer(request: &Request<Incoming>, gatherer: &Gatherer) -> Response<Full<Bytes>> {
    if request.uri().path() != "/metrics" {
        return plain(StatusCode::NOT_FOUND, "metrics are at /metrics\n");
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "use GET or HEAD\n");
    }
    match gatherer.text().await {
        Ok(text) => {
            let mut response = plain(StatusCode::OK, text);
            let format = HeaderValue::from_static(OPENMETRICS);
            response.headers_mut().insert(CONTENT_TYPE, format);
            response
        }
        Err(error) => {
            let status = match error {
                NoText::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
                NoText::Late(_) => StatusCode::SERVICE_UNAVAILABLE,
            };
            plain(status, format!("{error}\n"))
        }
    }
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests;
