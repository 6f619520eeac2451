//! How a probe ended, and what an error means: a refusal, or that this kernel or this user cannot make the probe.

use std::{fmt, io, time::Duration};

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::{
    method::{Datagram, Method, Sending},
    spec::Probe,
};

/// One line of `qfence-verify probe`, and of the program `probe` of the tests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbeResult {
    /// The probe, as it is written.
    #[serde(rename = "attempt")]
    pub probe: String,
    /// How it ended.
    pub ending: Ending,
    /// What failed, if something did, or what ran into the time limit.
    pub step: Option<Step>,
    /// By which error, for example `ECONNREFUSED`.
    pub errno: Option<String>,
    /// What the other side answered; the type of an ICMP or TCP answer in words.
    pub reply: Option<String>,
    /// Milliseconds until it ended.
    pub ms: f64,
}

/// How a probe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    /// The connection stands, or an answer came.
    Reached,
    /// The kernel accepted all that was sent, and no answer came in time.
    Sent,
    /// The connection did not come about in time.
    Timeout,
    /// A step failed. If that was [`Step::Receive`], the kernel had accepted all that was sent.
    Failed,
    /// This kernel has no such method; nothing was sent.
    Unsupported,
    /// This user may not, in a fence or out of it; nothing was sent.
    Unprivileged,
}

/// The steps of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// socket().
    Socket,
    /// setsockopt(), and looking up a device by its name.
    Setsockopt,
    /// bind().
    Bind,
    /// Setting up io_uring.
    Ring,
    /// connect(), in whatever form, to the decoy as well.
    Connect,
    /// Sending, in whatever form.
    Send,
    /// Receiving: an ICMP error has come back, say.
    Receive,
}

impl fmt::Display for Step {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Socket => "socket",
            Self::Setsockopt => "setsockopt",
            Self::Bind => "bind",
            Self::Ring => "ring",
            Self::Connect => "connect",
            Self::Send => "send",
            Self::Receive => "receive",
        })
    }
}

impl ProbeResult {
    /// Whether the other side answered.
    #[must_use]
    pub fn is_reached(&self) -> bool {
        self.ending == Ending::Reached
    }

    /// Whether it could be tried at all, by this user on this kernel.
    #[must_use]
    pub fn is_possible(&self) -> bool {
        !matches!(self.ending, Ending::Unsupported | Ending::Unprivileged)
    }

    /// Whether it failed with this error, at whatever step.
    #[must_use]
    pub fn failed_with(&self, errno: &str) -> bool {
        self.ending == Ending::Failed && self.errno.as_deref() == Some(errno)
    }

    /// Whether this step failed with this error.
    #[must_use]
    pub fn failed_at(&self, step: Step, errno: &str) -> bool {
        self.failed_with(errno) && self.step == Some(step)
    }

    /// Whether the other side answered with a text that contains this one.
    #[must_use]
    pub fn says(&self, text: &str) -> bool {
        let reply = self.reply.as_deref();
        self.is_reached() && reply.is_some_and(|reply| reply.contains(text))
    }

    pub(super) fn new(
        probe: &Probe,
        result: Result<Option<String>, Stop>,
        after: Duration,
    ) -> Self {
        let (ending, step, errno, reply) = match result {
            Ok(reply) => (Ending::Reached, None, None, reply),
            Err(Stop::Sent) => (Ending::Sent, None, None, None),
            Err(Stop::Timeout(step)) => (Ending::Timeout, Some(step), None, None),
            Err(Stop::Unprivileged(step, errno)) => {
                (Ending::Unprivileged, Some(step), Some(errno), None)
            }
            Err(Stop::Failed(step, errno)) => {
                let absent = is_absence(probe, step, errno);
                let ending = if absent {
                    Ending::Unsupported
                } else {
                    Ending::Failed
                };
                (ending, Some(step), Some(errno), None)
            }
        };
        let microseconds = after.as_micros();
        Self {
            probe: probe.to_string(),
            ending,
            step,
            errno: errno.map(|errno| format!("{errno:?}")),
            reply,
            ms: f64::from(u32::try_from(microseconds).unwrap_or(u32::MAX)) / 1000.0,
        }
    }
}

/// What keeps a probe from reaching something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// All was sent, and there was no answer.
    Sent,
    /// A step took too long.
    Timeout(Step),
    /// A step failed.
    Failed(Step, Errno),
    /// A step failed for want of a capability.
    Unprivileged(Step, Errno),
}

/// Says at which step an I/O error came up.
pub(super) trait At<T> {
    /// `self`, with the step at which it failed.
    fn at(self, step: Step) -> Result<T, Stop>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, step: Step) -> Result<T, Stop> {
        self.map_err(|error| Stop::Failed(step, errno_of(&error)))
    }
}

impl<T> At<T> for nix::Result<T> {
    fn at(self, step: Step) -> Result<T, Stop> {
        self.map_err(|errno| Stop::Failed(step, errno))
    }
}

/// The number of an error. Those that the standard library makes up (a name with a NUL, say) are
/// about arguments.
pub(super) fn errno_of(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EINVAL, Errno::from_raw)
}

