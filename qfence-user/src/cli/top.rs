//! The command line of `top`.

use clap::Args;

/// `qfence-user top`.
///
/// A live view of all fences, with allowed and denied attempts per second and in total. For the selected
/// fence it also shows the most frequent attempts, the latest refusals, and the rules that refused. `?`
/// shows the keys.
#[derive(Debug, Args)]
pub struct Top {
    /// Seconds between updates
    #[arg(long, short, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub interval: u16,
}
