use std::{ffi::OsString, io};

use super::super::inspect;

fn clients(arguments: &[&str]) -> Vec<String> {
    let command: Vec<OsString> = [&["qemu-system-x86_64"], arguments]
        .concat()
        .iter()
        .map(OsString::from)
        .collect();
    let found = inspect(&command, |_| None, |_| Err(io::ErrorKind::NotFound.into()));
    let clients = found.clients.into_iter();
    clients
        .map(|client| format!("{} {}:{}", client.protocol.0, client.address, client.port))
        .collect()
}

#[test]
fn what_qemu_connects_to_is_found() {
    for (arguments, found) in [
        (["-hda", "nbd:127.0.0.1:10809"], "6 127.0.0.1:10809"),
        (
            ["-hda", "nbd:localhost:1234:exportname=x"],
            "6 127.0.0.1:1234",
        ),
        (
            ["-drive", "file=nbd://localhost/x,format=raw"],
            "6 127.0.0.1:10809",
        ),
        (["-drive", "file=nbd://[::1]:99,if=virtio"], "6 ::1:99"),
        (
            ["-drive", "file.driver=nbd,file.host=127.0.0.1,file.port=5"],
            "6 127.0.0.1:5",
        ),
        (
            [
                "-blockdev",
                "driver=nbd,node-name=n,server.type=inet,server.host=127.0.0.1,server.port=7",
            ],
            "6 127.0.0.1:7",
        ),
        (
            [
                "-blockdev",
                r#"{"driver":"raw","file":{"driver":"nbd","server":{"type":"inet","host":"::1","port":"8"}}}"#,
            ],
            "6 ::1:8",
        ),
        (["-cdrom", "http://127.0.0.1/x.iso"], "6 127.0.0.1:80"),
        (["-drive", "file=ssh://me@127.0.0.1/x"], "6 127.0.0.1:22"),
        (["-drive", "file=iscsi://192.0.2.1/t/0"], "6 192.0.2.1:3260"),
        (["-serial", "tcp:127.0.0.1:4444"], "6 127.0.0.1:4444"),
        (["-serial", "udp::4555@:4556"], "17 127.0.0.1:4555"),
        (["-monitor", "telnet:localhost:23"], "6 127.0.0.1:23"),
        (
            ["-chardev", "socket,id=c,host=localhost,port=9"],
            "6 127.0.0.1:9",
        ),
        (
            ["-chardev", "udp,id=c,host=127.0.0.1,port=9"],
            "17 127.0.0.1:9",
        ),
        (
            ["-netdev", "socket,id=n,connect=127.0.0.1:1234"],
            "6 127.0.0.1:1234",
        ),
        (
            ["-netdev", "socket,id=n,mcast=230.0.0.1:1234"],
            "17 230.0.0.1:1234",
        ),
        (
            [
                "-netdev",
                "socket,id=n,udp=127.0.0.1:1,localaddr=127.0.0.1:2",
            ],
            "17 127.0.0.1:1",
        ),
        (
            [
                "-netdev",
                "stream,id=n,addr.type=inet,addr.host=127.0.0.1,addr.port=3",
            ],
            "6 127.0.0.1:3",
        ),
        (["-vnc", "127.0.0.1:5500,reverse=on"], "6 127.0.0.1:5500"),
        (
            ["-audiodev", "pa,id=a,server=tcp:127.0.0.1"],
            "6 127.0.0.1:4713",
        ),
        (
            ["-audiodev", "pa,id=a,server=127.0.0.1"],
            "6 127.0.0.1:4713",
        ),
        (["-audiodev", "pa,id=a,server=[::1]:99"], "6 ::1:99"),
        (
            ["-audiodev", "pa,id=a,server=tcp6:localhost:99"],
            "6 ::1:99",
        ),
        (
            [
                "-audiodev",
                "pa,id=a,server={m}unix:/run/p tcp4:localhost:98",
            ],
            "6 127.0.0.1:98",
        ),
        (
            ["-audio", "pa,model=hda,server=127.0.0.1"],
            "6 127.0.0.1:4713",
        ),
        (
            ["-display", "vnc=127.0.0.1:5500,reverse=on"],
            "6 127.0.0.1:5500",
        ),
        (
            [
                "-object",
                "input-barrier,id=b,name=x,server=127.0.0.1,port=1234",
            ],
            "6 127.0.0.1:1234",
        ),
        (
            ["-object", "input-barrier,id=b,name=x"],
            "6 127.0.0.1:24800",
        ),
    ] {
        assert_eq!(clients(&arguments), [found], "{arguments:?}");
    }
}

