use super::*;

/// The closures that refuse these arguments, of all closures.
fn closures(arguments: &str) -> Vec<String> {
    let refused = needs(arguments).refused;
    refused
        .iter()
        .map(|refused| {
            let names = refused.closures.iter().map(|closure| closure.name());
            names.collect::<Vec<_>>().join(",")
        })
        .collect()
}

#[test]
fn options_that_cannot_work_are_refused() {
    for (arguments, expected) in [
        ("-drive file=d,aio=io_uring", "syscalls"),
        ("-blockdev driver=file,filename=d,aio=io_uring", "syscalls"),
        (
            r#"-blockdev {"driver":"raw","file":{"driver":"file","filename":"d","aio":"io_uring"}}"#,
            "syscalls",
        ),
        ("-blockdev driver=io_uring,filename=d", "syscalls"),
        ("-netdev passt,id=n", "files,syscalls"),
        ("-nic passt", "files,syscalls"),
        ("-netdev af-xdp,id=n,ifname=e", "syscalls"),
        ("-nic user,smb=/srv", "files"),
        ("-serial pty", "files,devices"),
        ("-serial mon:pty", "files,devices"),
        ("-monitor pty", "files,devices"),
        ("-chardev pty,id=c", "files,devices"),
        ("-chardev pty,id=c,path=/tmp/p", "files,devices"),
        ("-incoming exec:cat", "files"),
        (
            r#"-incoming {"channel-type":"main","addr":{"transport":"exec","args":["cat"]}}"#,
            "files",
        ),
        ("-incoming vsock:2:1", "syscalls"),
        ("-display dbus", "sockets"),
        ("-display dbus,addr=unix:path=/run/bus", "sockets"),
        ("-display spice-app", "sockets,files"),
        (
            "-object dbus-vmstate,id=d,addr=unix:path=/run/bus",
            "sockets",
        ),
        ("-object can-host-socketcan,id=c,if=can0", "syscalls"),
        ("-device usb-host,hostbus=1,hostaddr=2", "syscalls"),
        ("-object secret_keyring,id=s,serial=1", "syscalls"),
    ] {
        assert_eq!(closures(arguments), [expected], "{arguments}");
    }
}

#[test]
fn what_works_is_not_refused() {
    for arguments in [
        "-drive file=d,aio=native",
        "-sandbox on,spawn=deny",
        "-daemonize -pidfile p",
        "-netdev user,id=n,guestfwd=tcp:10.0.2.9:1-cmd:cat",
        "-display dbus,p2p=yes",
        "-serial stdio -monitor vc",
        "-incoming defer",
    ] {
        assert_eq!(closures(arguments), [""; 0], "{arguments}");
    }
}

#[test]
fn only_the_closures_of_the_command_refuse() {
    let refused = |closures: &[Closure]| {
        let line = "kvm -display none -serial pty -drive file=d,aio=io_uring";
        let refused = command(line, &[], closures).unwrap().refused;
        refused.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(refused(&[]), [""; 0]);
    assert_eq!(refused(&[Closure::Processes, Closure::Listeners]), [""; 0]);
    assert_eq!(
        refused(&[Closure::Devices]),
        [
            "-serial pty does not work under --strict: it opens a new terminal in /dev/pts, where all \
         terminals of the user are, which the closure devices forbids; use a Unix socket \
         (unix:PATH,server=on,wait=off), or remove --strict"
        ]
    );
    assert_eq!(
        refused(&[Closure::Syscalls, Closure::Rights]),
        [
            "-drive file=d,aio=io_uring does not work under --strict: it needs io_uring, which the \
         closure syscalls forbids; use aio=threads or aio=native, or give --strict=rights"
        ]
    );
    // `sockets` requires `files`.
    assert_eq!(
        refused(&Closure::ALL)[0].split("; ").nth(1),
        Some(
            "use a Unix socket (unix:PATH,server=on,wait=off), or give \
             --strict=processes,syscalls,listeners,rights"
        )
    );
}

#[test]
fn a_usb_device_is_granted_where_it_is_not_refused() {
    let closures = [Closure::Files, Closure::Devices];
    let needs = command("kvm -nographic -device usb-host,hostbus=1", &[], &closures).unwrap();
    assert_eq!(line(&needs), "write /dev/bus/usb");
    assert_eq!(needs.refused, []);
}

#[test]
fn the_error_cannot_drive_the_terminal() {
    let error = needs("-drive file=\u{1b}[2J,aio=io_uring").refused[0].to_string();
    assert!(
        error.starts_with("-drive file=\\x1b[2J,aio=io_uring does not work"),
        "{error}"
    );
}
