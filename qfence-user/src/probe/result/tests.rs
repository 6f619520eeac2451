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
