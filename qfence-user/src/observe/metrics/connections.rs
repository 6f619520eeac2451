//! The connections of the server: so many and no more. When another comes, the one goes that has been there
//! longest without asking for anything, or without taking its answer. If there is none, the other one waits for a
//! place, and who comes after it in the kernel's queue.

use std::{cell::Cell, collections::VecDeque, rc::Rc, time::Duration};

use tokio::{
    sync::Notify,
    task::{AbortHandle, yield_now},
    time::{Instant, timeout},
};

/// How long a connection may take to read its answer while another waits for its place.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long one may take to ask then. What it asks is mostly there when it is accepted, and not read yet.
const PATIENCE_ASKING: Duration = Duration::from_millis(20);

/// One of them.
struct Connection {
    task: AbortHandle,
    stage: Rc<Cell<Stage>>,
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It has not asked for anything since it came.
    Silent(Instant),
    /// It waits for its answer.
    Asked,
    /// It has its answer, as far as it takes it.
    Answered(Instant),
}

/// A seat among the connections, for what serves one.
pub(super) struct Seat {
    stage: Rc<Cell<Stage>>,
    changed: Rc<Notify>,
}

impl Seat {
    /// It has asked for something.
    pub(super) fn asked(&self) {
        self.stage.set(Stage::Asked);
    }

    /// Its answer is there.
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

/// Those that are open, in the order in which they came.
pub(super) struct Connections {
    most: usize,
    open: VecDeque<Connection>,
    changed: Rc<Notify>,
}

impl Connections {
    /// None, with room for `most`.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            open: VecDeque::new(),
            changed: Rc::new(Notify::new()),
        }
    }

    /// Waits until there is room for one more, and ends another for it.
    pub(super) async fn room(&mut self) {
        loop {
            let now = Instant::now();
            if self.open.len() >= self.most && self.late(now).is_some() {
                // This thread itself may have been late: a request that has arrived is read first.
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
            // Whatever ends it, what there is now is looked at.
            let _ = timeout(wait, self.changed.notified()).await;
        }
    }

    /// The first connection that may be ended for another one, at that time.
    fn late(&self, now: Instant) -> Option<usize> {
        let late = |connection: &Connection| connection.late_at().is_some_and(|at| at <= now);
        self.open.iter().position(late)
    }

    /// Adds a connection that `serve` begins to serve.
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
    /// From when on it may be ended for another one; `None` as long as this side keeps it waiting.
    fn late_at(&self) -> Option<Instant> {
        match self.stage.get() {
            Stage::Silent(since) => Some(since + PATIENCE_ASKING),
            Stage::Asked => None,
            Stage::Answered(at) => Some(at + PATIENCE),
        }
    }
}

/// Lets the task of every connection read what has arrived for it.
async fn let_others_run() {
    // A new task first asks the event loop for its socket; the event loop wakes it once there is data.
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

    /// A connection of that stage, which never ends by itself.
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
                        // As long as a new socket takes to be readable.
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

                // A place that comes free is taken at once.
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
