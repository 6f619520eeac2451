//! Collects the metrics in a thread, so that a slow collection does not stall the event loop.

use std::{cell::RefCell, sync::Arc, thread, time::Duration};

use anyhow::Result;
use hyper::body::Bytes;
use tokio::{sync::watch, time::timeout};

/// The function that collects the metrics and returns their text.
pub type Source = Arc<dyn Fn() -> Result<String> + Send + Sync>;

/// The text, or the error.
type Outcome = Result<Bytes, String>;

/// The reason why there is no text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoText {
    /// The collection failed.
    #[error("{0}")]
    Failed(String),
    /// The collection takes too long.
    #[error("collecting the metrics takes longer than {0:?}; try again")]
    Late(Duration),
}

/// Runs at most one collection at a time. Requests during a collection wait for its result.
pub(super) struct Gatherer {
    source: Source,
    patience: Duration,
    under_way: RefCell<Option<watch::Receiver<Option<Outcome>>>>,
}

impl Gatherer {
    /// A gatherer whose callers wait at most `patience`.
    pub(super) fn new(source: Source, patience: Duration) -> Self {
        Self {
            source,
            patience,
            under_way: RefCell::new(None),
        }
    }

    /// The text.
    ///
    /// # Errors
    /// If the collection fails, or does not finish in time.
    pub(super) async fn text(&self) -> Result<Bytes, NoText> {
        let mut outcome = self.outcome()?;
        let waited = timeout(self.patience, outcome.wait_for(Option::is_some)).await;
        let Ok(outcome) = waited else {
            return Err(NoText::Late(self.patience));
        };
        let outcome = outcome.ok().and_then(|outcome| outcome.clone());
        outcome
            .unwrap_or_else(|| Err("the thread that collects the metrics has failed".into()))
            .map_err(NoText::Failed)
    }

    /// The result of the current collection. Starts one if none is running.
    fn outcome(&self) -> Result<watch::Receiver<Option<Outcome>>, NoText> {
        let mut under_way = self.under_way.borrow_mut();
        // If the sender is gone, there will be no result.
        let goes_on = |outcome: &&watch::Receiver<Option<Outcome>>| {
            outcome.borrow().is_none() && outcome.has_changed().is_ok()
        };
        if let Some(outcome) = under_way.as_ref().filter(goes_on) {
            return Ok(outcome.clone());
        }
        let (sender, outcome) = watch::channel(None);
        let source = Arc::clone(&self.source);
        let collect = move || {
            let text = source().map(Bytes::from);
            // All receivers may be gone.
            let _ = sender.send(Some(text.map_err(|error| format!("{error:#}"))));
        };
        // The thread is not joined: if it blocks in the kernel, it would keep the server from ending.
        thread::Builder::new()
            .name("qfence-collect".into())
            .spawn(collect)
            .map_err(|error| NoText::Failed(format!("cannot start a thread: {error}")))?;
        *under_way = Some(outcome.clone());
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
        mpsc,
    };

    use anyhow::bail;
    use tokio::join;

    use super::*;

    /// A generous limit for a hang, not a measurement.
    const HANG: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn who_asks_meanwhile_gets_the_same_and_who_asks_then_gets_it_anew() {
        let begun = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&begun);
        let source = move || {
            thread::sleep(Duration::from_millis(50));
            Ok((count.fetch_add(1, Ordering::Relaxed) + 1).to_string())
        };
        let gatherer = Gatherer::new(Arc::new(source), HANG);
        let (one, other) = join!(gatherer.text(), gatherer.text());
        assert_eq!((one.unwrap(), other.unwrap()), ("1".into(), "1".into()));
        assert_eq!(gatherer.text().await.unwrap(), "2");
        assert_eq!(begun.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn what_is_stuck_is_not_waited_for_nor_begun_again() {
        let (let_go, stuck) = mpsc::channel::<()>();
        let (stuck, begun) = (Mutex::new(stuck), Arc::new(AtomicU32::new(0)));
        let count = Arc::clone(&begun);
        let source = move || {
            count.fetch_add(1, Ordering::Relaxed);
            let _ = stuck.lock().map(|stuck| stuck.recv());
            Ok(String::new())
        };
        let gatherer = Gatherer::new(Arc::new(source), Duration::from_millis(20));
        for _ in 0..3 {
            assert!(matches!(gatherer.text().await, Err(NoText::Late(_))));
        }
        assert_eq!(begun.load(Ordering::Relaxed), 1);
        drop(let_go);
    }

    #[tokio::test]
    async fn what_fails_is_told_and_tried_again() {
        let gatherer = Gatherer::new(Arc::new(|| bail!("no")), HANG);
        for _ in 0..2 {
            assert_eq!(gatherer.text().await, Err(NoText::Failed("no".into())));
        }
    }
}
