//! The command line of `verify`.

use clap::Args;

const NOTES: &str = "\
Results of a probe, without and with the fence:
  reached      the probe got an answer
  arrived      a packet of the probe was seen on the private host
  nothing      nothing of the probe was seen
  unsupported  this kernel does not support the method
  not allowed  an unprivileged user may not use the method

Verdicts:
  stopped   Without the fence, the probe succeeds. With it, nothing was seen, and
            the fence recorded a refusal. Or the seccomp filter, which records
            nothing, stops the probe on its own too.
  works     must work, and does
  untried   unsupported or not allowed even without the fence
  PASSED    got through the fence
  BROKEN    must work, and does not
  UNPROVEN  did not get through, but nothing proves that the fence stopped it

Fields of the JSON object:
  holds      true if no verdict is passed, broken or unproven
  kernel     the kernel's release
  attempts   the probes of the host
  must_work  what must work in a fence
Fields of each probe, and of everything that must work:
  attempt  as in the table
  without  without the fence: reached, arrived, nothing, unsupported or unprivileged
  with     the same, with the fence
  layers   the hooks that refused the probe, or seccomp, the system call filter
  errno    the error with the fence, or null
  ms       the duration with the fence, in milliseconds
  verdict  stopped, works, untried, passed, broken or unproven

This command executes `qfence-verify`, a separate program that contains the probes. It is installed in \
the directory of `qfence-user`.

Exit status:
  0    every probe of the host was stopped, and everything that must work does
  1    a verdict is PASSED, BROKEN or UNPROVEN
  125  verify itself failed; there is no result
  130  verify was interrupted";

/// The options of `verify`.
#[derive(Debug, Args)]
#[command(after_help = NOTES)]
pub struct Verify {
    /// Print one JSON object instead of tables
    #[arg(long)]
    pub json: bool,

    /// Make one probe for each layer, and some that must work, as `exec --verify` does
    #[arg(long)]
    pub short: bool,
}
