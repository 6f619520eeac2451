//! The HTTP server: `GET /metrics`, and nothing else.

use std::{convert::Infallible, sync::Arc, thread, time::Duration};

use anyhow::{Context, Result};
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::CONTENT_TYPE,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Semaphore, oneshot},
    task::LocalSet,
    time::{sleep, timeout},
};

use super::address::Listener;
use crate::say::say;

/// How many are served at once; others wait.
const AT_ONCE: usize = 4;

/// How long one may take to say what it wants, and to take it.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long before connections are accepted again, when that has failed.
const PAUSE: Duration = Duration::from_millis(100);

/// The format that is served.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the text comes from.
pub type Source = Arc<dyn Fn() -> Result<String> + Send + Sync>;

/// A server in a thread of its own, as long as this lives.
#[derive(Debug)]
pub struct Server {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Server {
    /// Starts it.
    ///
    /// # Errors
    /// If there can be no thread.
    pub fn start(listener: Listener, source: Source) -> Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("qfence-metrics".into())
            .spawn(move || {
                let serving = run(listener, source, async {
                    // Whoever held the other end is gone: that is the word.
                    let _ = stopped.await;
                });
                if let Err(error) = serving {
                    say(format_args!("error: metrics are not served: {error:#}"));
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
            // It has said what there was to say.
            let _ = thread.join();
        }
    }
}

/// Serves until `stop` is done.
///
/// # Errors
/// If there can be no event loop, or the listener cannot be polled.
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
    let places = Arc::new(Semaphore::new(AT_ONCE));
    match listener {
        Listener::Tcp(listener) => {
            let listener = tokio::net::TcpListener::from_std(listener.try_clone()?)?;
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => begin(stream, &places, &source).await?,
                    Err(_) => sleep(PAUSE).await,
                }
            }
        }
        Listener::Unix(listener, _) => {
            let listener = tokio::net::UnixListener::from_std(listener.try_clone()?)?;
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => begin(stream, &places, &source).await?,
                    Err(_) => sleep(PAUSE).await,
                }
            }
        }
    }
}

/// Serves one connection, beside others, once there is a place.
async fn begin<S>(stream: S, places: &Arc<Semaphore>, source: &Source) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let place = Arc::clone(places).acquire_owned().await?;
    let source = Arc::clone(source);
    tokio::task::spawn_local(async move {
        let service = service_fn(|request| {
            let response = answer(&request, &source);
            async { Ok::<_, Infallible>(response) }
        });
        let connection = http1::Builder::new()
            .keep_alive(false)
            .timer(TokioTimer::new())
            .header_read_timeout(PATIENCE / 2)
            .max_buf_size(16 * 1024)
            .serve_connection(TokioIo::new(stream), service);
        // What somebody else does wrong, or does not wait for, is no concern of this process.
        let _ = timeout(PATIENCE, connection).await;
        drop(place);
    });
    Ok(())
}

fn answer(request: &Request<Incoming>, source: &Source) -> Response<Full<Bytes>> {
    if request.uri().path() != "/metrics" {
        return plain(StatusCode::NOT_FOUND, "metrics are at /metrics\n".into());
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return plain(
            StatusCode::METHOD_NOT_ALLOWED,
            "GET or HEAD, please\n".into(),
        );
    }
    match source() {
        Ok(text) => {
            let mut response = plain(StatusCode::OK, text);
            let format = hyper::header::HeaderValue::from_static(OPENMETRICS);
            response.headers_mut().insert(CONTENT_TYPE, format);
            response
        }
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}\n")),
    }
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        os::unix::net::UnixStream,
    };

    use super::*;
    use crate::metrics::address::Address;

    #[test]
    fn metrics_are_served_at_their_path_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics");
        let listener = Listener::bind(&Address::Unix(path.clone())).unwrap();
        let server = Server::start(listener, Arc::new(|| Ok("x 1\n".to_owned()))).unwrap();
        let ask = |what: &str| {
            let mut stream = UnixStream::connect(&path).unwrap();
            write!(stream, "{what} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        };
        let answer = ask("GET /metrics");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(
            answer.contains("content-type: application/openmetrics-text"),
            "{answer}"
        );
        assert!(answer.ends_with("\r\n\r\nx 1\n"), "{answer}");
        assert!(ask("GET /").starts_with("HTTP/1.1 404 "));
        assert!(ask("POST /metrics").starts_with("HTTP/1.1 405 "));
        // Those who say nothing do not keep others out for long.
        let idle: Vec<_> = (0..AT_ONCE)
            .map(|_| UnixStream::connect(&path).unwrap())
            .collect();
        assert!(ask("GET /metrics").starts_with("HTTP/1.1 200 "));
        drop(idle);
        drop(server);
        assert!(!path.exists());
    }
}
