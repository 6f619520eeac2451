//! The options of QEMU whose values qfence reads, and the syntax of each.

/// How QEMU reads the value of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// `key=value,…` or JSON, with the implied first key. The option may give the guest a network, so a value that
    /// qfence cannot read is a side door.
    Network(&'static str),
    /// `key=value,…` or JSON, with the implied first key; empty if there is none.
    Keys(&'static str),
    /// One text: a file, an address, or a character device in the legacy syntax.
    Text,
    /// No value.
    Flag,
}

/// The option groups with keys that are no networks, each with its implied key (`implied_opt_name` of its `QemuOptsList`).
const KEYS: [(&str, &str); 20] = [
    ("accel", "accel"),
    ("acpitable", ""),
    ("audio", "driver"),
    ("audiodev", "driver"),
    ("blockdev", "driver"),
    ("boot", "order"),
    ("display", "type"),
    ("drive", ""),
    ("fsdev", "fsdriver"),
    ("fw_cfg", "name"),
    ("icount", "shift"),
    ("machine", "type"),
    ("option-rom", "romfile"),
    ("plugin", "file"),
    ("smbios", ""),
    ("spice", ""),
    ("tpmdev", "type"),
    ("trace", "enable"),
    ("virtfs", "fsdriver"),
    ("vnc", "vnc"),
];

/// The options with one text.
const TEXTS: &str = "\
    D L bios cdrom debugcon dtb dump-vmstate fda fdb gdb hda hdb hdc hdd incoming initrd kernel mem-path monitor mtdblock \
    parallel pflash pidfile qmp qmp-pretty qtest qtest-log readconfig sd serial shim virtioconsole writeconfig";

/// The options without a value that matter.
const FLAGS: [&str; 5] = ["curses", "nographic", "s", "sdl", "snapshot"];

/// The group and the syntax of an option; `None` if its value is not read.
#[must_use]
pub fn of(option: &str) -> Option<(&'static str, Syntax)> {
    let network = match option {
        "netdev" => ("netdev", "type"),
        "nic" => ("nic", "type"),
        "net" => ("net", "type"),
        "device" => ("device", "driver"),
        "chardev" => ("chardev", "backend"),
        "object" => ("object", "qom-type"),
        _ => ("", ""),
    };
    if !network.0.is_empty() {
        return Some((network.0, Syntax::Network(network.1)));
    }
    let option = if option == "M" { "machine" } else { option };
    if let Some((group, implied)) = KEYS.iter().find(|(group, _)| *group == option) {
        return Some((group, Syntax::Keys(implied)));
    }
    if let Some(group) = TEXTS.split(' ').find(|group| *group == option) {
        return Some((group, Syntax::Text));
    }
    let flag = FLAGS.iter().find(|flag| **flag == option)?;
    Some((flag, Syntax::Flag))
}

#[cfg(test)]
mod tests {
    use super::{super::options, *};

    #[test]
    fn the_options_with_a_value_take_the_next_word() {
        let with_value = |name: &str| options::WITH_VALUE.split(' ').any(|option| option == name);
        let texts = TEXTS.split(' ');
        for option in texts.chain(KEYS.iter().map(|(group, _)| *group)) {
            assert!(with_value(option), "{option}");
        }
        for flag in FLAGS {
            assert!(!with_value(flag), "{flag}");
        }
    }

    #[test]
    fn an_option_has_one_syntax() {
        assert_eq!(of("netdev"), Some(("netdev", Syntax::Network("type"))));
        assert_eq!(of("M"), Some(("machine", Syntax::Keys("type"))));
        assert_eq!(of("hda"), Some(("hda", Syntax::Text)));
        assert_eq!(of("s"), Some(("s", Syntax::Flag)));
        assert_eq!(of("append"), None);
        assert_eq!(of(""), None);
    }
}
