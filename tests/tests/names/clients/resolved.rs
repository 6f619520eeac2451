//! A host whose nameserver is systemd-resolved, by its stub and by the module of the C library.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    process::Stdio,
    time::Duration,
};

use tests::{
    mounts::mount_new,
    process::Process,
    run::{HANG, wait_until},
};

use super::{
    table::{C_ARES, GLIBC, GO, MUSL},
    *,
};

const PROGRAM: &str = "/usr/lib/systemd/systemd-resolved";

/// The stub, and resolv.conf as systemd-resolved writes it.
const STUB: ([u8; 4], u16) = ([127, 0, 0, 53], 53);
const RESOLV_CONF: &str = "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch .\n";

/// The user that it becomes; its package makes one.
const USER: &str = "systemd-resolve:x:59124:59124::/:/usr/sbin/nologin\n";

/// The nameservers are those of `place.rs`. They sign nothing.
const SETTINGS: &str = "[Resolve]\nDNS=198.51.100.53 2001:db8:2::53\nFallbackDNS=\nDNSSEC=no\nLLMNR=no\nMulticastDNS=no\n";

/// Starts systemd-resolved on the host, without a bus and without systemd.
fn start(place: &Place) -> Result<Process> {
    let world = &place.world;
    world.write_resolv_conf(RESOLV_CONF)?;
    world.write_etc("systemd/resolved.conf", SETTINGS)?;
    let users = fs::read_to_string("/etc/passwd").context("read the users")?;
    let others = users
        .lines()
        .filter(|line| !line.starts_with("systemd-resolve:"));
    let others: Vec<_> = others.collect();
    world.write_etc("passwd", &format!("{}\n{USER}", others.join("\n")))?;
    world.host.run(|| {
        fs::create_dir_all("/run/systemd")?;
        mount_new("tmpfs", "/run/systemd", Some("mode=755"))
    })?;
    let mut command = world.host.command(PROGRAM);
    command.stderr(Stdio::null());
    command.env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/run/systemd/no-bus");
    let mut process = Process::spawn(command)?;
    let answers = wait_until("systemd-resolved answers", || {
        ensure!(process.wait(Duration::ZERO)?.is_none(), "it has ended");
        let stub = SocketAddr::from(STUB);
        Ok(world
            .host
            .run(|| Ok(TcpStream::connect_timeout(&stub, HANG)?))
            .is_ok())
    });
    answers?;
    Ok(process)
}

#[test]
fn names_are_resolved_through_the_stub() -> Result<()> {
    let place = Place::new(OnHost::Nothing)?;
    let _resolved = start(&place)?;
    let mut bed = Bed::at(place)?;
    for client in [&GLIBC, &MUSL, &C_ARES, &GO] {
        for family in Family::BOTH {
            try_client(&mut bed, client, family).with_context(|| client.name)?;
        }
    }
    Ok(())
}

/// The module asks by a socket in the file system, where no query is led.
#[test]
fn the_module_of_the_c_library_does_not_lead_around_the_fence() -> Result<()> {
    let place = Place::new(OnHost::Nothing)?;
    let _resolved = start(&place)?;
    let mut bed = Bed::at(place)?;
    bed.place
        .world
        .write_etc("nsswitch.conf", "hosts: resolve\n")?;
    for family in Family::BOTH {
        let host = bed.place.next("plain", ALLOWED, family);
        let outcome = bed.fenced(&GLIBC, &host)?;
        ensure!(!outcome.is_success, "{host:?}: {outcome:?}");
        ensure!(!bed.place.nameserver.knows(&host.name), "{host:?} is known");
        let outcome = bed.open(&GLIBC, &host)?;
        let reached = bed.place.reached(&host);
        ensure!(reached == host.addresses, "the control: {outcome:?}");
    }
    // As Debian's package has it.
    let usual = "hosts: files resolve [!UNAVAIL=return] dns\n";
    bed.place.world.write_etc("nsswitch.conf", usual)?;
    for family in Family::BOTH {
        try_client(&mut bed, &GLIBC, family)?;
    }
    Ok(())
}
