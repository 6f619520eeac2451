//! Serves the queries of the fence.

mod tcp;
mod udp;

use std::{cell::Cell, future::Future, rc::Rc, sync::Arc};

use super::{
    answer::{self, Answer, BY_TCP},
    cache::Key,
    counts::Counts,
    desk::{Desk, Origin, Step},
    ends::Transport,
    question::{self, Question, Rejected},
};

pub(super) use tcp::serve as serve_tcp;
pub(super) use udp::serve as serve_udp;

/// The most queries that wait for nameservers. Further ones are dropped.
const IN_FLIGHT: usize = 256;

/// What all sockets share.
pub(super) struct Server {
    desk: Desk,
    in_flight: Rc<Cell<usize>>,
}

/// What follows from a message.
enum Reply<F> {
    /// Nothing.
    Nothing,
    /// This answer.
    Now(Vec<u8>),
    /// An answer later. `None` if it is given up.
    Later(F),
}

impl Server {
    pub(super) fn new(desk: Desk) -> Self {
        Self {
            desk,
            in_flight: Rc::default(),
        }
    }

    fn counts(&self) -> &Arc<Counts> {
        &self.desk.counts
    }

    /// Whether a source is one of the fence's.
    fn is_of_fence(&self, from: Origin) -> bool {
        let is = self
            .desk
            .ends
            .askers
            .is_of_fence(from.source, from.transport);
        if !is {
            self.counts().strangers.add();
        }
        is
    }

    /// Answers a message of the fence.
    fn receive(
        self: &Rc<Self>,
        bytes: &[u8],
        from: Origin,
    ) -> Reply<impl Future<Output = Vec<u8>> + use<>> {
        let question = match question::read(bytes) {
            Ok(question) => question,
            Err(rejected) => {
                self.counts().malformed.add();
                return match rejected {
                    Rejected::Dropped => Reply::Nothing,
                    Rejected::Error(frame, code) => {
                        Reply::Now(answer::write(&frame, &Answer::of(code), BY_TCP))
                    }
                };
            }
        };
        self.counts().queries.add();
        match self.desk.first(&question, from) {
            Step::Answer(answer) => Reply::Now(written(&question, &answer, from)),
            Step::Ask(key) => match Place::take(&self.in_flight) {
                Some(place) => Reply::Later(Rc::clone(self).ask(question, from, key, place)),
                None => {
                    self.counts().dropped.add();
                    Reply::Nothing
                }
            },
        }
    }

    async fn ask(
        self: Rc<Self>,
        question: Question,
        from: Origin,
        key: Key,
        _place: Place,
    ) -> Vec<u8> {
        let outcome = self.desk.flights.ask(&key).await;
        let answer = self.desk.second(&question, from, &outcome);
        written(&question, &answer, from)
    }
}

fn written(question: &Question, answer: &Answer, from: Origin) -> Vec<u8> {
    let longest = match from.transport {
        Transport::Udp => question.frame.longest(),
        Transport::Tcp => BY_TCP,
    };
    answer::write(&question.frame, answer, longest)
}

/// A place among the queries that wait.
struct Place(Rc<Cell<usize>>);

impl Place {
    fn take(taken: &Rc<Cell<usize>>) -> Option<Self> {
        (taken.get() < IN_FLIGHT).then(|| {
            taken.set(taken.get() + 1);
            Self(Rc::clone(taken))
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
