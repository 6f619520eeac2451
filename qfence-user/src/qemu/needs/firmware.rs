//! Firmware, kernels, tables, and other files that QEMU reads or writes.

use super::{Kind, collector::Collector};
use crate::qemu::{configuration::Item, parameters::Parameters};

/// Collects what one option needs.
pub(super) fn collect(item: &Item, needs: &mut Collector<'_>) {
    let parameters = &item.parameters;
    let text = item.text().unwrap_or_default();
    match item.group.as_str() {
        "kernel" | "dtb" | "shim" | "L" | "readconfig" => needs.read(text),
        "bios" => named(needs, text),
        "initrd" => initrd(needs, text),
        "machine" => machine(parameters, needs),
        "accel" => values(parameters, &["device"], needs, Collector::write),
        "option-rom" => values(parameters, &["romfile"], needs, named),
        "boot" => values(parameters, &["splash"], needs, named),
        "fw_cfg" => values(parameters, &["file"], needs, Collector::read),
        "smbios" => {
            values(parameters, &["file"], needs, Collector::read);
            // OEM strings can be repeated.
            for path in parameters.all("path") {
                needs.read(path);
            }
        }
        // sig=…,data=file1[:file2]…
        "acpitable" => {
            for key in ["file", "data"] {
                let files = parameters.get(key).unwrap_or_default();
                for file in files.split(':') {
                    needs.read(file);
                }
            }
        }
        "plugin" => values(parameters, &["file"], needs, Collector::read),
        "trace" => {
            values(parameters, &["events"], needs, Collector::read);
            values(parameters, &["file"], needs, Collector::output);
        }
        "icount" => {
            let collect = match parameters.get("rr") {
                Some("record") => Collector::output,
                _ => Collector::read,
            };
            values(parameters, &["rrfile"], needs, collect);
        }
        // QEMU locks the file, and removes it when it ends.
        "pidfile" => {
            needs.output(text);
            needs.make_beside(text);
        }
        // %d stands for the process or the thread.
        "D" if text.contains("%d") => needs.make_beside(text),
        "D" | "dump-vmstate" | "writeconfig" | "qtest-log" => needs.output(text),
        "mem-path" => memory(text, false, needs),
        _ => {}
    }
}

/// Files for memory: a directory in which QEMU makes a file without a name, or a file, which it makes if there is none.
pub(super) fn memory(path: &str, read_only: bool, needs: &mut Collector<'_>) {
    match needs.kind(path) {
        // A file that is made in it is removed at once.
        Kind::Directory => needs.write(path),
        Kind::File | Kind::Missing if read_only => needs.read(path),
        Kind::File | Kind::Missing => needs.output(path),
    }
}

fn machine(parameters: &Parameters, needs: &mut Collector<'_>) {
    values(
        parameters,
        &["kernel", "dtb", "shim"],
        needs,
        Collector::read,
    );
    values(parameters, &["initrd"], needs, initrd);
    values(parameters, &["firmware"], needs, named);
    values(parameters, &["dumpdtb"], needs, Collector::output);
}

/// A file, or a name that QEMU looks up in its own directories (`qemu_find_file`).
pub(super) fn named(needs: &mut Collector<'_>, name: &str) {
    if name.contains('/') || needs.kind(name) == Kind::File {
        needs.read(name);
    }
}

/// A file; or the modules of a multiboot kernel, `file arguments,file`.
fn initrd(needs: &mut Collector<'_>, text: &str) {
    needs.read(text);
    if needs.kind(text) != Kind::Missing || !text.contains([',', ' ']) {
        return;
    }
    // `,,` is a comma within a module.
    for module in text.replace(",,", "\0").split(',') {
        let module = module.replace('\0', ",");
        needs.read(module.trim_start().split(' ').next().unwrap_or_default());
    }
}

/// Collects the values of keys.
pub(super) fn values<'a>(
    parameters: &Parameters,
    keys: &[&str],
    needs: &mut Collector<'a>,
    collect: impl Fn(&mut Collector<'a>, &str),
) {
    for key in keys {
        if let Some(value) = parameters.get(key) {
            collect(needs, value);
        }
    }
}
