//! Any words are the arguments of a QEMU, and any text the files that they name. What is found is bounded by what was
//! given, an error is printable, and a network that the fence does not see is found whatever stands around it.

#![no_main]

use std::{cell::Cell, ffi::OsString, io, os::unix::ffi::OsStringExt as _, path::Path};

use fuzz::assert_printable;
use libfuzzer_sys::fuzz_target;
use qfence_user::qemu::{Findings, configuration::gather, inspect};

/// What ends the words, and begins the text of the files.
const FILES: &[u8] = b"\n---\n";

/// Words that give the guest a network which the fence does not see. None has an id by which `-set` could change it.
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

/// A word that no option takes for its value and for the next option's, so that what follows is an option.
const GUARD: &str = "-S";

fn words(bytes: &[u8]) -> Vec<OsString> {
    let words = bytes.split(|byte| *byte == b'\n');
    words
        .map(|word| OsString::from_vec(word.to_vec()))
        .collect()
}

/// Looks at them; returns what was found, and how many files were read.
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
    // The default files, one for each -readconfig, and one for each device that is passed through.
    assert!(files <= 3 + arguments.len() * (1 + file.lines().count()) + 3 * file.lines().count());

    // What is made of a word is not much more than the word.
    let nothing = |_: &Path| Err(io::ErrorKind::NotFound.into());
    let (items, _) = gather(&arguments, &nothing);
    let made: usize = items.iter().map(|item| format!("{item:?}").len()).sum();
    assert!(
        made <= 1024 + 256 * given.len(),
        "{made} bytes out of {}",
        given.len()
    );

    // At any place among the others.
    let place = bytes.first().copied().map_or(0, usize::from);
    let network = NETWORKS[place % NETWORKS.len()];
    let place = place / NETWORKS.len() % (arguments.len() + 1);
    let mut with = arguments.clone();
    with.splice(
        place..place,
        [GUARD, network[0], network[1]].map(OsString::from),
    );
    assert_found(&look(&with, &file).0, &network);

    // In a file, of which a line that is not understood is as good as a network.
    let text = format!("{file}\n[nic]\n  type = \"tap\"\n[nic]\n{file}");
    let readconfig = ["-no-user-config", "-readconfig", "f"].map(OsString::from);
    let (findings, _) = look(&readconfig, &text);
    assert_found(&findings, &["-readconfig", "f"]);
});
