//! passt instead of QEMU's own user network: both in one fence, as `sh -c 'passt … && exec qemu …'`.
//! passt makes itself a sandbox of namespaces and seccomp, inside of the fence and without privileges.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use anyhow::{Context as _, Result};
use tests::{
    dns::Dns,
    echoes,
    fence::Fence,
    guest::{Guest, Options},
    listener::Listeners,
    namespace::Namespace,
    probe::{self, ProbeResult},
    process::Process,
    run::wait_until,
    world::{SERVER_V4, SERVER_V6, World},
};

const PORT: u16 = 8080;

/// Without a fence, the same user.
const NOBODY: [&str; 4] = [
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
];

/// With one: `exec` sees QEMU's arguments behind the shell's, and cannot see what the socket leads to.
const FENCED: [&str; 3] = ["--user", "nobody", "--allow-unfenced-net"];

/// What passt is told: the guest's addresses, as they are behind QEMU's own network; the gateway, which
/// to passt is another name for the host's loopback; the resolver; ports of the host for the guest's.
const SETTINGS: &str = "--one-off --quiet --address 10.0.2.15 --netmask 24 --gateway 10.0.2.2 \
                        --address fec0::15 --gateway fec0::2 --dns-forward 10.0.2.3 \
                        --tcp-ports 2222:7 --udp-ports 2224:7";

/// The host by its loopback, its LAN address and that of another device; in both families.
const HOST: [&str; 6] = [
    "10.0.2.2",
    "192.0.2.10",
    "203.0.113.5",
    "fec0::2",
    "2001:db8:1::10",
    "2001:db8:3::5",
];
/// passt hands on no ping of the gateway.
const PINGED: [&str; 4] = [
    "192.0.2.10",
    "203.0.113.5",
    "2001:db8:1::10",
    "2001:db8:3::5",
];

/// A directory for the socket between QEMU and passt, for every user to write to.
fn socket_directory() -> Result<tempfile::TempDir> {
    let dir = tempfile::Builder::new().prefix("qfence-passt-").tempdir()?;
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777))?;
    Ok(dir)
}

/// A guest whose network is a stream to that socket.
fn connected_to(socket: &str) -> Options {
    Options {
        netdev: Some(format!(
            "stream,server=off,addr.type=unix,addr.path={socket}"
        )),
        ..Options::default()
    }
}

/// Starts passt and QEMU, both by one launcher. The guest gets more files.
pub(crate) fn boot<S: AsRef<str>>(
    world: &World,
    launcher: &[S],
    files: Vec<(String, PathBuf)>,
) -> Result<Guest> {
    let dir = socket_directory()?;
    let socket = dir.path().join("socket").display().to_string();
    let script = format!("passt --socket {socket} {SETTINGS} && exec \"$@\"");
    let mut words: Vec<_> = launcher.iter().map(AsRef::as_ref).collect();
    words.extend(["sh", "-c", &script, "passt"]);
    let options = Options {
        files,
        ..connected_to(&socket)
    };
    let mut guest = Guest::boot(world, &words, &options)?;
    // passt sends what comes from ::1 to the guest's link-local address. It knows that address when
    // it has seen a packet from there.
    guest.attempt("ping/fe80::1%eth0")?;
    Ok(guest)
}

fn attempts(way: &str, addresses: &[&str]) -> Vec<String> {
    let port = if way == "ping" {
        String::new()
    } else {
        format!("/{PORT}")
    };
    let attempt = |address: &&str| format!("{way}/{address}{port}");
    addresses.iter().map(attempt).collect()
}

fn probe(guest: &mut Guest, way: &str, addresses: &[&str]) -> Result<Vec<ProbeResult>> {
    let attempts = attempts(way, addresses);
    let mut arguments = vec!["--timeout-ms", "1000"];
    arguments.extend(attempts.iter().map(String::as_str));
    guest.probe(&arguments)
}

#[test]
fn a_guest_behind_passt_has_the_internet_and_not_its_host() -> Result<()> {
    let world = World::new()?;
    let services = Listeners::everywhere(&world.host, PORT)?;
    let _server = Listeners::everywhere(&world.internet, PORT)?;
    let _dns = Dns::start(
        &world.host,
        "127.0.0.53".parse()?,
        &[("www.example", SERVER_V4)],
    )?;

    let mut open = boot(&world, &NOBODY, Vec::new())?;
    for way in ["tcp", "udp"] {
        for outcome in probe(&mut open, way, &HOST)? {
            assert!(outcome.says("hello from"), "control: {outcome:?}");
        }
    }
    for outcome in probe(&mut open, "ping", &PINGED)? {
        assert!(outcome.is_reached(), "control: {outcome:?}");
    }
    let arrived = services.arrivals().len();
    assert_eq!(arrived, 2 * HOST.len());
    let echoes = echoes::arrived(&world.host)?;
    drop(open);

    let fence = Fence::new("passt")?.with(&FENCED);
    let mut guest = boot(&world, &fence.launcher(), Vec::new())?;
    for (way, addresses) in [("tcp", &HOST[..]), ("udp", &HOST), ("ping", &PINGED)] {
        for outcome in probe(&mut guest, way, addresses)? {
            assert!(!outcome.is_reached(), "{outcome:?}");
        }
    }
    let after = services.arrivals();
    assert_eq!(after.len(), arrived, "{:?}", &after[arrived..]);
    assert_eq!(echoes::arrived(&world.host)?, echoes);
    for address in [
        "127.0.0.1",
        "192.0.2.10",
        "203.0.113.5",
        "::1",
        "2001:db8:1::10",
        "2001:db8:3::5",
    ] {
        for protocol in ["tcp", "udp"] {
            fence.await_refusal(|refusal| {
                refusal.destination == address && refusal.protocol == protocol
            })?;
        }
    }

    let internet = [&*SERVER_V4.to_string(), &*SERVER_V6.to_string()];
    for way in ["tcp", "udp", "ping"] {
        for outcome in probe(&mut guest, way, &internet)? {
            assert!(outcome.is_reached(), "{outcome:?}");
        }
    }
    let outcome = guest.attempt("dns/10.0.2.3/www.example")?;
    assert!(outcome.says(&SERVER_V4.to_string()), "{outcome:?}");
    Ok(())
}

