//! The command line of `top`.

use clap::Args;

/// `qfence-user top`.
///
/// A live view of all fences: what was denied and what went through, a second and so far; for the one that
/// is selected what it tried most, its latest refusals, and the rules that refused. `?` shows the keys.
#[derive(Debug, Args)]
pub struct Top {
    /// Seconds between one look and the next
    #[arg(long, short, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub interval: u16,
}
