//! Networks of a guest that are no internet sockets of QEMU's own: refused before anything starts,
//! and let through where that is asked for. It is the real QEMU that says what the arguments mean.

use std::{
    fs,
    os::unix::{
        fs::symlink,
        net::{UnixDatagram, UnixListener},
    },
    path::Path,
    process::Command,
};

use anyhow::{Result, bail};
use qfence_user::qemu::options::WITH_VALUE;
use tests::{
    fence::Fence,
    listener::Listeners,
    namespace::Namespace,
    remains,
    run::{Ended, to_end, to_end_with_input, wait_until, without_sudo},
    world::{HOST_V4, SERVER_V4, World},
};

const QEMU: &str = "qemu-system-x86_64";
const PORT: u16 = 8080;

/// A machine without anything that runs nothing, and a monitor on its standard streams.
const BARE: [&str; 7] = [
    "-S",
    "-nodefaults",
    "-no-user-config",
    "-display",
    "none",
    "-monitor",
    "stdio",
];

/// What the monitor is asked: QEMU has made its networks by then.
const QUESTIONS: &[u8] = b"info network\nquit\n";

/// Runs QEMU in a fence with these options, behind these words, and asks it for its networks.
fn run(
    host: &Namespace,
    options: &[&str],
    wrapper: &[&str],
    arguments: &[&str],
) -> Result<(Ended, Fence)> {
    let fence = Fence::new("door")?.with(options);
    let (first, rest) = wrapper.split_first().unwrap_or((&QEMU, &[]));
    let mut command = fence.command(host, first);
    command.args(rest);
    if !wrapper.is_empty() {
        command.arg(QEMU);
    }
    command.args(BARE).args(arguments);
    without_sudo(&mut command);
    Ok((to_end_with_input(command, QUESTIONS)?, fence))
}

/// qfence's own lines, without what it says of root, and of the dead fences of other tests, which
/// whoever comes next clears.
fn said(ended: &Ended) -> Vec<&str> {
    const OF_OTHER_THINGS: [&str; 2] = [
        "warning: the command runs as root",
        "clearing the remains of the fence",
    ];
    let lines = ended.stderr.lines();
    lines
        .filter_map(|line| line.strip_prefix("qfence: "))
        .filter(|line| !OF_OTHER_THINGS.iter().any(|start| line.starts_with(start)))
        .collect()
}

/// The one line that qfence said.
fn only_line(ended: &Ended) -> Result<&str> {
    match said(ended)[..] {
        [line] => Ok(line),
        _ => bail!("not one line of qfence's: {ended:?}"),
    }
}

/// Makes sure that it is refused for that argument, and that nothing has run and nothing is left.
fn assert_refused(
    host: &Namespace,
    wrapper: &[&str],
    arguments: &[&str],
    named: &str,
) -> Result<()> {
    let (ended, fence) = run(host, &[], wrapper, arguments)?;
    assert_eq!(ended.code(), Some(125), "{arguments:?}: {ended:?}");
    assert_eq!(ended.stdout, "", "{arguments:?}: it ran");
    let line = only_line(&ended)?;
    let start = format!("error: the fence does not cover {named}: ");
    assert!(line.starts_with(&start), "{arguments:?}: {line}");
    assert!(
        line.contains("--allow-unfenced-net"),
        "{arguments:?}: {line}"
    );
    remains::ensure_none(fence.name())
}

/// Makes sure that it is let through with a warning for that argument; returns how QEMU ended.
fn assert_allowed(host: &Namespace, arguments: &[&str], named: &str) -> Result<Ended> {
    let (ended, fence) = run(host, &["--allow-unfenced-net"], &[], arguments)?;
    let line = only_line(&ended)?;
    let start = format!("warning: {named} is not fenced: ");
    assert!(line.starts_with(&start), "{arguments:?}: {line}");
    remains::ensure_none(fence.name())?;
    Ok(ended)
}

