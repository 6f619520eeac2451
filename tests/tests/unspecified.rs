//! Listeners on all addresses: a look-up of what to listen on connects UDP sockets, sends nothing, and is no attempt. The
//! sockets lead nowhere.

use anyhow::{Result, ensure};
use tests::{
    fence::Fence,
    listener::Listeners,
    namespace::NOBODY,
    probe::{self, output},
    shell::Shell,
    world::World,
};

const PORT: u16 = 8080;

/// Prints the addresses that a server listens on, in the order in which it tries them (getaddrinfo(3)).
const LOOK_UP: &str = r#"
import socket
for found in socket.getaddrinfo(None, 8080, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE):
    print(found[4][0])
"#;

/// Connects UDP sockets to the unspecified address of each family. Prints where they are bound, and what comes of sending.
const SEND: &str = r#"
import socket
def of(family):
    return socket.socket(family, socket.SOCK_DGRAM)
def connected(family, address):
    made = of(family)
    made.connect((address, 8080))
    print(made.getsockname()[0], end=" ")
    return made
for family, address in (socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::"):
    made = connected(family, address)
    try:
        print(made.send(b"hello"))
    except OSError as error:
        print(error.errno)
"#;

fn python(fence: &Fence, world: &World, script: &str) -> Result<String> {
    output(
        fence
            .command(&world.host, "/usr/bin/python3")
            .args(["-c", script]),
    )
}

#[test]
fn a_look_up_of_all_addresses_is_the_same_and_is_not_recorded() -> Result<()> {
    let world = World::new()?;
    let mut control = world.host.command_as(NOBODY, "/usr/bin/python3");
    let control = output(control.args(["-c", LOOK_UP]))?;
    ensure!(control.lines().count() == 2, "control: {control}");
    for options in [&[][..], &["--monitor"], &["--default", "deny"]] {
        let fence = Fence::new("all")?.with(&["--user", "nobody"]).with(options);
        assert_eq!(python(&fence, &world, LOOK_UP)?, control, "{options:?}");
        assert_eq!(fence.refusals()?, [], "{options:?}");
    }
    Ok(())
}

#[test]
fn what_is_sent_by_such_a_socket_is_refused_and_recorded() -> Result<()> {
    let world = World::new()?;
    let services = Listeners::everywhere(&world.host, PORT)?;
    let mut control = world.host.command_as(NOBODY, "/usr/bin/python3");
    let control = output(control.args(["-c", SEND]))?;
    assert_eq!(control, "127.0.0.1 5\n::1 5\n");
    tests::run::wait_until("both arrive", || Ok(services.arrivals().len() == 2))?;

    let fence = Fence::new("sent")?.with(&["--user", "nobody"]);
    // EPERM by the packet layer.
    assert_eq!(python(&fence, &world, SEND)?, "127.0.0.1 1\n::1 1\n");
    for address in ["127.0.0.1", "::1"] {
        let refusal = fence.await_refusal(|refusal| refusal.destination == address)?;
        assert_eq!(refusal.hook, "egress", "{refusal:?}");
        assert_eq!((refusal.protocol.as_str(), refusal.port), ("udp", 0));
    }
    assert_eq!(services.arrivals().len(), 2);
    Ok(())
}

/// PPPoL2TP sends by such a socket of the process, and no program sees its packets: they go to the port to which the socket
/// is connected, which is 0. Nothing can be bound to it.
#[test]
fn such_a_socket_leads_to_no_port() -> Result<()> {
    const PEER: &str = r#"
import socket
for family, address in (socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::"), (socket.AF_INET6, "v4"):
    made = socket.socket(family, socket.SOCK_DGRAM)
    if address == "v4":
        import ctypes, struct
        name = struct.pack("=HH", socket.AF_INET, socket.htons(8080)) + bytes(12)
        if ctypes.CDLL(None).connect(made.fileno(), name, len(name)):
            raise OSError("connect")
    else:
        made.connect((address, 8080))
    try:
        print(made.getpeername()[1])
    except OSError as error:
        print(error.errno)
"#;
    let world = World::new()?;
    let mut control = world.host.command_as(NOBODY, "/usr/bin/python3");
    let control = output(control.args(["-c", PEER]))?;
    assert_eq!(control, "8080\n8080\n8080\n");
    let fence = Fence::new("nowhere")?.with(&["--user", "nobody"]);
    // ENOTCONN: a socket whose peer has no port has no peer (`inet_getname` in net/ipv4/af_inet.c).
    assert_eq!(python(&fence, &world, PEER)?, "107\n107\n107\n");
    Ok(())
}

/// A look-up of `localhost` without a service connects to port 0.
#[test]
fn a_look_up_of_the_hosts_names_is_the_same_and_is_not_recorded() -> Result<()> {
    const HOSTS: &str = r#"
printf '127.0.0.1 localhost\n::1 localhost\n192.0.2.10 lan\n2001:db8:1::10 lan\n' > /tmp/hosts.$$
mount --bind /tmp/hosts.$$ /etc/hosts && rm /tmp/hosts.$$
exec python3 -c '
import socket
for name in "localhost", "lan":
    print([found[4][0] for found in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)])
'
"#;
    let world = World::new()?;
    let words = ["--user", "--map-root-user", "--mount", "sh", "-c", HOSTS];
    let mut control = world.host.command_as(NOBODY, "unshare");
    let control = output(control.args(words))?;
    assert_eq!(
        control,
        "['::1', '127.0.0.1']\n['2001:db8:1::10', '192.0.2.10']\n"
    );
    for options in [&[][..], &["--monitor"], &["--default", "deny"]] {
        let fence = Fence::new("names")?
            .with(&["--user", "nobody"])
            .with(options);
        let made = output(fence.command(&world.host, "unshare").args(words))?;
        assert_eq!(made, control, "{options:?}");
        assert_eq!(fence.refusals()?, [], "{options:?}");
    }
    Ok(())
}

/// All other connects to the host are refused as ever.
#[test]
fn other_connects_are_refused_by_the_call() -> Result<()> {
    let world = World::new()?;
    let services = Listeners::everywhere(&world.host, PORT)?;
    let fence = Fence::new("others")?.with(&["--user", "nobody"]);
    let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
    for attempt in [
        "tcp/0.0.0.0/8080",
        "tcp/::/8080",
        "udp/0.0.0.0/8080",
        "udp/::/8080",
        "udp-connected/127.0.0.1/8080",
        "udp-connected/::1/8080",
        "udp-connected/::ffff:0.0.0.0/8080",
    ] {
        let outcome = shell.attempt(&[attempt])?;
        assert!(outcome[0].failed_with("ECONNREFUSED"), "{outcome:?}");
    }
    assert_eq!(services.arrivals(), []);
    // Where a rule allows it, such a connect leads where it would without a fence.
    let allowed = Fence::new("allowed")?.with(&["--user", "nobody", "--allow", "host"]);
    let outcomes = probe::run_command(
        allowed
            .command(&world.host, probe::program()?)
            .args(["udp-connected/0.0.0.0/8080", "udp-connected/::/8080"]),
    )?;
    for outcome in outcomes {
        assert!(outcome.is_reached(), "{outcome:?}");
    }
    Ok(())
}

/// The host gets its copy of what is sent to a group before the hook for packets. While one thread connects such a socket to
/// another port, what another thread sends can have the address of the group and that port.
#[test]
fn a_group_is_refused_at_any_port() -> Result<()> {
    const CONNECT: &str = r#"
import errno, socket
for address, port in ("224.0.0.1", 0), ("224.0.0.1", 8080), ("255.255.255.255", 0), ("ff0e::1", 0), ("192.0.2.10", 0):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_DGRAM)
    try:
        made.connect((address, port))
        print("connected")
    except OSError as error:
        print(errno.errorcode[error.errno])
"#;
    let world = World::new()?;
    let mut control = world.host.command_as(NOBODY, "/usr/bin/python3");
    let control = output(control.args(["-c", CONNECT]))?;
    // The kernel wants SO_BROADCAST.
    assert_eq!(
        control,
        "connected\nconnected\nEACCES\nconnected\nconnected\n"
    );
    let fence = Fence::new("groups")?.with(&["--user", "nobody"]);
    assert_eq!(
        python(&fence, &world, CONNECT)?,
        "ECONNREFUSED\nECONNREFUSED\nECONNREFUSED\nECONNREFUSED\nconnected\n"
    );
    let refused = fence.refusals()?;
    let ports: Vec<_> = refused
        .iter()
        .filter(|refusal| refusal.destination == "224.0.0.1")
        .map(|refusal| refusal.port)
        .collect();
    assert_eq!(ports, [0, 8080], "{refused:?}");
    Ok(())
}
