use std::io;

use super::*;
use crate::qemu::{Findings, inspect};

const CONF: &str =
    "[netdev \"n\"]\n type = \"tap\"\n ifname = \"t0\"\n script = \"no\"\n downscript = \"no\"\n";

fn inspected(line: &str) -> (Vec<OsString>, Findings) {
    let command: Vec<OsString> = line.split(' ').map(OsString::from).collect();
    let read = |path: &std::path::Path| match path.to_str() {
        Some("tap.conf") => Ok(CONF.to_owned()),
        _ => Err(io::ErrorKind::NotFound.into()),
    };
    let findings = inspect(&command, |_| None, read);
    (command, findings)
}

/// The only tap of a QEMU with these arguments, and the word that names it.
fn tap(arguments: &str) -> (Tap, OsString) {
    let (command, findings) = inspected(&format!("nice kvm {arguments}"));
    assert_eq!(findings.doors, [], "{arguments}");
    let [tap] = &findings.taps[..] else {
        panic!("{arguments}: {findings:?}");
    };
    (tap.clone(), command[tap.word].clone())
}

/// Why the network of a QEMU with these arguments is refused.
fn refusal(arguments: &str) -> String {
    let (_, findings) = inspected(&format!("kvm {arguments}"));
    assert_eq!(findings.taps, [], "{arguments}");
    let [door] = &findings.doors[..] else {
        panic!("{arguments}: {findings:?}");
    };
    door.refusal().to_string()
}

#[test]
fn a_tap_by_name_is_found_in_every_spelling() {
    for arguments in [
        "-netdev tap,id=n,ifname=t0,script=no,downscript=no",
        "-snapshot --netdev id=n,type=tap,script=no,downscript=no,ifname=t0",
        "-nic tap,ifname=t0,script=no,downscript=no",
        "-m 512 -net tap,ifname=t0,script=no,downscript=no -net nic",
        r#"-netdev {"type":"tap","id":"n","ifname":"t0","script":"no","downscript":"no"}"#,
        "-netdev tap,ifname=x,ifname=t0,script=/x,script=no,downscript=no",
    ] {
        let (tap, _) = tap(arguments);
        let found = (&*tap.name, tap.queues, tap.vnet_hdr, tap.vhost);
        assert_eq!(found, ("t0", 1, true, false), "{arguments}");
    }
    let more = "-netdev tap,id=n,ifname=t0,script=no,downscript=no,vhost=on,queues=4,vnet_hdr=off";
    let (tap, _) = tap(more);
    assert_eq!((tap.queues, tap.vnet_hdr, tap.vhost), (4, false, true));
}

#[test]
fn the_word_is_rewritten_and_nothing_else_in_it_changes() {
    for (word, descriptors, expected) in [
        (
            "tap,id=n,ifname=t0,script=no,downscript=no",
            &[17][..],
            "type=tap,id=n,fd=17",
        ),
        (
            "ifname=t0,script=no,vhost=on,queues=2,downscript=no,id=a,,b,type=tap,vnet_hdr=on,sndbuf=0",
            &[17, 20],
            "vhost=on,id=a,,b,type=tap,sndbuf=0,fds=17:20",
        ),
        (
            r#"{"type":"tap","id":"n","ifname":"t0","script":"no","downscript":"no","vhost":true}"#,
            &[9],
            r#"{"fd":"9","id":"n","type":"tap","vhost":true}"#,
        ),
    ] {
        let (tap, found) = tap(&format!("-netdev {word}"));
        assert_eq!(
            tap.rewrite(&found, descriptors).unwrap(),
            expected,
            "{word}"
        );
        // What QEMU gets is a network by descriptor for qfence too.
        assert!(refusal(&format!("-netdev {expected}")).contains("descriptor"));
    }
}