/// An argument that is a door, and what QEMU says of the network if it is let through.
fn assert_door(host: &Namespace, arguments: &[&str], named: &str, network: &str) -> Result<()> {
    assert_refused(host, &[], arguments, named)?;
    let ended = assert_allowed(host, arguments, named)?;
    assert_eq!(ended.code(), Some(0), "{arguments:?}: {ended:?}");
    assert!(ended.stdout.contains(network), "{arguments:?}: {ended:?}");
    Ok(())
}

#[test]
fn a_tap_is_refused_however_it_is_spelled() -> Result<()> {
    let host = Namespace::new()?;
    let json = r#"{"type":"tap","id":"n","script":"no","downscript":"no"}"#;
    for (option, value) in [
        ("-netdev", "tap,id=n,script=no,downscript=no"),
        ("--netdev", "id=n,type=tap,script=no,downscript=no"),
        ("-netdev", "user,id=n,type=tap,script=no,downscript=no"),
        ("-netdev", json),
        ("-nic", "tap,script=no,downscript=no"),
        ("-net", "tap,script=no,downscript=no"),
    ] {
        let named = format!("{option} {value}");
        assert_door(&host, &[option, value], &named, "type=tap")?;
    }
    let changed = [
        "-netdev",
        "user,id=n,script=no,downscript=no",
        "-set",
        "netdev.n.type=tap",
    ];
    let named = "-netdev user,id=n,script=no,downscript=no with -set netdev.n.type=tap";
    assert_door(&host, &changed, named, "type=tap")
}

#[test]
fn a_configuration_file_hides_nothing() -> Result<()> {
    let host = Namespace::new()?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("vm.conf");
    let path = file.display().to_string();
    for heading in ["[netdev \"n\"]", "[nic]", "[net]"] {
        let text =
            format!("{heading}\n  type = \"tap\"\n  script = \"no\"\n  downscript = \"no\"\n");
        fs::write(&file, text)?;
        let named = format!("{heading} in -readconfig {path}");
        assert_door(&host, &["-readconfig", &path], &named, "type=tap")?;
    }
    fs::write(&file, "[netdev \"n\"]\n  type = \"user\"\n")?;
    assert_left_alone(&host, &["-readconfig", &path], "type=user")
}

#[test]
fn a_configuration_that_can_be_read_once_only_is_refused() -> Result<()> {
    let host = Namespace::new()?;
    let arguments = ["-readconfig", "/dev/stdin"];
    assert_refused(&host, &[], &arguments, "-readconfig /dev/stdin")?;
    let missing = ["-readconfig", "/nonexistent/vm.conf"];
    assert_refused(&host, &[], &missing, "-readconfig /nonexistent/vm.conf")
}

#[test]
fn unix_sockets_are_refused() -> Result<()> {
    let host = Namespace::new()?;
    let dir = tempfile::tempdir()?;
    let path = |name: &str| dir.path().join(name).display().to_string();
    let _stream = UnixListener::bind(path("stream"))?;
    let _datagram = UnixDatagram::bind(path("datagram"))?;
    let stream = format!(
        "stream,id=n,server=off,addr.type=unix,addr.path={}",
        path("stream")
    );
    let json = format!(
        r#"{{"type":"stream","id":"n","addr":{{"type":"unix","path":"{}"}}}}"#,
        path("stream")
    );
    let datagram = format!(
        "dgram,id=n,local.type=unix,local.path={},remote.type=unix,remote.path={}",
        path("local"),
        path("datagram")
    );
    for (value, network) in [
        (&stream, "type=stream"),
        (&json, "type=stream"),
        (&datagram, "type=dgram"),
    ] {
        let named = format!("-netdev {value}");
        assert_door(&host, &["-netdev", value], &named, network)?;
        // A socket of the datagram kind stays after QEMU.
        let _ = fs::remove_file(path("local"));
    }
    Ok(())
}

