//! Attempts to reach a destination in every way that Linux has, to see what comes of each: the
//! evidence for `verify`, and for the tests.
//!
//! ```text
//! spec.rs: way, destination, options ─▶ open.rs ─▶ stream.rs │ datagram.rs ─▶ outcome.rs
//!   way.rs, options.rs               setup.rs       uring.rs │ payload.rs
//!                                                            │ answer.rs
//! ```
//!
//! An [`Attempt`] is opened, which makes its sockets, and then made, which sends. Between the two a
//! process may give up privileges, so that a socket of root's is used by somebody else.
//!
//! ```no_run
//! # use std::time::Duration;
//! # use qfence_user::attempt::Attempt;
//! let attempt: Attempt = "udp-sendmmsg/127.0.0.1/53".parse()?;
//! let outcome = attempt.open().make(Duration::from_millis(500), &mut || Ok(()));
//! assert!(outcome.is_possible());
//! # Ok::<(), qfence_user::attempt::SpecError>(())
//! ```

mod answer;
mod compat;
mod datagram;
mod open;
mod options;
mod outcome;
mod payload;
mod raw;
mod setup;
mod spec;
mod stream;
mod uring;
mod way;

pub use open::Opened;
pub use options::Options;
pub use outcome::{Ending, Outcome, Step};
pub use payload::HELLO;
pub use spec::{Attempt, Destination, SpecError};
pub use way::{Datagram, Opening, Sending, Stream, Way};
