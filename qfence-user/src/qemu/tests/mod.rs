//! Command lines, and what is found in them.

use std::collections::BTreeMap;

use super::*;

/// Files of these tests, by their paths.
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

/// Inspects words that are separated by spaces.
fn inspected(line: &str, files: &BTreeMap<&str, &str>) -> Findings {
    let command: Vec<OsString> = line.split(' ').map(OsString::from).collect();
    inspect(&command, |_| None, |path| read(files, path))
}

/// The arguments that are found to be doors, for a QEMU with these arguments.
fn doors(arguments: &str) -> Vec<String> {
    let findings = inspected(&format!("qemu-system-x86_64 {arguments}"), &files());
    let argument = |door: &Door| door.warning().to_string();
    let warnings = findings.doors.iter().map(argument);
    warnings
        .map(|warning| warning.split_once(" is not fenced: ").unwrap().0.to_owned())
        .collect()
}

#[test]
fn every_door_is_found_in_every_spelling() {
    for line in [
        // Where the type stands.
        "-netdev tap,id=n",
        "--netdev tap,id=n",
        "-netdev type=tap,id=n",
        "-netdev id=n,type=tap",
        "-netdev user,id=n,type=tap",
        "-netdev ,type=tap",
        r#"-netdev {"type":"tap","id":"n"}"#,
        r#"--netdev {"id":"n","type":"tap"}"#,
        "-nic tap",
        "-nic type=tap,model=e1000",
        "-nic model=e1000,type=tap",
        "-net tap",
        "--net tap,script=no",
        // What it may hide behind.
        "-snapshot -netdev tap,id=n",
        "-some-new-flag -netdev tap,id=n",
        "-append -netdev -netdev tap,id=n",
        "-m 512 disk.img -netdev tap,id=n",
        // The types.
        "-netdev bridge,id=n,br=br0",
        "-nic bridge",
        "-net bridge,br=virbr0",
        "-netdev vhost-user,id=n,chardev=c",
        "-netdev vhost-vdpa,id=n,vhostdev=/dev/vhost-vdpa-0",
        "-netdev vde,id=n,sock=/run/vde",
        "-netdev netmap,id=n,ifname=vale0:1",
        "-netdev af-xdp,id=n,ifname=eth0",
        "-netdev vmnet-shared,id=n",
        "-netdev from-the-future,id=n",
        "-net channel,7000:null",
        // By descriptor: tap, macvtap, a socket.
        "-netdev tap,id=n,fd=3",
        "-netdev tap,id=n,fds=3:4,vhost=on,vhostfds=5:6",
        "-netdev socket,id=n,fd=3",
        "-net socket,fd=5",
        // By Unix sockets.
        "-netdev stream,id=n,server=off,addr.type=unix,addr.path=/tmp/passt.socket",
        "-netdev stream,id=n,addr.type=fd,addr.str=3",
        "-netdev stream,id=n,addr.type=vsock,addr.cid=2,addr.port=9",
        "-netdev stream,id=n",
        "-netdev dgram,id=n,local.type=unix,local.path=/a,remote.type=unix,remote.path=/b",
        "-netdev dgram,id=n,local.type=inet,local.host=h,remote.type=unix,remote.path=/b",
        "-netdev dgram,id=n,local.type=fd,local.str=3",
        r#"-netdev {"type":"stream","id":"n","addr":{"type":"unix","path":"/tmp/s"}}"#,
        r#"-netdev {"type":"dgram","id":"n","local":{"type":"fd","str":"3"}}"#,
        // Devices.
        "-device vhost-vsock-pci,guest-cid=3",
        "-device vhost-vsock-pci-non-transitional,guest-cid=3",
        "-device vhost-vsock-device,guest-cid=3",
        "-device vhost-vsock-ccw,guest-cid=3",
        "--device driver=vhost-vsock-pci,guest-cid=3",
        "-device guest-cid=3,driver=vhost-vsock-pci",
        r#"-device {"driver":"vhost-vsock-pci","guest-cid":3}"#,
        "-device vhost-user-vsock-pci,chardev=c",
        "-device vhost-user-device-pci,virtio-id=1,chardev=c",
        "-device vhost-vdpa-device-pci,vhostdev=/dev/vhost-vdpa-0",
        "-device vfio-user-pci,socket=/tmp/s",
        "-device vfio-pci,host=01:00.0",
        "-device vfio-pci,host=0000:01:00.0",
        "-device vfio-pci,sysfsdev=/sys/bus/pci/devices/0000:01:00.0",
        "-device vfio-pci,fd=3",
        // JSON that is none here; QEMU takes single quotes.
        "-netdev {'type':'tap','id':'n'}",
        "-device {'driver':'e1000'}",
        // guestfwd to another process.
        "-nic user,guestfwd=tcp:10.0.2.9:80-unix:/run/s",
    ] {
        let found = doors(line);
        assert_eq!(found.len(), 1, "{line}: {found:?}");
        assert!(line.ends_with(&found[0]), "{line}: {found:?}");
    }
}

