//! One reader of a fact, and any number of subscribers to its readings.
//!
//! A subscriber sees the latest reading. A slow subscriber misses intermediate ones, and delays neither the reader
//! nor the others.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use thiserror::Error;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::sleep,
};

use super::fact::Fact;

/// The time between a failure and the next attempt.
const RETRY: Duration = Duration::from_secs(1);

/// How long a reading may take before the previous one counts as outdated.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why there is no reading.
#[derive(Debug, Error)]
pub enum Unknown<E: std::error::Error + 'static> {
    /// It cannot be read or followed. The reader tries again every second.
    #[error(transparent)]
    Failed(Arc<E>),
    /// The reader's task has ended.
    #[error("the task that reads it has ended")]
    Ended,
}

/// The result of a reading.
type Reading<F> = Result<Arc<<F as Fact>::Value>, Arc<<F as Fact>::Error>>;

/// The state that subscribers see.
struct Latest<F: Fact> {
    /// `None` before the first reading.
    reading: Option<Reading<F>>,
    /// When the current reading began, if one is in progress.
    reading_since: Option<Instant>,
}

/// A request for a reading that begins after it.
type Ask = oneshot::Sender<()>;

/// A fact that can be subscribed to.
pub struct Source<F: Fact> {
    make: Arc<dyn Fn() -> F + Send + Sync>,
    reader: Arc<Mutex<Option<Reader<F>>>>,
}

/// The task that reads a fact. It ends after its last subscriber is gone.
struct Reader<F: Fact> {
    asks: mpsc::WeakUnboundedSender<Ask>,
    latest: watch::Receiver<Latest<F>>,
}

/// A subscription to a fact.
pub struct Subscription<F: Fact> {
    source: Source<F>,
    asks: mpsc::UnboundedSender<Ask>,
    latest: watch::Receiver<Latest<F>>,
}

impl<F: Fact> Source<F> {
    /// A source that reads the fact from `make`, after the first subscription.
    pub fn new(make: impl Fn() -> F + Send + Sync + 'static) -> Self {
        Self {
            make: Arc::new(make),
            reader: Arc::default(),
        }
    }

    /// Subscribes, and starts the reader if there is none. Must be called within a tokio runtime.
    #[must_use]
    pub fn subscribe(&self) -> Subscription<F> {
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Reader { asks, latest }) = &*reader
            && let Some(asks) = asks.upgrade()
            && !asks.is_closed()
        {
            let latest = latest.clone();
            let source = self.clone();
            return Subscription {
                source,
                asks,
                latest,
            };
        }
        let (asks, asked) = mpsc::unbounded_channel();
        let (publish, latest) = watch::channel(Latest {
            reading: None,
            reading_since: Some(Instant::now()),
        });
        tokio::spawn(read_for_all((self.make)(), asked, publish));
        *reader = Some(Reader {
            asks: asks.downgrade(),
            latest: latest.clone(),
        });
        Subscription {
            source: self.clone(),
            asks,
            latest,
        }
    }
}

impl<F: Fact> Subscription<F> {
    /// The latest reading. Waits for the first.
    ///
    /// # Errors
    /// If the latest attempt to read or follow the fact failed.
    pub async fn reading(&mut self) -> Result<Arc<F::Value>, Unknown<F::Error>> {
        let latest = self.latest.wait_for(|latest| latest.reading.is_some());
        match latest.await.map(|latest| latest.reading.clone()) {
            Ok(Some(Ok(value))) if !self.asks.is_closed() => Ok(value),
            Ok(Some(Err(error))) => Err(Unknown::Failed(error)),
            _ => Err(Unknown::Ended),
        }
    }

    /// The latest reading, without waiting; `None` before the first one, and if it failed.
    #[must_use]
    pub fn latest(&mut self) -> Option<Arc<F::Value>> {
        let latest = self.latest.borrow_and_update();
        latest.reading.as_ref()?.as_ref().ok().cloned()
    }

    /// A reading that begins after this call.
    ///
    /// # Errors
    /// As [`Subscription::reading`].
    pub async fn fresh(&mut self) -> Result<Arc<F::Value>, Unknown<F::Error>> {
        let (ask, answered) = oneshot::channel();
        let asked = self.asks.send(ask).map_err(|_| Unknown::Ended);
        asked?;
        answered.await.map_err(|_| Unknown::Ended)?;
        self.reading().await
    }

    /// Waits for a reading that differs from the last one that was seen, or for a failure. Cancel safe.
    pub async fn changed(&mut self) {
        if self.latest.changed().await.is_err() {
            // No further changes will come. `is_true` shows that.
            std::future::pending::<()>().await;
        }
    }

    /// Whether there is a reading that was not seen yet.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        self.latest.has_changed().unwrap_or(false)
    }

    /// Whether the reader is alive.
    #[must_use]
    pub fn is_followed(&self) -> bool {
        !self.asks.is_closed()
    }

    /// Subscribes again if the reader has ended. Must be called within a tokio runtime.
    pub fn subscribe_again(&mut self) {
        if !self.is_followed() {
            *self = self.source.subscribe();
        }
    }

    /// Whether the latest reading matches the host as far as is known: the fact is followed, and no reading is
    /// overdue.
    #[must_use]
    pub fn is_true(&self) -> bool {
        let latest = self.latest.borrow();
        let is_late = latest
            .reading_since
            .is_some_and(|since| since.elapsed() >= PATIENCE);
        self.is_followed() && matches!(latest.reading, Some(Ok(_))) && !is_late
    }
}

/// Reads a fact whenever it may have changed, and on request.
async fn read_for_all<F: Fact>(
    mut fact: F,
    mut asked: mpsc::UnboundedReceiver<Ask>,
    latest: watch::Sender<Latest<F>>,
) {
    let mut asks: Vec<Ask> = Vec::new();
    loop {
        while let Ok(ask) = asked.try_recv() {
            asks.push(ask);
        }
        latest.send_if_modified(|latest| {
            latest.reading_since = Some(Instant::now());
            false
        });
        let reading = fact.read().await;
        let has_failed = reading.is_err();
        publish(&latest, reading);
        for ask in asks.drain(..) {
            // The other side may be gone.
            let _ = ask.send(());
        }
        let changed = async {
            if has_failed {
                sleep(RETRY).await;
                return Ok(());
            }
            fact.changed().await
        };
        tokio::select! {
            ask = asked.recv() => match ask {
                Some(ask) => asks.push(ask),
                None => return,
            },
            changed = changed => if let Err(error) = changed {
                publish(&latest, Err(error));
                sleep(RETRY).await;
            },
        }
    }
}

/// Publishes a reading. Subscribers are woken if it differs from the previous one, or failed.
fn publish<F: Fact>(latest: &watch::Sender<Latest<F>>, reading: Result<F::Value, F::Error>) {
    latest.send_if_modified(|latest| {
        latest.reading_since = None;
        let is_same = match (&latest.reading, &reading) {
            (Some(Ok(before)), Ok(now)) => **before == *now,
            _ => false,
        };
        if !is_same {
            latest.reading = Some(reading.map(Arc::new).map_err(Arc::new));
        }
        !is_same
    });
}

impl<F: Fact> Clone for Source<F> {
    fn clone(&self) -> Self {
        Self {
            make: Arc::clone(&self.make),
            reader: Arc::clone(&self.reader),
        }
    }
}

impl<F: Fact> fmt::Debug for Source<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").finish_non_exhaustive()
    }
}

impl<F: Fact> fmt::Debug for Subscription<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