/// With these it is for QEMU to say whether this machine and this build of it have such a thing.
#[test]
fn the_other_doors_are_refused_and_left_to_qemu_where_allowed() -> Result<()> {
    let host = Namespace::new()?;
    for (option, value) in [
        ("-netdev", "bridge,id=n,br=no-such-bridge"),
        ("-netdev", "vhost-user,id=n,chardev=none"),
        ("-netdev", "vhost-vdpa,id=n,vhostdev=/nonexistent"),
        ("-netdev", "vde,id=n,sock=/nonexistent"),
        ("-netdev", "netmap,id=n,ifname=vale0:1"),
        ("-netdev", "af-xdp,id=n,ifname=none"),
        ("-netdev", "from-the-future,id=n"),
        ("-netdev", "tap,id=n,fd=77"),
        ("-netdev", "socket,id=n,fd=77"),
        ("-netdev", "{'type':'tap','id':'n','fd':'77'}"),
        ("-device", "vhost-vsock-pci,guest-cid=4711,id=v"),
        (
            "-device",
            r#"{"driver":"vhost-vsock-pci","guest-cid":4711}"#,
        ),
        ("-device", "vhost-user-vsock-pci,chardev=none"),
        ("-nic", "user,guestfwd=tcp:10.0.2.100:80-unix:/nonexistent"),
    ] {
        let named = format!("{option} {value}");
        assert_refused(&host, &[], &[option, value], &named)?;
        let ended = assert_allowed(&host, &[option, value], &named)?;
        assert_ne!(ended.code(), Some(125), "{named}: {ended:?}");
    }
    Ok(())
}

#[test]
fn a_qemu_is_found_behind_wrappers_and_links() -> Result<()> {
    let host = Namespace::new()?;
    let arguments = ["-nic", "tap,script=no"];
    for wrapper in [
        &["env", "A=b"][..],
        &["nice", "-n", "5"],
        &["timeout", "60"],
        &["setsid", "nice", "stdbuf", "-oL"],
    ] {
        assert_refused(&host, wrapper, &arguments, "-nic tap,script=no")?;
    }
    let dir = tempfile::tempdir()?;
    let link = dir.path().join("my-machine");
    symlink(Path::new("/usr/bin").join(QEMU), &link)?;
    let fence = Fence::new("door")?;
    let mut command = fence.command(&host, &link);
    command.args(arguments);
    let ended = to_end(command)?;
    assert_eq!(ended.code(), Some(125), "{ended:?}");
    remains::ensure_none(fence.name())
}

/// Makes sure that nothing is said of it, and that QEMU has that network.
fn assert_left_alone(host: &Namespace, arguments: &[&str], network: &str) -> Result<()> {
    let (ended, _) = run(host, &[], &[], arguments)?;
    assert_eq!(said(&ended), [""; 0], "{arguments:?}");
    assert_eq!(ended.code(), Some(0), "{arguments:?}: {ended:?}");
    assert!(ended.stdout.contains(network), "{arguments:?}: {ended:?}");
    Ok(())
}