#[test]
fn the_family_of_a_name_is_as_demanded() {
    for (family, address) in [
        ("", "127.0.0.1"),
        ("ipv6=on", "::1"),
        ("ipv4=off", "::1"),
        ("ipv4=off,ipv6=on", "::1"),
        ("ipv6=off", "127.0.0.1"),
        ("ipv4=on", "127.0.0.1"),
        ("ipv4=on,ipv6=off", "127.0.0.1"),
        ("ipv4=on,ipv6=on", "127.0.0.1"),
    ] {
        let under = |prefix: &str| {
            let keys = family.split(',').filter(|key| !key.is_empty());
            keys.map(|key| format!(",{prefix}{key}"))
                .collect::<String>()
        };
        for (option, value, protocol) in [
            (
                "-chardev",
                format!("socket,id=c,host=localhost,port=9{}", under("")),
                6,
            ),
            (
                "-chardev",
                format!("udp,id=c,host=localhost,port=9{}", under("")),
                17,
            ),
            ("-vnc", format!("localhost:9,reverse=on{}", under("")), 6),
            (
                "-netdev",
                format!(
                    "stream,id=n,addr.type=inet,addr.host=localhost,addr.port=9{}",
                    under("addr.")
                ),
                6,
            ),
            (
                "-blockdev",
                format!(
                    "driver=nbd,node-name=n,server.type=inet,server.host=localhost,server.port=9{}",
                    under("server.")
                ),
                6,
            ),
        ] {
            let found = clients(&[option, &value]);
            assert_eq!(found, [format!("{protocol} {address}:9")], "{value}");
        }
        // The address is of its own family.
        let value = format!("socket,id=c,host=127.0.0.1,port=9{}", under(""));
        assert_eq!(clients(&["-chardev", &value]), ["6 127.0.0.1:9"]);
    }
}

#[test]
fn what_waits_for_a_peer_or_is_no_network_is_not() {
    for arguments in [
        // It listens: the sender of the guest's state connects to it.
        ["-incoming", "tcp:127.0.0.1:4444"],
        ["-serial", "tcp::4444,server,nowait"],
        ["-serial", "unix:/run/x"],
        ["-chardev", "socket,id=c,host=127.0.0.1,port=9,server=on"],
        ["-chardev", "socket,id=c,path=/run/x"],
        ["-gdb", "tcp::1234"],
        ["-vnc", "127.0.0.1:0"],
        ["-display", "vnc=127.0.0.1:0"],
        ["-audiodev", "pa,id=a,server=unix:/run/p"],
        ["-audiodev", "pa,id=a"],
        ["-object", "input-linux,id=i,evdev=/dev/input/event0"],
        ["-netdev", "socket,id=n,listen=127.0.0.1:1234"],
        ["-netdev", "user,id=n,hostfwd=tcp:127.0.0.1:22-:22"],
        ["-hda", "nbd:unix:/run/nbd"],
        ["-hda", "nbd+unix:///x?socket=/run/nbd"],
        ["-hda", "disk.qcow2"],
        ["-hda", "/vm/http:/disk"],
        ["-drive", "file=/vm/localhost:80"],
        ["-append", "console=ttyS0 nbd:127.0.0.1:1"],
        // Only a resolver knows the address.
        ["-cdrom", "http://example.org/x.iso"],
    ] {
        assert!(clients(&arguments).is_empty(), "{arguments:?}");
    }
}
