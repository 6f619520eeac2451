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

The second table has the frames of guests with tap devices: verify writes them into a
device of a private host. LAYER lists each layer that stops the frame without the
other: frame is the program at the device, local_in the one where the host receives
packets. If it is empty, only both together stop the frame. ANSWER is the reply to the
guest. The verdict is untried if the host discards such frames by itself, and open if
they may pass to the bridge.

The last table has the ways out that are no packets: a process tries to use other
processes, sockets, files and devices of its user, without a fence, in the fence of
`exec`, and in that of `exec --strict`. A cell is \"done\" or the error; CLOSED BY is
the mechanism. Where nothing is promised, the verdict is open.

Fields of the JSON object:
  holds      true if no verdict is passed, broken or unproven
  kernel     the kernel's release
  attempts   the probes of the host
  must_work  what must work in a fence
  devices    the frames of guests: an object with the fields rows and untried, the
             reason why no frame can be tried on this host, or null
  closures   the ways out that are no packets: an object with the fields rows and
             strict_error, the reason why `exec --strict` starts nothing, or null
Fields of each probe, and of everything that must work:
  attempt  as in the table
  without  without the fence: reached, arrived, nothing, unsupported or unprivileged
  with     the same, with the fence
  layers   the hooks that refused the probe, or seccomp, the system call filter
  errno    the error with the fence, or null
  ms       the duration with the fence, in milliseconds
  verdict  stopped, works, untried, passed, broken or unproven
Fields of each frame:
  frame    as in the table
  device   routed, or bridged
  without  without a fence: reached (answered), arrived or nothing
  with     the same, in a fence
  layers   the layers that hold it alone: frame, local_in
  answer   reset, prohibited, or null
  verdict  one of those above, or open
Fields of each row of the closures:
  attempt    as in the table
  without    without a fence: done, or the name of the error
  default    in the fence of `exec`: an object with the fields outcome, as above, and
             verdict: one of those above, or open
  strict     the same for `exec --strict`, or null if that starts nothing
  mechanism  what closes it

This command executes `qfence-verify`, a separate program that contains the probes. It is installed in \
the directory of `qfence-user`.

Exit status:
  0    every probe of the host was stopped, everything that must work does, and
       what is promised to be closed is
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

    /// Try only the ways out that are no packets, in about one second
    #[arg(long, conflicts_with = "short")]
    pub closures: bool,

    /// Try only the frames of guests with tap devices, in about five seconds
    #[arg(long, conflicts_with_all = ["short", "closures"])]
    pub devices: bool,
}
