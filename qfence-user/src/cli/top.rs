//! The command line of `top`.

use clap::Args;

/// The options of `top`.
#[derive(Debug, Args)]
pub struct Top {
    /// Seconds between updates
    #[arg(long, short, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub interval: u16,
}
