//! Serves the queries of the fence.

mod tcp;
mod udp;

use std::{
    cell::{Cell, RefCell},
    future::Future,
    rc::Rc,
    sync::Arc,
    time::Instant,
};

use tokio::time::sleep;

use super::{
    answer::{self, Answer, BY_TCP},
    bucket::{Bucket, Rate},
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

/// So many addresses in an answer cost as much as another query.
const ADDRESSES_A_QUERY: usize = 8;

/// What all sockets share.
pub(super) struct Server {
    desk: Desk,
    in_flight: Rc<Cell<usize>>,
    /// The rate of the fence's queries and connections.
    rate: RefCell<Bucket>,
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
    pub(super) fn new(desk: Desk, rate: Rate) -> Self {
        Self {
            desk,
            in_flight: Rc::default(),
            rate: RefCell::new(Bucket::new(rate, Instant::now())),
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

    /// Waits for the turn of a query or a connection of the fence. Meanwhile further ones wait in the buffers of the kernel,
    /// which drops those that do not fit.
    async fn turn(&self) {
        let wait = self.rate.borrow_mut().take(1, Instant::now());
        if !wait.is_zero() {
            self.counts().slowed.add();
            sleep(wait).await;
        }
    }

    /// Writes an answer, which costs more the more addresses it has.
    fn written(&self, question: &Question, answer: &Answer, from: Origin) -> Vec<u8> {
        let more = answer.addresses.len() / ADDRESSES_A_QUERY;
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        self.rate.borrow_mut().take(more, Instant::now());
        let longest = match from.transport {
            Transport::Udp => question.frame.longest(),
            Transport::Tcp => BY_TCP,
        };
        answer::write(&question.frame, answer, longest)
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
            Step::Answer(answer) => Reply::Now(self.written(&question, &answer, from)),
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
        self.written(&question, &answer, from)
    }
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
