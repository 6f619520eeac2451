//! Frames of a guest: what a machine writes into its tap device, and what comes back.
//!
//! | file | its job |
//! |---|---|
//! | [`wire`] | builds frames, right and wrong ones |
//! | [`tap`] | the descriptor of a tap device |
//! | [`answer`] | reads what the host's side answered |

pub mod answer;
pub mod tap;
pub mod wire;

pub use tap::{Header, Received, Tap};
