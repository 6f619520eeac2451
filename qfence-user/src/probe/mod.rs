//! Probes: tries to reach a destination by every method that Linux has, to see what comes of each. The
//! evidence for `verify`, and for the tests.
//!
//! ```text
//! spec.rs: method, destination, options ─▶ open.rs ─▶ stream.rs │ datagram.rs ─▶ result.rs
//!   method.rs, options.rs               setup.rs       uring.rs │ payload.rs
//!                                                            │ answer.rs
//! ```
//!
//! A [`Probe`] is opened, which makes its sockets, and then made, which sends. Between the two a
//! process may give up privileges, so that a socket of root's is used by somebody else.
//!
//! ```no_run
//! # use std::time::Duration;
//! # use qfence_user::probe::Probe;
//! let probe: Probe = "udp-sendmmsg/127.0.0.1/53".parse()?;
//! let outcome = probe.open().make(Duration::from_millis(500), &mut || Ok(()));
//! assert!(outcome.is_possible());
//! # Ok::<(), qfence_user::probe::SpecError>(())
//! ```

mod answer;
pub mod compat;
mod datagram;
mod method;
mod open;
mod options;
mod payload;
mod raw;
mod result;
mod setup;
mod spec;
mod stream;
mod uring;

pub use method::{Datagram, Method, Opening, Sending, Stream};
pub use open::Opened;
pub use options::Options;
pub use payload::HELLO;
pub use result::{Ending, ProbeResult, Step};
pub use spec::{Destination, Probe, SpecError};