#[test]
fn what_the_fence_holds_is_left_alone() {
    for line in [
        "",
        "-m 512 disk.img",
        "-nic none",
        "-net none",
        "-nic user",
        "-nic model=virtio-net-pci",
        "-net nic,model=e1000 -net user",
        "-netdev user,id=n,hostfwd=tcp::2222-:22,smb=/srv,tftp=/srv,bootfile=x",
        "-netdev user,id=n,guestfwd=tcp:10.0.2.100:80-cmd:netcat",
        "-netdev user,id=n,guestfwd=tcp:10.0.2.100:80-tcp:127.0.0.1:8080",
        "-nic user,id=tap,hostname=tap",
        r#"-netdev {"type":"user","id":"n"}"#,
        "-netdev passt,id=n",
        "-netdev hubport,id=n,hubid=0",
        "-netdev l2tpv3,id=n,src=192.0.2.1,dst=192.0.2.2,udp=on,txsession=1",
        "-netdev socket,id=n,listen=:1234",
        "-netdev socket,id=n,connect=192.0.2.1:1234",
        "-net socket,mcast=230.0.0.1:1234",
        "-netdev socket,id=n,udp=192.0.2.1:1,localaddr=:2",
        "-netdev stream,id=n,server=on,addr.type=inet,addr.host=h,addr.port=1",
        "-netdev dgram,id=n,remote.type=inet,remote.host=224.0.0.1,remote.port=1",
        "-netdev dgram,id=n,local.type=inet,local.host=h,local.port=1",
        r#"-netdev {"type":"stream","id":"n","addr":{"type":"inet","host":"h","port":"1"}}"#,
        "-device virtio-net-pci,netdev=n -device e1000",
        "-device vfio-pci,host=02:00.0",
        "-device vfio-pci,sysfsdev=/sys/bus/mdev/devices/x",
        "-device vhost-user-blk-pci,chardev=c -device vhost-user-fs-pci,chardev=d",
        "-device virtio-vga",
        // QEMU only says what there is.
        "-netdev help",
        "-nic ?",
        "-device vhost-vsock-pci,help",
        // Not networks of the guest.
        "-chardev socket,id=c,path=/run/s -serial chardev:c",
        "-monitor unix:/run/m,server=on,wait=off -qmp tcp::4444,server=on",
        "-incoming tcp:0:4444 -vnc :1",
        // Values, not options.
        "-name -netdev",
        "-append -nic",
        "-append tap",
        "-name tap -fw_cfg name=opt/x,string=tap",
        // QEMU does not take these.
        "-netdev=tap",
        "---netdev tap",
        "-netd tap",
    ] {
        assert_eq!(doors(line), [""; 0], "{line}");
    }
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
    let findings = inspected("kvm -netdev tap,id=n,ifname=\u{1b}[2J", &files());
    let refusal = findings.doors[0].refusal().to_string();
    assert_eq!(
        refusal,
        "the fence cannot hold -netdev tap,id=n,ifname=\\x1b[2J: the guest's frames go to the \
         host's kernel, which routes them where it likes; use -netdev user, or passt started in \
         this same fence, or give --allow-unfenced-net"
    );
}
