//! The words of a command line, as options and their values.

use std::ffi::{OsStr, OsString};

/// The options that take the next word as their value, whatever that looks like. From
/// qemu-options.hx of QEMU 8.1, and of older and newer ones.
pub const WITH_VALUE: &str = "\
    D L M accel acpitable action add-fd append audio audiodev balloon bios blockdev boot bootp \
    bt cdrom chardev chroot clock compat cpu d debugcon device dfilter display drive dtb \
    dump-vmstate echr fda fdb fsdev fw_cfg g gdb global hda hdachs hdb hdc hdd icount incoming \
    initrd iscsi k kernel loadvm m machine mem-path mon monitor msg mtdblock name net netdev \
    nic numa object option-rom overcommit parallel pflash pidfile plugin prom-env qmp \
    qmp-pretty qtest qtest-log readconfig realtime redir rotate rtc run-with runas sandbox sd \
    seed semihosting-config serial set shim smb smbios smp soundhw spice startdate tb-size \
    tftp tpmdev trace usbdevice uuid vga virtfs virtioconsole vnc watchdog watchdog-action \
    writeconfig xen-domid";

/// One option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Given<'a> {
    /// The word as it was written: `-netdev`, or `--netdev`, which is the same.
    pub word: &'a OsStr,
    /// Its value.
    pub value: Option<&'a OsStr>,
}

impl Given<'_> {
    /// Its name, without hyphens; empty if it is none of QEMU's.
    #[must_use]
    pub fn name(&self) -> &str {
        name(self.word).unwrap_or_default()
    }
}

/// Takes the words after the program's name apart, as QEMU does: it knows no abbreviations, no
/// `-name=value`, and no end of options. Words that are not options name disk images.
///
/// An option that is not in [`WITH_VALUE`] is taken to have no value that looks like an option:
/// then a new flag of QEMU's cannot hide what follows it.
#[must_use]
pub fn options(words: &[OsString]) -> Vec<Given<'_>> {
    let mut given = Vec::new();
    let mut words = words.iter().peekable();
    while let Some(word) = words.next() {
        let Some(name) = name(word) else {
            continue;
        };
        let takes_any = WITH_VALUE.split(' ').any(|option| option == name);
        let value = words.next_if(|next| takes_any || !next.as_encoded_bytes().starts_with(b"-"));
        given.push(Given {
            word,
            value: value.map(OsString::as_os_str),
        });
    }
    given
}

/// The name of an option; `None` if the word is none. A name that is not UTF-8 is not QEMU's.
fn name(word: &OsStr) -> Option<&str> {
    let name = word.as_encoded_bytes().strip_prefix(b"-")?;
    let name = name.strip_prefix(b"-").unwrap_or(name);
    Some(str::from_utf8(name).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_not_mistaken_for_options() {
        for (line, read) in [
            ("-m 512 -netdev tap", &[("m", "512"), ("netdev", "tap")][..]),
            ("--netdev tap", &[("netdev", "tap")]),
            (
                "-snapshot -netdev tap",
                &[("snapshot", ""), ("netdev", "tap")],
            ),
            ("disk.img -netdev tap", &[("netdev", "tap")]),
            ("-name -netdev tap", &[("name", "-netdev")]),
            (
                "-append -net -nic tap",
                &[("append", "-net"), ("nic", "tap")],
            ),
            (
                "-future x -netdev tap",
                &[("future", "x"), ("netdev", "tap")],
            ),
            ("-future -netdev tap", &[("future", ""), ("netdev", "tap")]),
            ("-netdev=tap", &[("netdev=tap", "")]),
            ("-- -nic tap", &[("", ""), ("nic", "tap")]),
            ("-netdev", &[("netdev", "")]),
        ] {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let text =
                |value: Option<&OsStr>| value.map(|value| value.to_str().unwrap().to_owned());
            let options = options(&words);
            let options: Vec<_> = options
                .iter()
                .map(|option| (option.name(), text(option.value).unwrap_or_default()))
                .collect();
            let read: Vec<_> = read
                .iter()
                .map(|(name, value)| (*name, (*value).to_owned()))
                .collect();
            assert_eq!(options, read, "{line}");
        }
    }
}
