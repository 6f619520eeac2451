//! Takes any words as the arguments of a QEMU, and any text as the files that they name. The size of the findings is
//! bounded by that of the input, errors are printable, and a network that the fence does not see is found among any other
//! arguments. What the QEMU needs is bounded too, and its paths are absolute.

#![no_main]

use std::{
    cell::Cell, collections::BTreeMap, ffi::OsString, io, os::unix::ffi::OsStringExt as _,
    path::Path,
};

use fuzz::assert_printable;
use libfuzzer_sys::fuzz_target;
use qfence_user::{
    confinement::{Closure, Strict},
    qemu::{
        Findings,
        configuration::gather,
        inspect,
        needs::{self, Kind, Setting},
    },
};

/// Separates the words from the text of the files.
const FILES: &[u8] = b"\n---\n";

/// Arguments for a network that the fence does not see. None has an id by which `-set` could change it.
const NETWORKS: [[&str; 2]; 8] = [
    ["-nic", "tap"],
    ["--nic", "bridge,br=br0"],
    ["-net", "tap,ifname=t"],
    ["-netdev", r#"{"type":"tap"}"#],
    ["-netdev", "vde,sock=/x"],
    ["-nic", "socket,fd=3"],
    ["-device", "vhost-vsock-pci,guest-cid=3"],
    ["-netdev", "stream,addr.type=unix,addr.path=/x"],
];

/// An option without a value. If the word before it takes it as a value, the next word is an option; otherwise it is an
/// option itself, and so is the next word.
const GUARD: &str = "-S";

fn words(bytes: &[u8]) -> Vec<OsString> {
    let words = bytes.split(|byte| *byte == b'\n');
    words
        .map(|word| OsString::from_vec(word.to_vec()))
        .collect()
}

/// Inspects the arguments; returns the findings, and the number of files that were read.
fn look(arguments: &[OsString], file: &str) -> (Findings, usize) {
    let read = Cell::new(0);
    let mut command = vec![OsString::from("qemu-system-x86_64")];
    command.extend_from_slice(arguments);
    let findings = inspect(
        &command,
        |_| None,
        |_: &Path| {
            read.set(read.get() + 1);
            Ok(file.to_owned())
        },
    );
    (findings, read.get())
}

/// Collects the needs of a QEMU with these arguments.
fn assert_needs(arguments: &[OsString], file: &str) {
    let mut command = vec![OsString::from("qemu-system-x86_64")];
    command.extend_from_slice(arguments);
    let environment = arguments
        .iter()
        .zip(["DISPLAY", "WAYLAND_DISPLAY", "PULSE_SERVER"]);
    let environment: BTreeMap<_, _> = environment
        .map(|(value, name)| (OsString::from(name), value.clone()))
        .collect();
    let setting = Setting {
        directory: Path::new("/vm"),
        environment: &environment,
        strict: &Strict::of(&Closure::ALL),
        resolve: &|_| None,
        read: &|_| Ok(file.to_owned()),
        kind: &|path| match path.as_os_str().len() % 3 {
            0 => Kind::Missing,
            1 => Kind::Directory,
            _ => Kind::File,
        },
    };
    let needs = needs::of(&command, &setting);
    assert!(needs.is_some(), "it is a QEMU");
    let needs = needs.unwrap_or_default();
    let grants = needs.grants;
    let paths = grants.read.iter().chain(&grants.write).chain(&grants.make);
    let mut count = 0;
    for path in paths {
        assert!(path.is_absolute(), "{path:?}");
        count += 1;
    }
    for listener in &grants.listen {
        assert!(
            0 < listener.first && listener.first <= listener.last,
            "{listener:?}"
        );
    }
    for refused in &needs.refused {
        assert_printable(&refused.to_string());
    }
    let given: usize = arguments.iter().map(|word| word.len()).sum();
    let sections = 4 * file.len() * (3 + arguments.len());
    assert!(
        count <= 64 + 4 * given + sections,
        "{count} paths out of {given} bytes"
    );
}

fn assert_found(findings: &Findings, words: &[&str]) {
    let written = words.join(" ");
    let is_it = |text: String| {
        assert_printable(&text);
        text.contains(&written)
    };
    let mut doors = findings.doors.iter();
    assert!(
        doors.any(|door| is_it(door.refusal().to_string())),
        "{written} in {findings:?}"
    );
}

fuzz_target!(|bytes: &[u8]| {
    let at = bytes
        .windows(FILES.len())
        .position(|window| window == FILES);
    let (given, file) = match at {
        Some(at) => (&bytes[..at], &bytes[at + FILES.len()..]),
        None => (bytes, &[][..]),
    };
    let file = String::from_utf8_lossy(file);
    let arguments = words(given);

    let (findings, files) = look(&arguments, &file);
    for door in &findings.doors {
        assert_printable(&door.refusal().to_string());
        assert_printable(&door.warning().to_string());
    }
    for forward in &findings.forwards {
        assert_printable(&forward.argument);
    }
    // At most the default files, one file for each -readconfig, and one for each device that is passed through.
    assert!(files <= 3 + arguments.len() * (1 + file.lines().count()) + 3 * file.lines().count());

    // The items made from the words are not much larger than the words.
    let nothing = |_: &Path| Err(io::ErrorKind::NotFound.into());
    let (items, _) = gather(&arguments, &nothing);
    let made: usize = items.iter().map(|item| format!("{item:?}").len()).sum();
    assert!(
        made <= 1024 + 256 * given.len(),
        "{made} bytes out of {}",
        given.len()
    );

    assert_needs(&arguments, &file);

    // A network is found at any place among the other arguments.
    let place = bytes.first().copied().map_or(0, usize::from);
    let network = NETWORKS[place % NETWORKS.len()];
    let place = place / NETWORKS.len() % (arguments.len() + 1);
    let mut with = arguments.clone();
    with.splice(
        place..place,
        [GUARD, network[0], network[1]].map(OsString::from),
    );
    assert_found(&look(&with, &file).0, &network);

    // A network is found in a file. A line that is not understood counts as a network.
    let text = format!("{file}\n[nic]\n  type = \"tap\"\n[nic]\n{file}");
    let readconfig = ["-no-user-config", "-readconfig", "f"].map(OsString::from);
    let (findings, _) = look(&readconfig, &text);
    assert_found(&findings, &["-readconfig", "f"]);
});
