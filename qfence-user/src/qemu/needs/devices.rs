//! Devices of the host that a guest gets.

use super::{
    collector::Collector,
    display::CARDS,
    firmware::{named, values},
    refused::UEVENTS,
};
use crate::qemu::{configuration::Item, parameters::Parameters};

/// Collects what one option needs.
pub(super) fn collect(item: &Item, needs: &mut Collector<'_>) {
    match item.group.as_str() {
        "device" => device(&item.parameters, needs),
        "tpmdev" if item.parameters.get("type") == Some("passthrough") => {
            needs.write(item.parameters.get("path").unwrap_or("/dev/tpm0"));
            values(&item.parameters, &["cancel-path"], needs, Collector::write);
        }
        _ => {}
    }
}

fn device(parameters: &Parameters, needs: &mut Collector<'_>) {
    values(parameters, &["romfile"], needs, named);
    if parameters.is_on("blob") == Some(true) {
        needs.write("/dev/udmabuf");
    }
    let driver = parameters.get("driver").unwrap_or_default();
    if driver.ends_with("-gl") || driver.contains("-gl-") || driver.contains("rutabaga") {
        needs.write_if_present(CARDS.as_ref());
    }
    let begins = |prefix: &str| driver.starts_with(prefix);
    match driver {
        "usb-host" => {
            needs.refuse(&UEVENTS);
            needs.write("/dev/bus/usb");
            values(parameters, &["hostdevice"], needs, Collector::write);
        }
        "loader" => values(parameters, &["file"], needs, named),
        "guest-loader" => values(parameters, &["kernel", "initrd"], needs, Collector::read),
        "u2f-passthru" => values(parameters, &["hidraw"], needs, Collector::write),
        "u2f-emulated" => {
            let files = ["dir", "cert", "privkey", "counter", "entropy"];
            values(parameters, &files, needs, Collector::read);
        }
        "canokey" => values(parameters, &["file"], needs, Collector::output),
        "vfio-user-pci" => {
            values(
                parameters,
                &["socket", "socket.path"],
                needs,
                Collector::connect,
            );
        }
        _ if begins("vfio-") => {
            needs.write("/dev/vfio");
            if parameters.get("iommufd").is_some() {
                needs.write("/dev/iommu");
            }
        }
        _ if begins("virtio-input-host") => {
            values(parameters, &["evdev"], needs, Collector::write);
        }
        _ if begins("vhost-vsock") => needs.write("/dev/vhost-vsock"),
        _ if begins("vhost-scsi") => needs.write("/dev/vhost-scsi"),
        _ if begins("vhost-vdpa-device") => {
            values(parameters, &["vhostdev"], needs, Collector::write);
        }
        _ => {}
    }
}
