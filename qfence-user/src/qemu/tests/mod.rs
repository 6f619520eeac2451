//! Command lines, and the findings in them.

mod arguments;

use std::collections::BTreeMap;

use super::*;

/// The files of these tests, by path.
fn files() -> BTreeMap<&'static str, &'static str> {
    BTreeMap::from([
        (
            "user.conf",
            "[netdev \"n\"]\n type = \"user\"\n\n[device]\n driver = \"e1000\"\n",
        ),
        ("tap.conf", "[netdev \"n\"]\n type = \"tap\"\n"),
        ("nic.conf", "# the office\n[nic]\n type = \"bridge\"\n"),
        (
            "net.conf",
            "[machine]\n type = \"q35\"\n[net]\n type = \"vde\"\n",
        ),
        (
            "vsock.conf",
            "[device \"v\"]\n driver = \"vhost-vsock-pci\"\n guest-cid = \"3\"\n",
        ),
        (
            "fwd.conf",
            "[nic]\n type = \"user\"\n guestfwd = \"tcp:10.0.2.9:1-unix:/s\"\n",
        ),
        ("odd.conf", "[nic]\n type = tap\n"),
        ("/sys/bus/pci/devices/0000:01:00.0/class", "0x020000\n"),
        ("/sys/bus/pci/devices/0000:02:00.0/class", "0x030000\n"),
    ])
}

fn read(files: &BTreeMap<&str, &str>, path: &Path) -> io::Result<String> {
    if path == Path::new("/dev/stdin") {
        return Err(io::Error::other("a pipe"));
    }
    let text = path.to_str().and_then(|path| files.get(path));
    text.map(|text| (*text).to_owned())
        .ok_or(io::ErrorKind::NotFound.into())
}

/// Inspects a command whose words are separated by spaces.
fn inspected(line: &str, files: &BTreeMap<&str, &str>) -> Findings {
    let command: Vec<OsString> = line.split(' ').map(OsString::from).collect();
    inspect(&command, |_| None, |path| read(files, path))
}

/// The arguments that are side doors, for a QEMU with these arguments.
fn doors(arguments: &str) -> Vec<String> {
    let findings = inspected(&format!("qemu-system-x86_64 {arguments}"), &files());
    let argument = |door: &Door| door.warning().to_string();
    let warnings = findings.doors.iter().map(argument);
    warnings
        .map(|warning| warning.split_once(" is not fenced: ").unwrap().0.to_owned())
        .collect()
}

#[test]
fn each_of_several_is_named() {
    assert_eq!(
        doors("-nic user -netdev tap,id=a -device vhost-vsock-pci,guest-cid=3 -net vde"),
        [
            "-netdev tap,id=a",
            "-device vhost-vsock-pci,guest-cid=3",
            "-net vde"
        ]
    );
}

#[test]
fn set_changes_what_was_said_before() {
    for (line, found) in [
        (
            "-netdev user,id=n -set netdev.n.type=tap",
            &["-netdev user,id=n with -set netdev.n.type=tap"][..],
        ),
        (
            "-device e1000,id=d -set device.d.driver=vhost-vsock-pci",
            &["-device e1000,id=d with -set device.d.driver=vhost-vsock-pci"],
        ),
        (
            "-readconfig user.conf -set netdev.n.type=tap",
            &["[netdev \"n\"] in -readconfig user.conf with -set netdev.n.type=tap"],
        ),
        ("-netdev tap,id=n -set netdev.n.type=user", &[]),
        ("-netdev user,id=n -set netdev.m.type=tap", &[]),
        ("-netdev user,id=n -set drive.n.type=tap", &[]),
    ] {
        assert_eq!(doors(line), found, "{line}");
    }
}

#[test]
fn configuration_files_are_read() {
    for (line, found) in [
        ("-readconfig user.conf", &[][..]),
        (
            "-readconfig tap.conf",
            &["[netdev \"n\"] in -readconfig tap.conf"],
        ),
        ("--readconfig nic.conf", &["[nic] in --readconfig nic.conf"]),
        ("-readconfig net.conf", &["[net] in -readconfig net.conf"]),
        (
            "-readconfig vsock.conf",
            &["[device \"v\"] in -readconfig vsock.conf"],
        ),
        ("-readconfig fwd.conf", &["[nic] in -readconfig fwd.conf"]),
        ("-readconfig odd.conf", &["-readconfig odd.conf"]),
        ("-readconfig missing.conf", &["-readconfig missing.conf"]),
        ("-readconfig /dev/stdin", &["-readconfig /dev/stdin"]),
        ("-readconfig /dev/fdset/1", &["-readconfig /dev/fdset/1"]),
    ] {
        assert_eq!(doors(line), found, "{line}");
    }
}

