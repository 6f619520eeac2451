//! Directories that QEMU shares with its guest.

use super::{collector::Collector, firmware::values};
use crate::qemu::configuration::Item;

/// Collects what one option needs. A virtiofsd is another process: QEMU connects to the socket of its `-chardev`.
pub(super) fn collect(item: &Item, needs: &mut Collector<'_>) {
    let parameters = &item.parameters;
    match (item.group.as_str(), parameters.get("fsdriver")) {
        ("virtfs" | "fsdev", Some("local")) => {
            let read_only = parameters.is_on("readonly") == Some(true);
            needs.needs.changes_attributes |= !read_only;
            needs.file(parameters.get("path").unwrap_or_default(), read_only);
        }
        ("virtfs" | "fsdev", Some("proxy")) => {
            values(parameters, &["socket"], needs, Collector::connect);
        }
        ("device", _) if parameters.get("driver") == Some("usb-mtp") => {
            // It is read-only unless it is made writable.
            let read_only = parameters.is_on("readonly") != Some(false);
            needs.file(parameters.get("rootdir").unwrap_or_default(), read_only);
        }
        _ => {}
    }
}
