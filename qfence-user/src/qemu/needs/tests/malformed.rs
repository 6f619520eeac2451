use std::os::unix::ffi::OsStringExt as _;

use super::*;

/// The options whose values are read.
const OPTIONS: &str = "M accel acpitable audio audiodev blockdev boot display drive fsdev fw_cfg icount option-rom plugin \
    smbios spice tpmdev trace virtfs vnc D L bios cdrom debugcon dtb dump-vmstate fda fdb gdb hda hdb hdc hdd incoming \
    initrd kernel mem-path monitor mtdblock parallel pflash pidfile qmp qmp-pretty qtest qtest-log readconfig sd serial \
    shim virtioconsole writeconfig netdev nic net device chardev object s sdl snapshot nographic";

/// Values that nothing reads, or only in part.
const VALUES: &str = ": :: , ,, = == unix: tcp: udp: udp:@ tcp::@: file: pipe: fat: fat:: nbd: nbd:unix: json: json:{ \
    json:{} {} { [] {\"file\":{}} {\"filename\":1} {\"driver\":null} blkdebug: blkdebug:: blkverify:: \
    blkdebug::blkdebug::blkdebug::blkdebug::blkdebug::blkdebug::blkdebug::blkdebug::blkdebug::x user,hostfwd=- \
    user,hostfwd=: user,hostfwd=:-: user,hostfwd=tcp:- user,guestfwd=- user,guestfwd=:::-unix: socket,server=on,port=-1 \
    socket,server=on,port=99999 socket,server=on,port=65535,to=1 :65535 :-1 :1,to=99999 :1,websocket=: unix:,abstract=on \
    file=,data=: / . .. ../../../../.. ,path= local,path= gtk dbus pa,server={ pa,server={} path=.filename=x \
    .filename=x ..filename=x backing.=x backing.filename= .=. x.backing.backing.filename=y";

#[test]
fn nothing_panics_and_nothing_is_granted_outside_of_names() {
    for option in OPTIONS.split_whitespace() {
        for value in VALUES.split_whitespace().chain([""]) {
            for closures in [&Closure::ALL[..], &[]] {
                let words = [format!("kvm -{option} {value}"), format!("kvm -{option}")];
                for words in words {
                    let environment = [("DISPLAY", value), ("WAYLAND_DISPLAY", value)];
                    let needs = command(&words, &environment, closures).unwrap();
                    let grants = &needs.grants;
                    let mut paths = grants.read.iter().chain(&grants.write).chain(&grants.make);
                    assert!(paths.all(|path| path.is_absolute()), "{words}: {grants:?}");
                    let mut ports = grants.listen.iter();
                    assert!(ports.all(|port| 0 < port.first && port.first <= port.last));
                    for refused in needs.refused {
                        assert!(!refused.to_string().is_empty());
                    }
                }
            }
        }
    }
}

#[test]
fn a_path_that_is_not_utf8_grants_nothing() {
    let environment = BTreeMap::new();
    let setting = Setting {
        directory: Path::new("/vm"),
        environment: &environment,
        strict: &Strict::of(&[]),
        resolve: &|_| None,
        read: &|_| Err(io::ErrorKind::NotFound.into()),
        kind: &|_| Kind::Missing,
    };
    let words = [
        b"kvm".to_vec(),
        b"-nographic".to_vec(),
        b"-hda".to_vec(),
        b"\xff".to_vec(),
    ];
    let needs = of(&words.map(OsString::from_vec), &setting).unwrap();
    assert_eq!(line(&needs), "");
}

#[test]
fn names_within_names_end() {
    let mut name = "disk".to_owned();
    for _ in 0..7 {
        name = format!("blkdebug::{name}");
    }
    assert_eq!(line(&needs(&format!("-hda {name}"))), "write /vm/disk");
    assert_eq!(line(&needs(&format!("-hda blkdebug::{name}"))), "");
}
