//! Subscribers to a fact that the test controls.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
};

use tokio::time::timeout;

use super::*;

/// Generous: a limit for hangs, not a measurement.
const HANG: Duration = Duration::from_secs(10);

/// A number that the test sets. Reading fails if it is 13, and ends the reader if it is 14.
struct Number {
    number: watch::Receiver<u64>,
    reads: Arc<AtomicU64>,
}

impl Fact for Number {
    type Value = u64;
    type Error = io::Error;

    async fn read(&mut self) -> Result<u64, io::Error> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        match *self.number.borrow_and_update() {
            13 => Err(io::Error::other("13")),
            14 => panic!("14"),
            number => Ok(number),
        }
    }

    async fn changed(&mut self) -> Result<(), io::Error> {
        self.number.changed().await.map_err(io::Error::other)
    }
}

struct Scene {
    set: watch::Sender<u64>,
    reads: Arc<AtomicU64>,
    source: Source<Number>,
}

impl Scene {
    fn new() -> Self {
        let (set, number) = watch::channel(1);
        let reads = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&reads);
        let source = Source::new(move || Number {
            number: number.clone(),
            reads: Arc::clone(&counted),
        });
        Self { set, reads, source }
    }

    fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }
}

async fn next(subscription: &mut Subscription<Number>) -> Result<u64, String> {
    timeout(HANG, subscription.changed())
        .await
        .expect("no change");
    let reading = timeout(HANG, subscription.reading()).await.expect("a hang");
    reading
        .map(|number| *number)
        .map_err(|error| error.to_string())
}

#[tokio::test]
async fn one_reading_is_for_all_subscribers_and_a_slow_one_delays_nobody() {
    let scene = Scene::new();
    let mut quick = scene.source.subscribe();
    let mut slow = scene.source.subscribe();
    assert_eq!(next(&mut quick).await, Ok(1));
    for number in 2..=5 {
        scene.set.send(number).unwrap();
        assert_eq!(next(&mut quick).await, Ok(number));
    }
    assert_eq!(scene.reads(), 5, "once for both");
    // It sees only the latest reading, once.
    assert_eq!(next(&mut slow).await, Ok(5));
    assert!(!slow.has_changed());
}

#[tokio::test]
async fn a_subscriber_that_is_gone_keeps_nothing_from_the_others_and_the_last_ends_the_reading() {
    let scene = Scene::new();
    let mut stays = scene.source.subscribe();
    let mut goes = scene.source.subscribe();
    assert_eq!(next(&mut goes).await, Ok(1));
    drop(goes);
    scene.set.send(2).unwrap();
    stays.latest.mark_unchanged();
    assert_eq!(next(&mut stays).await, Ok(2));
    assert_eq!(scene.reads(), 2);

    drop(stays);
    timeout(HANG, async {
        while scene.set.receiver_count() > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the task goes on without subscribers");
    scene.set.send(3).unwrap();
    // The next subscriber starts the reader again.
    let mut later = scene.source.subscribe();
    assert_eq!(next(&mut later).await, Ok(3));
    assert_eq!(scene.reads(), 3);
}

#[tokio::test]
async fn a_subscriber_whose_reader_has_ended_subscribes_again() {
    let scene = Scene::new();
    let mut subscription = scene.source.subscribe();
    assert_eq!(next(&mut subscription).await, Ok(1));
    subscription.subscribe_again();
    assert!(!subscription.has_changed(), "control: it is the same one");
    scene.set.send(14).unwrap();
    timeout(HANG, async {
        while subscription.is_followed() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the reader goes on");
    scene.set.send(2).unwrap();
    subscription.subscribe_again();
    assert!(subscription.is_followed());
    assert_eq!(next(&mut subscription).await, Ok(2));
}

#[tokio::test]
async fn a_failure_is_seen_by_all_and_tried_again() {
    let scene = Scene::new();
    let mut subscriptions = [scene.source.subscribe(), scene.source.subscribe()];
    scene.set.send(13).unwrap();
    for subscription in &mut subscriptions {
        assert_eq!(next(subscription).await, Err("13".into()));
        assert!(!subscription.is_true());
    }
    scene.set.send(2).unwrap();
    for subscription in &mut subscriptions {
        assert_eq!(next(subscription).await, Ok(2));
        assert!(subscription.is_true());
    }
}

#[tokio::test]
async fn a_fresh_reading_begins_after_it_was_asked_for() {
    let scene = Scene::new();
    let mut one = scene.source.subscribe();
    let mut other = scene.source.subscribe();
    assert_eq!(next(&mut one).await, Ok(1));
    assert_eq!(next(&mut other).await, Ok(1));
    scene.set.send_if_modified(|number| {
        *number = 2;
        // Without an error.
        false
    });
    assert_eq!(*one.reading().await.unwrap(), 1);
    let fresh = timeout(HANG, one.fresh()).await.expect("a hang");
    assert_eq!(*fresh.unwrap(), 2);
    assert_eq!(next(&mut other).await, Ok(2));
    // A reading that changes nothing wakes nobody.
    timeout(HANG, one.fresh()).await.expect("a hang").unwrap();
    assert!(!other.has_changed());
}

/// A fact whose readings never finish after the first.
struct Stuck(bool);

impl Fact for Stuck {
    type Value = ();
    type Error = io::Error;

    async fn read(&mut self) -> Result<(), io::Error> {
        if std::mem::replace(&mut self.0, true) {
            std::future::pending::<()>().await;
        }
        Ok(())
    }

    async fn changed(&mut self) -> Result<(), io::Error> {
        Ok(())
    }
}

#[tokio::test]
async fn what_takes_too_long_to_read_is_not_taken_for_true() {
    let mut subscription = Source::new(|| Stuck(false)).subscribe();
    subscription.reading().await.unwrap();
    assert!(subscription.is_true());
    timeout(HANG, async {
        while subscription.is_true() {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("it is taken for true for ever");
}