#[test]
fn what_the_fence_holds_is_left_alone() -> Result<()> {
    let host = Namespace::new()?;
    host.ip("link set lo up")?;
    for (arguments, network) in [
        (&["-nic", "user"][..], "type=user"),
        (&["-nic", "none", "-name", "-netdev"], "QEMU"),
        (
            &["-netdev", "user,id=n,hostfwd=tcp::2222-:22,tftp=/tmp"],
            "type=user",
        ),
        (
            &["-nic", "user,guestfwd=tcp:10.0.2.100:80-cmd:cat"],
            "type=user",
        ),
        (&["-netdev", r#"{"type":"user","id":"n"}"#], "type=user"),
        (
            &["-netdev", "socket,id=n,listen=127.0.0.1:2223"],
            "type=socket",
        ),
        (
            &[
                "-netdev",
                "stream,id=n,server=on,addr.type=inet,addr.host=127.0.0.1,addr.port=2224",
            ],
            "type=stream",
        ),
        (
            &[
                "-netdev",
                "dgram,id=n,local.type=inet,local.host=127.0.0.1,local.port=2225,\
                remote.type=inet,remote.host=192.0.2.1,remote.port=1",
            ],
            "type=dgram",
        ),
        (&["-netdev", "hubport,id=n,hubid=0"], "hub 0"),
    ] {
        assert_left_alone(&host, arguments, network)?;
    }
    // Whether there is an smbd is for QEMU to say.
    let (ended, _) = run(&host, &[], &[], &["-nic", "user,smb=/tmp"])?;
    assert_eq!(said(&ended), [""; 0], "{ended:?}");
    assert_ne!(ended.code(), Some(125), "{ended:?}");
    Ok(())
}

#[test]
fn a_guestfwd_to_the_host_gets_a_hint() -> Result<()> {
    let world = World::new()?;
    let services = Listeners::everywhere(&world.host, PORT)?;
    let _server = Listeners::everywhere(&world.internet, PORT)?;
    for address in ["127.0.0.1".to_owned(), HOST_V4.to_string()] {
        let value = format!("user,guestfwd=tcp:10.0.2.100:80-tcp:{address}:{PORT}");
        // The control: QEMU connects at its start, and without the fence it can.
        let before = services.arrivals().len();
        let mut command: Command = world.host.command(QEMU);
        command.args(BARE).args(["-nic", &value]);
        assert_eq!(to_end_with_input(command, QUESTIONS)?.code(), Some(0));
        wait_until("an arrival", || Ok(services.arrivals().len() > before))?;

        let before = services.arrivals().len();
        let (ended, _) = run(&world.host, &[], &[], &["-nic", &value])?;
        let line = only_line(&ended)?;
        let start = format!("hint: guestfwd to {address}:{PORT} (-nic {value}) is refused; ");
        assert!(line.starts_with(&start), "{line}");
        assert_eq!(ended.code(), Some(1), "{ended:?}");
        assert_eq!(services.arrivals().len(), before);

        // What the hint says is what is needed.
        let rule = format!("tcp:{address}:{PORT}");
        assert!(line.contains(&format!("give --allow {rule} to")), "{line}");
        let options = ["--allow", &rule];
        let (ended, _) = run(&world.host, &options, &[], &["-nic", &value])?;
        assert_eq!(said(&ended), [""; 0], "{ended:?}");
        assert_eq!(ended.code(), Some(0), "{ended:?}");
        wait_until("an arrival", || Ok(services.arrivals().len() > before))?;
    }
    let value = format!("user,guestfwd=tcp:10.0.2.100:80-tcp:{SERVER_V4}:{PORT}");
    assert_left_alone(&world.host, &["-nic", &value], "type=user")
}

/// QEMU looks at all of its arguments before it acts on one: that an option at the end has no value
/// it says even after `-version`.
#[test]
fn the_options_that_take_a_value_are_those_of_qemu() -> Result<()> {
    let lacks_value = |name: &str| -> Result<Option<bool>> {
        let mut command = Command::new(QEMU);
        command.arg("-version").arg(format!("-{name}"));
        let ended = to_end(command)?;
        Ok(match ended.code() {
            Some(0) => Some(false),
            _ if ended.stderr.contains("requires an argument") => Some(true),
            _ => {
                assert!(ended.stderr.contains("invalid option"), "{ended:?}");
                None
            }
        })
    };
    let mut known = 0;
    let with_value: Vec<&str> = WITH_VALUE.split(' ').collect();
    for name in &with_value {
        match lacks_value(name)? {
            Some(true) => known += 1,
            Some(false) => panic!("-{name} takes no value"),
            None => {}
        }
    }
    assert!(known > 80, "this QEMU knows {known} of the options");
    // Those in its help that are not in the list take none.
    let mut command = Command::new(QEMU);
    command.arg("-help");
    let help = to_end(command)?.stdout;
    let names = help.lines().filter_map(|line| line.strip_prefix('-'));
    for line in names {
        let line = line.trim_start_matches('-');
        let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || "-_".contains(c)));
        let name = &line[..end.unwrap_or(line.len())];
        if !with_value.contains(&name) {
            assert_eq!(lacks_value(name)?, Some(false), "-{name} takes a value");
        }
    }
    Ok(())
}
