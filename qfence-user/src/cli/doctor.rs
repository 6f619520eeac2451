//! The command line of `doctor`.

use clap::Args;

const NOTES: &str = "\
States:
  ok        as required
  degraded  fences work; something else does not, or could not be checked
  missing   `exec` cannot start a fence

Fields of a JSON object:
  name   the check
  state  ok, degraded or missing
  found  the result of the check
  fix    how to repair it, or null

Exit status:
  0    nothing is missing
  1    something is missing
  125  doctor itself failed";

/// The options of `doctor`.
#[derive(Debug, Args)]
#[command(after_help = NOTES)]
pub struct Doctor {
    /// Print one JSON array instead of a table
    #[arg(long)]
    pub json: bool,
}
