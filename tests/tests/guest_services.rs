//! The services that QEMU starts for its guest in a fence: a command (`guestfwd=…-cmd:`) and samba (`smb=`). QEMU's own
//! listeners stay closed to the guest.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use tests::{
    fence::Fence,
    guest::{Guest, Options, image::module},
    probe, workspace,
    world::World,
};

/// The modules of the guest's kernel for SMB, in the order of their dependencies.
const CIFS: [&str; 8] = [
    "netfs",
    "fscache",
    "dns_resolver",
    "cifs_arc4",
    "cifs_md4",
    "cmac",
    "nls_utf8",
    "cifs",
];

/// QEMU's monitor, its VNC server and its gdbstub.
const LISTENERS: [u16; 3] = [4444, 5905, 1234];

const SHARED: &str = "a file of the host's, by smbd\n";

#[test]
fn a_guest_has_its_commands_and_samba_and_not_qemus_listeners() -> Result<()> {
    let world = World::new()?;
    let shared = tempfile::Builder::new().prefix("qfence-smb-").tempdir()?;
    workspace::make_readable(shared.path())?;
    fs::write(shared.path().join("file"), SHARED)?;
    ensure!(
        fs::exists("/usr/sbin/smbd")?,
        "there is no /usr/sbin/smbd: install the package samba (`cargo xtask setup`)"
    );
    let modules = CIFS.iter().map(|name| {
        let path = module(name)?;
        Ok((format!("/lib/modules/{name}.ko"), path))
    });
    let options = Options {
        netdev: Some(format!(
            "user,ipv4=on,ipv6=on,hostfwd=tcp:127.0.0.1:2222-:22,hostfwd=tcp:127.0.0.1:0-:23,\
             guestfwd=tcp:10.0.2.100:80-cmd:/bin/echo hello from the command,smb={}",
            shared.path().display()
        )),
        arguments: [
            "-monitor",
            "tcp:127.0.0.1:4444,server=on,wait=off",
            "-vnc",
            "127.0.0.1:5",
            "-gdb",
            "tcp:127.0.0.1:1234",
        ]
        .map(str::to_owned)
        .into(),
        files: modules.collect::<Result<_>>()?,
        ..Options::default()
    };
    let fence = Fence::new("services")?.with(&["--user", "nobody"]);
    let mut guest = Guest::boot(&world, &fence.launcher(), &options)?;

    // All that was forwarded works, several times.
    for _ in 0..3 {
        let command = guest.attempt("tcp/10.0.2.100/80")?;
        assert!(command.says("hello from the command"), "{command:?}");
    }
    guest.serve(&["tcp/22"])?;
    let forwarded = probe::run(&world.host, &["tcp/127.0.0.1/2222"])?;
    assert!(forwarded[0].says("hello from the probe"), "{forwarded:?}");
    for name in CIFS {
        guest.shell(&format!("insmod /lib/modules/{name}.ko"))?;
    }
    let read = guest
        .shell("mount -t cifs -o username=guest,password=,ip=10.0.2.4,vers=2.1 //10.0.2.4/qemu /tmp && cat /tmp/file")
        .with_context(|| guest.shell("dmesg | tail -20").unwrap_or_default())?;
    assert_eq!(read.trim(), SHARED.trim(), "{}", guest.logs());

    // QEMU's own listeners, and the port that the kernel chose for the second forward.
    for port in LISTENERS {
        let outcome = guest.attempt(&format!("tcp/10.0.2.2/{port}"))?;
        assert!(outcome.failed_with("ECONNREFUSED"), "{outcome:?}");
        let refusal = fence.await_refusal(|line| line.port == port)?;
        assert_eq!(refusal.destination, "127.0.0.1");
    }
    // The record has the guest's attempts alone, as those of the guest.
    let refusals = fs::read_to_string(fence.log())?;
    for line in refusals.lines().filter(|line| line.contains("\"tcp\"")) {
        let line: serde_json::Value = serde_json::from_str(line)?;
        let port = line["port"].as_u64().context("a port")?;
        assert!(LISTENERS.map(u64::from).contains(&port), "{line}");
        assert_eq!(line["dialled"], "10.0.2.2", "{line}");
    }
    // The control comes last: a connection to the gdbstub stops the guest.
    for port in LISTENERS {
        let control = probe::run(
            &world.host,
            &["--timeout-ms", "300", &format!("tcp/127.0.0.1/{port}")],
        )?;
        assert!(
            !control[0].failed_with("ECONNREFUSED"),
            "control: {control:?}"
        );
    }
    Ok(())
}

/// QEMU connects to the target of a `guestfwd` itself: nobody dialled it.
#[test]
fn what_qemu_connects_to_itself_was_not_dialled() -> Result<()> {
    let world = World::new()?;
    let fence = Fence::new("own")?.with(&["--user", "nobody"]);
    let mut command = fence.command(&world.host, "qemu-system-x86_64");
    command.args("-S -nodefaults -no-user-config -display none -nic".split(' '));
    command.arg("user,guestfwd=tcp:10.0.2.100:80-tcp:127.0.0.1:9");
    let ended = tests::run::to_end(command)?;
    assert_ne!(ended.code(), Some(0), "{ended:?}");
    let refusals = fs::read_to_string(fence.log())?;
    let line: serde_json::Value = serde_json::from_str(refusals.lines().next().context("a line")?)?;
    assert_eq!(line["port"], 9, "{line}");
    assert!(line["dialled"].is_null(), "{line}");
    Ok(())
}