/// Each in a fence of its own: passt's is the one that holds. `exec` cannot know of it, and refuses to
/// start such a QEMU unless it is told to.
#[test]
fn a_passt_in_another_fence_holds_the_guest_of_a_qemu_beside_it() -> Result<()> {
    let world = World::new()?;
    let services = Listeners::everywhere(&world.host, PORT)?;
    let _server = Listeners::everywhere(&world.internet, PORT)?;
    let dir = socket_directory()?;
    let path = dir.path().join("socket");
    let socket = path.display().to_string();
    let passts = Fence::new("passt-alone")?.with(&["--user", "nobody"]);
    let mut passt = passts.command(&world.host, "passt");
    passt.args(["--foreground", "--socket", &socket]);
    passt.args(SETTINGS.split_whitespace());
    let _passt = Process::spawn(passt)?;
    wait_until("passt has its socket", || Ok(path.exists()))?;

    let qemus = Fence::new("passt-beside")?.with(&FENCED);
    let mut guest = Guest::boot(&world, &qemus.launcher(), &connected_to(&socket))?;
    for way in ["tcp", "udp"] {
        for outcome in probe(&mut guest, way, &["10.0.2.2", "192.0.2.10"])? {
            assert!(!outcome.is_reached(), "{outcome:?}");
        }
        for outcome in probe(&mut guest, way, &[&SERVER_V4.to_string()])? {
            assert!(outcome.says("hello from"), "{outcome:?}");
        }
    }
    assert_eq!(services.arrivals(), []);
    for address in ["127.0.0.1", "192.0.2.10"] {
        passts.await_refusal(|refusal| refusal.destination == address)?;
    }
    assert_eq!(qemus.refusals()?, []);
    Ok(())
}

/// Of either family, from the host by its loopback and its LAN address, and from another machine. No
/// datagrams from ::1: to those this passt (of March 2023) sends the answers to another address.
#[test]
fn ten_megabytes_pass_both_ways_through_ports_forwarded_by_passt() -> Result<()> {
    const LOOPBACK: [&str; 3] = [
        "bulk-tcp/127.0.0.1/2222",
        "bulk-udp/127.0.0.1/2224",
        "bulk-tcp/::1/2222",
    ];
    const LAN: [&str; 4] = [
        "bulk-tcp/192.0.2.10/2222",
        "bulk-udp/192.0.2.10/2224",
        "bulk-tcp/2001:db8:1::10/2222",
        "bulk-udp/2001:db8:1::10/2224",
    ];
    let world = World::new()?;
    let fence = Fence::new("passt-forwards")?.with(&FENCED);
    for launcher in [NOBODY.map(str::to_owned).into(), fence.launcher()] {
        let mut guest = boot(&world, &launcher, Vec::new())?;
        guest.serve(&["echo-tcp/7", "echo-udp/7"])?;
        for (from, to) in [
            (&world.host, &LOOPBACK[..]),
            (&world.host, &LAN),
            (&world.internet, &LAN),
        ] {
            for &transfer in to {
                let outcome = transferred(from, transfer)?;
                let whole = outcome.says("10000000 bytes came back");
                assert!(whole, "started by {launcher:?}: {outcome:?}");
            }
        }
    }
    assert_eq!(fence.refusals()?, []);
    Ok(())
}

/// A transfer; on a busy machine this passt resets one now and then, also without a fence: then it is made again.
fn transferred(from: &Namespace, transfer: &str) -> Result<ProbeResult> {
    const MORE: usize = 3;
    let transfer = || -> Result<ProbeResult> {
        let outcomes = probe::run(from, &["--timeout-ms", "120000", transfer])?;
        outcomes.into_iter().next().context("no outcome")
    };
    let mut outcome = transfer()?;
    for _ in 0..MORE {
        if outcome.failed_with("ECONNRESET") {
            outcome = transfer()?;
        }
    }
    Ok(outcome)
}

/// That a guest is not told at once is passt's way with every call that fails, fence or no fence.
#[test]
fn passt_tells_its_guest_of_no_call_that_fails() -> Result<()> {
    let world = World::new()?;
    world.host_ip("route add unreachable 198.18.0.0/24")?;
    let attempt = format!("tcp/198.18.0.1/{PORT}");
    let on_the_host = probe::run(&world.host, &[&attempt])?;
    assert!(
        on_the_host[0].failed_with("EHOSTUNREACH"),
        "{on_the_host:?}"
    );
    let mut open = boot(&world, &NOBODY, Vec::new())?;
    let outcome = open.attempt(&attempt)?;
    assert_eq!(outcome.ending, probe::Ending::Timeout, "{outcome:?}");
    Ok(())
}