#[test]
fn what_qfence_cannot_open_is_refused_with_what_to_write() {
    let script = "script=no,downscript=no";
    for (arguments, why, instead) in [
        ("-netdev tap,id=n", "QEMU makes the device", "ip tuntap add"),
        ("-netdev tap,id=n", "QEMU makes the device", "--tap tap0"),
        (
            "-netdev tap,ifname=t0",
            "runs scripts",
            "script=no,downscript=no",
        ),
        (
            "-netdev tap,ifname=t0,script=no",
            "runs scripts",
            "downscript=no",
        ),
        (
            "-netdev tap,ifname=t0,downscript=no",
            "runs scripts",
            "script=no",
        ),
        (
            "-netdev tap,ifname=t0,script=no,downscript=/x",
            "runs scripts",
            "downscript=no",
        ),
        ("-netdev tap,fd=3", "behind a descriptor", "ifname=NAME"),
        ("-netdev tap,fds=3:4", "behind a descriptor", "ifname=NAME"),
        (
            "-nic tap,br=br0",
            "a helper program",
            "--tap tap0,bridge=BRIDGE",
        ),
        ("-netdev tap,helper=/x", "a helper program", "ip tuntap add"),
        (
            "-netdev bridge,br=br0",
            "the host's kernel",
            "--tap tap0,bridge=BRIDGE",
        ),
        (
            "-readconfig tap.conf",
            "a configuration file",
            "give the network by -netdev",
        ),
    ] {
        let refusal = refusal(arguments);
        assert!(
            refusal.contains(why) && refusal.contains(instead),
            "{arguments}: {refusal}"
        );
    }
    for (more, why) in [
        ("vhost=on,vhostfd=4", "a vhost descriptor"),
        ("queues=0", "number of queues"),
        ("queues=257", "number of queues"),
        ("queues=x", "number of queues"),
    ] {
        let refusal = refusal(&format!("-netdev tap,ifname=t0,{script},{more}"));
        assert!(refusal.contains(why), "{more}: {refusal}");
    }
    for name in ["", "a/b", "t%d", "..", "sixteen-letters-"] {
        let refusal = refusal(&format!("-netdev tap,ifname={name},{script}"));
        assert!(
            refusal.contains("no device can have this name"),
            "{refusal}"
        );
    }
    let changed = format!("-netdev tap,id=n,{script} -set netdev.n.ifname=t0");
    assert!(refusal(&changed).contains("-set changes"), "{changed}");
}

#[test]
fn the_addresses_of_the_cards_are_those_of_the_network() {
    let one = "52:54:00:00:00:01";
    for (arguments, macs, has_unknown) in [
        (
            "-netdev tap,id=n,T -device e1000,netdev=n,mac=52:54:00:00:00:01",
            1,
            false,
        ),
        (
            "-device e1000,netdev=n,mac=52:54:00:00:00:01 -netdev tap,id=n,T",
            1,
            false,
        ),
        (
            "-netdev tap,id=n,T -device e1000,netdev=m,mac=52:54:00:00:00:01",
            0,
            true,
        ),
        ("-netdev tap,id=n,T -device e1000,netdev=n", 0, true),
        ("-netdev tap,id=n,T -device e1000,netdev=n,mac=zz", 0, true),
        (
            "-netdev tap,id=n,T -net nic,netdev=n,macaddr=52:54:00:00:00:01",
            1,
            false,
        ),
        ("-nic tap,T,mac=52:54:00:00:00:01", 1, false),
        ("-nic tap,T", 0, true),
        ("-net tap,T -net nic,macaddr=52:54:00:00:00:01", 1, false),
        (
            "-net tap,T -net nic,macaddr=52:54:00:00:00:01 -net nic",
            1,
            true,
        ),
        (
            "-netdev tap,id=n,T -device e1000,netdev=n,id=d -set device.d.mac=52:54:00:00:00:01",
            1,
            false,
        ),
    ] {
        let line = arguments.replace(",T", ",ifname=t0,script=no,downscript=no");
        let (tap, _) = tap(&line);
        let found = (tap.macs.len(), tap.has_unknown_mac);
        assert_eq!(found, (macs, has_unknown), "{arguments}");
        assert!(tap.macs.iter().all(|mac| mac.to_string() == one));
    }
}