/// Whether an error says that the kernel has no such thing. No error that a fence can cause is
/// among them: its refusals are EPERM, EACCES, ECONNREFUSED, ENETUNREACH and EHOSTUNREACH.
fn is_absence(probe: &Probe, step: Step, errno: Errno) -> bool {
    use Errno::{
        EAFNOSUPPORT, EINVAL, EIO, ENOPROTOOPT, ENOSYS, EOPNOTSUPP, EPROTONOSUPPORT, EPROTOTYPE,
        ESOCKTNOSUPPORT,
    };
    match (step, errno) {
        // Setting up a ring sends nothing; whatever it fails with, it is not about a destination.
        (Step::Ring, _) | (_, ENOSYS | EOPNOTSUPP) => true,
        (Step::Socket, EPROTONOSUPPORT | ESOCKTNOSUPPORT | EPROTOTYPE | EAFNOSUPPORT) => true,
        (Step::Setsockopt, ENOPROTOOPT) => true,
        // ENOTSUPP, which has no name outside of the kernel: no zero-copy for this protocol.
        (Step::Setsockopt, Errno::UnknownErrno) => probe.method.sends(Sending::Zerocopy),
        // net/ipv6/ipv6_sockglue.c: without CONFIG_IPV6_MIP6 no type but 4 is known.
        (Step::Setsockopt, EINVAL) => probe.options.home_route.is_some(),
        // net/ipv4/udp.c: no GSO without checksums, or with a device that cannot.
        (Step::Send, EIO) => probe.method.sends(Sending::Gso),
        _ => false,
    }
}

/// Whether an error is for want of a capability, in a fence or not.
///
/// The kernel asks for `CAP_NET_RAW`, and a ping socket for its group, before it asks a fence's
/// programs (`inet_create` in net/ipv4/af_inet.c; ping sockets fail with EACCES, the programs
/// with EPERM). Options are nothing that a fence decides about.
pub(super) fn is_for_want_of_privilege(
    method: Method,
    step: Step,
    errno: Errno,
    may_raw: bool,
) -> bool {
    match (step, errno) {
        (Step::Socket, Errno::EACCES) => matches!(method, Method::Datagram(Datagram::Ping, _)),
        (Step::Socket, Errno::EPERM) => method.is_raw() && !may_raw,
        (Step::Setsockopt, Errno::EPERM) => !may_raw,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ending(probe: &str, step: Step, errno: Errno) -> Ending {
        let probe = probe.parse().unwrap();
        ProbeResult::new(&probe, Err(Stop::Failed(step, errno)), Duration::ZERO).ending
    }

    #[test]
    fn absence_is_told_from_refusal() {
        for (probe, step, errno) in [
            ("sctp/127.0.0.1/1", Step::Socket, Errno::EPROTONOSUPPORT),
            ("dccp/127.0.0.1/1", Step::Socket, Errno::ESOCKTNOSUPPORT),
            ("ping-gso/127.0.0.1", Step::Setsockopt, Errno::ENOPROTOOPT),
            ("tcp-fastopen/127.0.0.1/1", Step::Send, Errno::EOPNOTSUPP),
            ("udp-uring/127.0.0.1/1", Step::Ring, Errno::EPERM),
            ("udp-uring/127.0.0.1/1", Step::Ring, Errno::ENOSYS),
            ("ping/::1+rh2=::1", Step::Setsockopt, Errno::EINVAL),
        ] {
            assert_eq!(ending(probe, step, errno), Ending::Unsupported, "{probe}");
        }
    }

    #[test]
    fn no_refusal_of_a_fence_is_taken_for_absence() {
        let steps = [
            Step::Socket,
            Step::Setsockopt,
            Step::Bind,
            Step::Connect,
            Step::Send,
        ];
        let refusals = [
            Errno::EPERM,
            Errno::EACCES,
            Errno::ECONNREFUSED,
            Errno::ENETUNREACH,
            Errno::EHOSTUNREACH,
        ];
        for method in Method::all() {
            let mut probe: Probe = "udp/127.0.0.1/1".parse().unwrap();
            probe.method = method;
            for step in steps {
                for errno in refusals {
                    let stop = Err(Stop::Failed(step, errno));
                    let outcome = ProbeResult::new(&probe, stop, Duration::ZERO);
                    assert_eq!(outcome.ending, Ending::Failed, "{method} {step} {errno}");
                }
            }
        }
    }

    #[test]
    fn want_of_privilege_is_known_by_the_order_of_the_kernels_checks() {
        let wants = |method: &str, step, errno, may_raw| {
            is_for_want_of_privilege(method.parse().unwrap(), step, errno, may_raw)
        };
        assert!(wants("raw-icmp", Step::Socket, Errno::EPERM, false));
        assert!(!wants("raw-icmp", Step::Socket, Errno::EPERM, true));
        assert!(wants("ping", Step::Socket, Errno::EACCES, false));
        assert!(!wants("ping", Step::Socket, Errno::EPERM, false));
        assert!(!wants("udplite", Step::Socket, Errno::EPERM, false));
        assert!(!wants("l2tp", Step::Socket, Errno::EPERM, false));
        assert!(wants("udp", Step::Setsockopt, Errno::EPERM, false));
        assert!(!wants("udp", Step::Connect, Errno::EPERM, false));
    }

    #[test]
    fn a_line_is_flat_json() {
        let probe = "tcp/127.0.0.1/1".parse().unwrap();
        let stop = Err(Stop::Failed(Step::Connect, Errno::ECONNREFUSED));
        let outcome = ProbeResult::new(&probe, stop, Duration::from_millis(2));
        let line = serde_json::to_string(&outcome).unwrap();
        assert_eq!(
            line,
            r#"{"attempt":"tcp/127.0.0.1/1","ending":"failed","step":"connect","errno":"ECONNREFUSED","reply":null,"ms":2.0}"#
        );
        assert_eq!(serde_json::from_str::<ProbeResult>(&line).unwrap(), outcome);
        assert!(outcome.failed_at(Step::Connect, "ECONNREFUSED"));
        assert!(outcome.failed_with("ECONNREFUSED"));
    }
}
