//! Finds the QEMU among the words of a command.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

/// The maximum number of words that are looked up as executables: enough for `nice -n 5 taskset -c 1 …`.
const LOOKED_UP: usize = 16;

/// The kind of executable that a word names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emulator {
    /// A QEMU that emulates a machine.
    Qemu,
    /// passt's wrapper, which connects a QEMU to a passt that is already running.
    Qrap,
}

/// Finds the first word that names a QEMU, and returns the words after it. The words before it are a wrapper, such as
/// `env`, `nice`, `taskset`, `strace` or `gdb --args`.
///
/// `resolve` returns the file that a word names, by `$PATH` and symbolic links.
pub fn find(
    command: &[OsString],
    resolve: impl Fn(&OsStr) -> Option<PathBuf>,
) -> Option<(Emulator, &[OsString])> {
    command.iter().enumerate().find_map(|(index, word)| {
        let by_link = || {
            let path = (index < LOOKED_UP).then(|| resolve(word)).flatten()?;
            recognize(&path)
        };
        let emulator = recognize(Path::new(word)).or_else(by_link)?;
        Some((emulator, &command[index + 1..]))
    })
}

/// Recognizes a QEMU by the name of its file. Some distributions add a suffix (`kvm-spice`); others use a wrapper, and
/// put a dot before the name.
#[must_use]
pub fn recognize(path: &Path) -> Option<Emulator> {
    let name = path.file_name()?.to_str()?;
    let name = name.strip_prefix('.').unwrap_or(name);
    let is_qemu = matches!(name, "qemu" | "kvm" | "kvm-spice")
        || name.starts_with("qemu-system-")
        || name.starts_with("qemu-kvm");
    match name {
        "qrap" => Some(Emulator::Qrap),
        _ => is_qemu.then_some(Emulator::Qemu),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches a command in which `vm` is a link to a QEMU. Returns the number of remaining words.
    fn found(line: &str) -> Option<(Emulator, usize)> {
        let command: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let link = |word: &OsStr| (word == "vm").then(|| "/usr/bin/qemu-system-x86_64".into());
        find(&command, link).map(|(emulator, rest)| (emulator, rest.len()))
    }

    #[test]
    fn a_qemu_is_known_by_its_name_behind_whatever_wraps_it() {
        for (line, rest) in [
            ("qemu-system-x86_64 -m 512", 2),
            ("/opt/q/bin/qemu-system-aarch64", 0),
            ("/usr/libexec/qemu-kvm -m 512", 2),
            ("kvm -m 512", 2),
            ("kvm-spice", 0),
            ("qemu x", 1),
            ("/nix/store/x/bin/.qemu-system-x86_64-wrapped -S", 1),
            ("env A=b qemu-system-x86_64 -S", 1),
            (
                "nice -n 5 ionice -c 2 taskset -c 1 qemu-system-x86_64 -S",
                1,
            ),
            ("strace -f -o log qemu-system-x86_64 -S", 1),
            ("vm -S", 1),
            ("nice vm -S", 1),
        ] {
            assert_eq!(found(line), Some((Emulator::Qemu, rest)), "{line}");
        }
        assert_eq!(found("qrap 5 kvm -S"), Some((Emulator::Qrap, 3)));
    }

    #[test]
    fn other_programs_are_not() {
        for line in [
            "qemu-img create x",
            "qemu-x86_64 ./program -netdev tap",
            "qemu-storage-daemon --help",
            "sh run-qemu.sh",
            "ls -l",
        ] {
            assert_eq!(found(line), None, "{line}");
        }
    }
}
