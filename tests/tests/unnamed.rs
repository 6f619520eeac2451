//! Datagrams that a connected UDP socket sends without a destination, but with control data: the kernel shows programs an
//! unspecified destination. They are judged by the socket's peer, as without control data.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use anyhow::{Result, ensure};
use tests::{
    fence::{Fence, qfence},
    listener::Listeners,
    namespace::NOBODY,
    probe::output,
    run::{to_end, wait_until},
    shell::Shell,
    world::{HOST_V4, HOST_V6, SERVER_V4, SERVER_V6, World},
};

const PORT: u16 = 8080;

/// A group in which every host is.
const GROUP: &str = "224.0.0.1";

/// For each address: connects to it, and sends with the type of service as control data.
const SEND: &str = r#"
import errno, socket, struct, sys
KINDS = {socket.AF_INET: (socket.IPPROTO_IP, socket.IP_TOS), socket.AF_INET6: (socket.IPPROTO_IPV6, socket.IPV6_TCLASS)}
for address in sys.argv[1:]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_DGRAM)
    try:
        made.connect((address, 8080))
        made.sendmsg([b"hello"], [(*KINDS[family], struct.pack("i", 2))])
        print("sent")
    except OSError as error:
        print(errno.errorcode[error.errno])
"#;

fn python(command: &mut Command, addresses: &[String]) -> Result<String> {
    output(command.args(["-c", SEND]).args(addresses))
}

#[test]
fn what_goes_to_the_internet_is_sent() -> Result<()> {
    let world = World::new()?;
    let internet = Listeners::everywhere(&world.internet, PORT)?;
    let services = Listeners::everywhere(&world.host, PORT)?;
    let mapped = format!("::ffff:{SERVER_V4}");
    let outside = [SERVER_V4.to_string(), SERVER_V6.to_string(), mapped];
    let control = python(
        &mut world.host.command_as(NOBODY, "/usr/bin/python3"),
        &outside,
    )?;
    assert_eq!(control, "sent\nsent\nsent\n");
    wait_until("the control arrives", || Ok(internet.arrivals().len() == 3))?;
    let fence = Fence::new("unnamed")?.with(&["--user", "nobody"]);
    let host = [HOST_V4, HOST_V6].map(|address| address.to_string());
    let all = [&outside[..], &host].concat();
    let made = python(&mut fence.command(&world.host, "/usr/bin/python3"), &all)?;
    assert_eq!(made, "sent\nsent\nsent\nECONNREFUSED\nECONNREFUSED\n");
    wait_until("the fence's arrive", || Ok(internet.arrivals().len() == 6))?;
    assert_eq!(services.arrivals(), []);
    let refused: Vec<_> = fence
        .refusals()?
        .into_iter()
        .map(|refusal| refusal.destination)
        .collect();
    assert_eq!(refused, host);
    Ok(())
}

/// The host's copy of what is sent to a group precedes the hook for packets.
#[test]
fn what_goes_to_a_group_that_is_denied_later_is_refused_by_its_address() -> Result<()> {
    const LOOP: &str = r#"
import errno, socket, struct, sys
made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
made.connect(("224.0.0.1", 8080))
print("connected", flush=True)
for _ in sys.stdin:
    try:
        made.sendmsg([b"hello"], [(socket.IPPROTO_IP, socket.IP_TOS, struct.pack("i", 2))])
        print("sent", flush=True)
    except OSError as error:
        print(errno.errorcode[error.errno], flush=True)
"#;
    let world = World::new()?;
    let services = Listeners::everywhere(&world.host, PORT)?;
    let rule = format!("udp:{GROUP}:{PORT}");
    let fence = Fence::new("group")?.with(&["--user", "nobody", "--allow", &rule]);
    let script = tempfile::NamedTempFile::new()?;
    fs::write(script.path(), LOOP)?;
    fs::set_permissions(script.path(), fs::Permissions::from_mode(0o644))?;
    let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
    shell.tell(&format!(
        "exec /usr/bin/python3 {}",
        script.path().display()
    ))?;
    ensure!(shell.next_line()? == "connected");
    shell.tell("one")?;
    ensure!(shell.next_line()? == "sent");
    wait_until("the host gets its copy", || {
        Ok(services.arrivals().len() == 1)
    })?;
    let mut set = world.host.command(qfence()?);
    set.args(["set", fence.name(), "--deny", GROUP, "--keep-established"]);
    let changed = to_end(set)?;
    ensure!(changed.code() == Some(0), "{changed:?}");
    shell.tell("two")?;
    ensure!(shell.next_line()? == "ECONNREFUSED");
    let refusal = fence.await_refusal(|refusal| refusal.destination == GROUP)?;
    assert_eq!(
        (refusal.hook.as_str(), refusal.port),
        ("sendmsg4", PORT),
        "{refusal:?}"
    );
    assert_eq!(services.arrivals().len(), 1);
    shell.close_input();
    Ok(())
}
