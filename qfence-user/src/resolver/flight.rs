//! Questions on their way to nameservers. A question that is on its way already is not asked a second time.

use std::{cell::RefCell, collections::HashMap, rc::Rc, sync::Arc, time::Instant};

use tokio::{sync::oneshot, task::spawn_local, time::sleep};

use super::{
    bucket::{Bucket, QUESTIONS},
    cache::{Cache, Key},
    counts::Counts,
    found::Found,
    upstream::{Failure, Upstream},
};

/// What nameservers say to a question.
pub(super) type Outcome = Result<Arc<Found>, Failure>;

/// The cache, the questions on their way, and the nameservers.
pub(super) struct Flights {
    cache: RefCell<Cache>,
    waiting: RefCell<HashMap<Key, Vec<oneshot::Sender<Outcome>>>>,
    bucket: RefCell<Bucket>,
    upstream: Upstream,
    counts: Arc<Counts>,
}

impl Flights {
    pub(super) fn new(upstream: Upstream, counts: Arc<Counts>) -> Self {
        Self {
            cache: RefCell::default(),
            waiting: RefCell::default(),
            bucket: RefCell::new(Bucket::new(QUESTIONS, Instant::now())),
            upstream,
            counts,
        }
    }

    /// The answer in the cache, and how many seconds it is still valid.
    pub(super) fn cached(&self, key: &Key) -> Option<(Arc<Found>, u32)> {
        self.cache.borrow().get(key, Instant::now())
    }

    /// Forgets all answers, because the nameservers are others.
    pub(super) fn forget(&self) {
        self.cache.take();
    }

    /// Asks a question, or waits for the answer to it if it is on its way.
    pub(super) async fn ask(self: &Rc<Self>, key: &Key) -> Outcome {
        let (sender, outcome) = oneshot::channel();
        let is_first = {
            let mut waiting = self.waiting.borrow_mut();
            let senders = waiting.entry(key.clone()).or_default();
            senders.push(sender);
            senders.len() == 1
        };
        if is_first {
            spawn_local(Flight::fly(Rc::clone(self), key.clone()));
        }
        outcome.await.unwrap_or(Err(Failure::GivenUp))
    }
}

/// A question on its way. When it ends, nobody waits for it any more.
struct Flight {
    flights: Rc<Flights>,
    key: Key,
}

impl Flight {
    async fn fly(flights: Rc<Flights>, key: Key) {
        let flight = Self { flights, key };
        let flights = &flight.flights;
        let wait = flights.bucket.borrow_mut().take(1, Instant::now());
        // To sleep for no time takes a millisecond: the precision of the runtime's clock.
        if !wait.is_zero() {
            sleep(wait).await;
        }
        flights.counts.asked.add();
        let outcome = flights.upstream.ask(&flight.key).await.map(Arc::new);
        flights.counts.reach.take(&outcome);
        match &outcome {
            Ok(found) => {
                let (key, found) = (flight.key.clone(), Arc::clone(found));
                flights.cache.borrow_mut().put(key, found, Instant::now());
            }
            Err(_) => flights.counts.unanswered.add(),
        }
        let waiting = flights.waiting.borrow_mut().remove(&flight.key);
        for sender in waiting.into_iter().flatten() {
            // Who asked may have gone.
            let _ = sender.send(outcome.clone());
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.flights.waiting.borrow_mut().remove(&self.key);
    }
}
