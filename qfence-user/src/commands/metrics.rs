//! `metrics`: shows or serves the counters of all fences of the host.

use std::{io, sync::Arc};

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

use super::{print, require_root};
use crate::{
    base::paths::Paths,
    cli::Metrics,
    observe::metrics::{
        address::Listener,
        collect::collect,
        encode::{Format, exposition},
        serve::{self, Source},
        textfile,
    },
};

/// Runs `metrics`.
///
/// # Errors
/// If the fences cannot be listed, or the metrics cannot be written or served.
pub fn run(options: &Metrics, paths: &Paths) -> Result<()> {
    require_root()?;
    let source = source(paths, None);
    if let Some(address) = &options.listen {
        return serve::run(Listener::bind(address)?, source, async {
            // If the signals cannot be received, they end this process directly.
            let _ = ended().await;
        });
    }
    match &options.textfile {
        Some(path) => textfile::write(path, &text(paths, None, Format::Prometheus)?),
        None => print(source()?.trim_end()),
    }
}

/// The source of the metrics: those of all fences, or of the fence `only`, at the time of the request.
pub(super) fn source(paths: &Paths, only: Option<&str>) -> Source {
    let (paths, only) = (paths.clone(), only.map(str::to_owned));
    Arc::new(move || text(&paths, only.as_deref(), Format::OpenMetrics))
}

fn text(paths: &Paths, only: Option<&str>, format: Format) -> Result<String> {
    let samples = collect(paths, only).context("cannot collect the metrics")?;
    exposition(&samples, format)
}

/// Waits for a signal that asks to end.
async fn ended() -> io::Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminated.recv() => {}
        _ = interrupted.recv() => {}
    }
    Ok(())
}
