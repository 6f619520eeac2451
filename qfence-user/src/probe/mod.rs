//! Probes: tries to reach a destination by every method of Linux, and reports the outcome. `verify` and the tests are
//! based on them.
//!
//! ```text
//! spec.rs: method, destination, options ─▶ open.rs ─▶ stream.rs │ datagram.rs ─▶ result.rs
//!   method.rs, options.rs               setup.rs       uring.rs │ payload.rs
//!                                                            │ answer.rs
//! ```
//!
//! Opening a [`Probe`] makes its sockets; making the opened probe sends. In between, the process can drop privileges,
//! so that an unprivileged user sends on a socket of root.
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
pub mod frame;
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
