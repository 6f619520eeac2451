//! The connections of the server, up to a maximum. If another one arrives, it replaces the connection that has been
//! idle longest, either before its request or without reading its answer. If none is idle, the new connection waits,
//! and later ones wait in the kernel's queue.

use std::{cell::Cell, collections::VecDeque, rc::Rc, time::Duration};

use tokio::{
    sync::Notify,
    task::{AbortHandle, yield_now},
    time::{Instant, timeout},
};

/// How long a connection may take to read its answer while another one waits.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a connection may take to send its request while another one waits. Usually the request has arrived when the
/// connection is accepted, but was not read yet.
const PATIENCE_ASKING: Duration = Duration::from_millis(20);

/// A connection.
struct Connection {
    task: AbortHandle,
    stage: Rc<Cell<Stage>>,
}

/// The state of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It has not sent a request since this time.
    Silent(Instant),
    /// It waits for its answer.
    Asked,
    /// Its answer has been available since this time.
    Answered(Instant),
}

/// The place of one connection; the task that serves the connection reports its state here.
pub(super) struct Seat {
    stage: Rc<Cell<Stage>>,
    changed: Rc<Notify>,
}

impl Seat {
    /// Reports that a request was read.
    pub(super) fn asked(&self) {
        self.stage.set(Stage::Asked);
    }

    /// Reports that the answer is available.
    pub(super) fn answered(&self) {
        self.stage.set(Stage::Answered(Instant::now()));
        self.changed.notify_one();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.changed.notify_one();
    }
}

/// The open connections, in the order of their arrival.
pub(super) struct Connections {
    most: usize,
    open: VecDeque<Connection>,
    changed: Rc<Notify>,
}

impl Connections {
    /// An empty list with room for `most` connections.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            open: VecDeque::new(),
            changed: Rc::new(Notify::new()),
        }
    }

    /// Waits until there is room for another connection, and ends one for it if possible.
    pub(super) async fn room(&mut self) {
        loop {
            let now = Instant::now();
            if self.open.len() >= self.most && self.late(now).is_some() {
                // This thread may be late. So requests that have arrived are read first.
                let_others_run().await;
            }
            self.open
                .retain(|connection| !connection.task.is_finished());
            if self.open.len() < self.most {
                return;
            }
            if let Some(late) = self.late(now)
                && let Some(ended) = self.open.remove(late)
            {
                ended.task.abort();
                return;
            }
            let next = self.open.iter().filter_map(Connection::late_at).min();
            let wait = next.map_or(PATIENCE, |next| next.saturating_duration_since(now));
            // After a change or the timeout, the connections are examined again.
            let _ = timeout(wait, self.changed.notified()).await;
        }
    }

    /// The first connection that may be ended in favour of another one.
    fn late(&self, now: Instant) -> Option<usize> {
        let late = |connection: &Connection| connection.late_at().is_some_and(|at| at <= now);
        self.open.iter().position(late)
    }

    /// Adds a connection. `serve` starts to serve it.
    pub(super) fn add(&mut self, serve: impl FnOnce(Seat) -> AbortHandle) {
        let stage = Rc::new(Cell::new(Stage::Silent(Instant::now())));
        let seat = Seat {
            stage: Rc::clone(&stage),
            changed: Rc::clone(&self.changed),
        };
        let task = serve(seat);
        self.open.push_back(Connection { task, stage });
    }
}

impl Connection {
    /// The time from which the connection may be ended in favour of another one. `None` while it waits for this server.
    fn late_at(&self) -> Option<Instant> {
        match self.stage.get() {
            Stage::Silent(since) => Some(since + PATIENCE_ASKING),
            Stage::Asked => None,
            Stage::Answered(at) => Some(at + PATIENCE),
        }
    }
}

/// Lets the task of each connection read the data that has arrived.
async fn let_others_run() {
    // A new task first registers its socket with the event loop, which wakes the task once there is data.
    for _ in 0..2 {
        yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::{
        task::{JoinHandle, LocalSet, spawn_local},
        time::sleep,
    };

    use super::*;

    /// A connection in this state, which never ends by itself.
    fn add(connections: &mut Connections, stage: Stage) -> JoinHandle<()> {
        let mut task = None;
        connections.add(|seat| {
            seat.stage.set(stage);
            let serving = spawn_local(async move {
                let _place = seat;
                pending::<()>().await;
            });
            let handle = serving.abort_handle();
            task = Some(serving);
            handle
        });
        task.unwrap()
    }

    #[tokio::test]
    async fn the_oldest_that_has_asked_for_nothing_goes_first() {
        LocalSet::new()
            .run_until(async {
                let mut connections = Connections::new(3);
                let mut tasks = Vec::new();
                let silent = || Stage::Silent(Instant::now());
                for stage in [Stage::Asked, silent(), silent(), Stage::Asked] {
                    connections.room().await;
                    tasks.push(add(&mut connections, stage));
                }
                yield_now().await;
                let ended: Vec<_> = tasks.iter().map(JoinHandle::is_finished).collect();
                assert_eq!(ended, [false, true, false, false]);
            })
            .await;
    }

    #[tokio::test]
    async fn a_request_that_has_arrived_is_read_before_its_connection_may_be_ended() {
        LocalSet::new()
            .run_until(async {
                let mut connections = Connections::new(2);
                let long_ago = Instant::now().checked_sub(PATIENCE).unwrap();
                let mut asking = None;
                connections.add(|place| {
                    place.stage.set(Stage::Silent(long_ago));
                    let serving = spawn_local(async move {
                        // A new socket becomes readable after this long.
                        yield_now().await;
                        place.asked();
                        pending::<()>().await;
                    });
                    let handle = serving.abort_handle();
                    asking = Some(serving);
                    handle
                });
                let silent = add(&mut connections, Stage::Silent(long_ago));
                connections.room().await;
                yield_now().await;
                assert!(!asking.unwrap().is_finished() && silent.is_finished());
            })
            .await;
    }

    #[tokio::test]
    async fn who_waits_for_an_answer_is_not_ended_and_who_does_not_take_it_is() {
        LocalSet::new()
            .run_until(async {
                let mut connections = Connections::new(2);
                let asked = add(&mut connections, Stage::Asked);
                let answered = add(&mut connections, Stage::Answered(Instant::now()));
                let begun = Instant::now();
                connections.room().await;
                assert!(begun.elapsed() >= PATIENCE);
                yield_now().await;
                assert!(!asked.is_finished() && answered.is_finished());

                // A free place is used immediately.
                let other = add(&mut connections, Stage::Asked);
                let free = spawn_local(async move {
                    sleep(PATIENCE / 10).await;
                    other.abort();
                });
                connections.room().await;
                free.await.unwrap();
                assert!(!asked.is_finished());
            })
            .await;
    }
}
