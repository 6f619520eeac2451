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

/// The options that never take a value, in the same versions: the word after one of them is a disk image if it is not an
/// option.
const WITHOUT_VALUE: &str = "\
    S alt-grab async-teardown audio-help ctrl-grab curses daemonize enable-hax enable-kvm \
    enable-sync-profile full-screen h help jitdump mem-prealloc no-acpi no-fd-bootchk no-frame \
    no-hpet no-kvm no-quit no-reboot no-shutdown no-user-config nodefaults nodefconfig nographic \
    old-param one-insn-per-tb only-migratable perfmap portrait preconfig s sdl semihosting \
    singlestep snapshot usb version virtfs_synth win2k-hack xen-attach xen-domid-restrict";

/// A part of a command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// An option.
    Option(Given<'a>),
    /// The file of a disk: any word that is neither an option nor a value.
    Image(&'a OsStr),
}

/// One option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Given<'a> {
    /// The word as written: `-netdev`, or the equivalent `--netdev`.
    pub word: &'a OsStr,
    /// Its value.
    pub value: Option<&'a OsStr>,
    /// The position of the value among the words.
    pub position: usize,
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
/// For an option in neither list, a next word that looks like an option is not its value. So a new flag of QEMU cannot
/// hide the option after it. A next word that does not look like an option is its value, not an image.
#[must_use]
pub fn split(words: &[OsString]) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut words = words.iter().enumerate().peekable();
    while let Some((index, word)) = words.next() {
        let Some(name) = name(word) else {
            parts.push(Part::Image(word));
            continue;
        };
        let is_in = |list: &str| list.split(' ').any(|option| option == name);
        let (takes_any, takes_none) = (is_in(WITH_VALUE), is_in(WITHOUT_VALUE));
        let value = words.next_if(|(_, next)| {
            takes_any || (!takes_none && !next.as_encoded_bytes().starts_with(b"-"))
        });
        parts.push(Part::Option(Given {
            word,
            value: value.map(|(_, value)| value.as_os_str()),
            position: index + 1,
        }));
    }
    parts
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
            let parts = split(&words);
            let options: Vec<_> = parts
                .iter()
                .filter_map(|part| match part {
                    Part::Option(option) => Some(option),
                    Part::Image(_) => None,
                })
                .map(|option| (option.name(), text(option.value).unwrap_or_default()))
                .collect();
            let read: Vec<_> = read
                .iter()
                .map(|(name, value)| (*name, (*value).to_owned()))
                .collect();
            assert_eq!(options, read, "{line}");
        }
    }

    #[test]
    fn other_words_are_images() {
        for (line, images) in [
            ("disk.img -m 512", &["disk.img"][..]),
            ("-enable-kvm disk.img", &["disk.img"]),
            ("-snapshot a --nographic b", &["a", "b"]),
            ("-m 512 -hda x", &[]),
            // Its value or an image: not known.
            ("-future disk.img", &[]),
        ] {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let found: Vec<_> = split(&words)
                .into_iter()
                .filter_map(|part| match part {
                    Part::Option(_) => None,
                    Part::Image(word) => Some(word.to_owned()),
                })
                .collect();
            assert_eq!(found, images, "{line}");
        }
    }
}
