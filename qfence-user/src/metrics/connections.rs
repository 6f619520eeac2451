//! The connections of the server: so many and no more. When another comes, the one goes that has been there
//! longest without asking for anything.

use std::{cell::Cell, collections::VecDeque, rc::Rc};

use tokio::task::AbortHandle;

/// One of them.
struct Connection {
    task: AbortHandle,
    has_asked: Asked,
}

/// Whether a connection has asked for something.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked(Rc<Cell<bool>>);

impl Asked {
    /// It has.
    pub(super) fn set(&self) {
        self.0.set(true);
    }
}

/// Those that are open, in the order in which they came.
pub(super) struct Connections {
    most: usize,
    open: VecDeque<Connection>,
}

impl Connections {
    /// None, with room for `most`.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            open: VecDeque::new(),
        }
    }

    /// Adds what serves a connection, and ends another if there is no room.
    pub(super) fn add(&mut self, task: AbortHandle, has_asked: Asked) {
        self.open
            .retain(|connection| !connection.task.is_finished());
        if self.open.len() >= self.most {
            let idle = self.open.iter().position(|other| !other.has_asked.0.get());
            // If all have asked, the oldest has had the most time to take what it asked for.
            if let Some(ended) = self.open.remove(idle.unwrap_or(0)) {
                ended.task.abort();
            }
        }
        self.open.push_back(Connection { task, has_asked });
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::task::{LocalSet, spawn_local, yield_now};

    use super::*;

    #[tokio::test]
    async fn the_oldest_that_has_asked_for_nothing_goes_first() {
        LocalSet::new()
            .run_until(async {
                let mut connections = Connections::new(3);
                let mut tasks = Vec::new();
                let mut add = |asked: bool| {
                    let task = spawn_local(pending::<()>());
                    let has_asked = Asked::default();
                    if asked {
                        has_asked.set();
                    }
                    connections.add(task.abort_handle(), has_asked);
                    tasks.push(task);
                };
                for asked in [true, false, true, true, true] {
                    add(asked);
                }
                yield_now().await;
                let ended: Vec<_> = tasks.iter().map(|task| task.is_finished()).collect();
                assert_eq!(ended, [true, true, false, false, false]);
            })
            .await;
    }
}
