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
  stopped   The probe succeeds without the fence. With it nothing was seen, and the fence recorded the
            refusal; or the seccomp filter, which records nothing, also stops the probe on its own.
  works     must work, and does
  untried   unsupported or not allowed even without the fence
  PASSED    got through the fence
  BROKEN    must work, and does not
  UNPROVEN  did not get through, but nothing proves that the fence stopped it

Fields of the JSON object:
  holds      true if no verdict is passed, broken or unproven
  kernel     the kernel's release
  attempts   the probes of the host
  must_work  the probes that must succeed in a fence
Fields of each probe:
  attempt  as in the table
  without  without the fence: reached, arrived, nothing, unsupported or unprivileged
  with     the same, with the fence
  layers   the hooks that refused the probe, or seccomp, the system call filter
  errno    the error with the fence, or null
  ms       the duration with the fence, in milliseconds
  verdict  stopped, works, untried, passed, broken or unproven

This command executes `qfence-verify`, a separate program that contains the probes. It is installed in
the directory of `qfence-user`.

Exit status:
  0    every probe of the host was stopped, and everything that must work does
  1    a verdict is PASSED, BROKEN or UNPROVEN
  125  verify itself failed; there is no result
  130  verify was interrupted";

/// `qfence-user verify`.
///
/// Makes a temporary fence in a private network. An unprivileged user in the fence then tries to reach
/// the host by every method that qfence knows. Each probe is also made outside the fence, where it must
/// succeed. Finally, verify tries the connections that must work in a fence. No packet leaves the private
/// network, and nothing is left behind.
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