#[test]
fn the_configuration_that_is_read_unasked_is_read() {
    let mut files = files();
    files.insert("/etc/qemu/qemu.conf", "[nic]\n type = \"tap\"\n");
    for (line, count) in [("kvm -m 512", 1), ("kvm -m 512 -no-user-config", 0)] {
        assert_eq!(inspected(line, &files).doors.len(), count, "{line}");
    }
}

#[test]
fn filters_that_lead_to_another_process_are_doors() {
    for (line, count) in [
        (
            "-chardev socket,id=c,path=/s -object filter-mirror,id=f,netdev=n,outdev=c",
            1,
        ),
        (
            "-chardev socket,id=c,host=h,port=1 -object filter-mirror,id=f,netdev=n,outdev=c",
            0,
        ),
        (
            "-chardev pipe,id=c,path=/p -object filter-redirector,id=f,netdev=n,indev=c",
            1,
        ),
        ("-object filter-redirector,id=f,netdev=n,outdev=unknown", 1),
        (
            r#"-object {"qom-type":"filter-redirector","id":"f","netdev":"n","outdev":"u"}"#,
            1,
        ),
        ("-object filter-dump,id=f,netdev=n,file=/tmp/x", 0),
        (
            "-object filter-buffer,id=f,netdev=n -object rng-random,id=r",
            0,
        ),
    ] {
        assert_eq!(doors(line).len(), count, "{line}");
    }
}

#[test]
fn targets_of_guestfwd_are_told() {
    for (line, told) in [
        (
            "-nic user,guestfwd=tcp:10.0.2.100:80-tcp:127.0.0.1:8080",
            Some("127.0.0.1:8080"),
        ),
        (
            "-nic user,guestfwd=:10.0.2.100:80-tcp:192.0.2.1:8080",
            Some("192.0.2.1:8080"),
        ),
        (
            "-net user,guestfwd=tcp::80-tcp:localhost:8080",
            Some("127.0.0.1:8080"),
        ),
        (
            "-netdev user,id=n,guestfwd=tcp:10.0.2.100:80-tcp::8080",
            Some("127.0.0.1:8080"),
        ),
        (
            "-nic user,guestfwd=tcp:10.0.2.100:80-udp:127.0.0.1:53",
            Some("127.0.0.1:53"),
        ),
        (
            "-chardev socket,id=c,host=0.0.0.0,port=80 -nic user,guestfwd=tcp::80-chardev:c",
            Some("0.0.0.0:80"),
        ),
        (
            r#"-netdev {"type":"user","guestfwd":[{"str":"tcp::80-tcp:127.0.0.1:1"}]}"#,
            Some("127.0.0.1:1"),
        ),
        (
            "-nic user,guestfwd=tcp::80-tcp::8080,server,nowait",
            Some("127.0.0.1:8080"),
        ),
        ("-nic user,guestfwd=tcp::80-tcp::8080,,server=on", None),
        ("-nic user,guestfwd=tcp::80-cmd:nc", None),
        ("-nic user,guestfwd=tcp::80-tcp:name.example:80", None),
        ("-nic user,guestfwd=nonsense", None),
        ("-nic user,hostfwd=tcp::2222-:22", None),
    ] {
        let findings = inspected(&format!("kvm {line}"), &files());
        let forwards: Vec<_> = findings
            .forwards
            .iter()
            .map(|forward| format!("{}:{}", forward.address, forward.port))
            .collect();
        assert_eq!(forwards, Vec::from_iter(told), "{line}");
        assert_eq!(findings.doors, [], "{line}");
    }
}

#[test]
fn a_wrapper_that_connects_to_a_passt_is_a_door_itself() {
    let findings = inspected("qrap disk.img -m 512", &files());
    assert_eq!(findings.doors.len(), 1);
    let findings = inspected("qrap 5 kvm -net socket,fd=5", &files());
    assert_eq!(findings.doors.len(), 2);
}

#[test]
fn other_programs_are_not_looked_at() {
    for line in [
        "ls -nic tap",
        "curl -netdev tap",
        "qemu-img create -net tap",
    ] {
        assert_eq!(inspected(line, &files()), Findings::default(), "{line}");
    }
}

#[test]
fn the_error_says_what_to_do_and_cannot_drive_the_terminal() {
    let findings = inspected("kvm -netdev vde,id=n,sock=\u{1b}[2J", &files());
    let refusal = findings.doors[0].refusal().to_string();
    assert_eq!(
        refusal,
        "the fence does not cover -netdev vde,id=n,sock=\\x1b[2J: the guest's frames enter a switch \
         on this host; use -netdev user, or passt started in the same \
         fence, or give --allow-unfenced-net"
    );
}
