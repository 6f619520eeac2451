//! Splits the words of a QEMU command line into options and values.

use std::ffi::{OsStr, OsString};

/// The options that always take the next word as their value. From qemu-options.hx of QEMU 8.1, and of older and newer
/// versions.
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
    /// The word as written: `-netdev`, or the equivalent `--netdev`.
    pub word: &'a OsStr,
    /// Its value.
    pub value: Option<&'a OsStr>,
}

impl Given<'_> {
    /// Its name, without hyphens. Empty if QEMU has no such option.
    #[must_use]
    pub fn name(&self) -> &str {
        name(self.word).unwrap_or_default()
    }
}

/// Splits the words after the executable's name, as QEMU does: without abbreviations, `-name=value`, or an end of
/// options. Other words name disk images.
///
/// For an option that is not in [`WITH_VALUE`], a next word that looks like an option is not its value. So a new flag
/// of QEMU cannot hide the option after it.
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

/// The name of an option; `None` if the word is not an option. QEMU has no names that are not UTF-8.
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
