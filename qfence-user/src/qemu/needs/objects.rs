//! Objects: memory, credentials, random numbers, filters.

use super::{
    collector::Collector,
    firmware::{memory, values},
    refused::{BUS, FAMILY, KEYS},
    servers::address,
};
use crate::qemu::configuration::Item;
use qfence_common::Protocol;

/// Collects what one option needs.
pub(super) fn collect(item: &Item, needs: &mut Collector<'_>) {
    let parameters = &item.parameters;
    let Some(kind) = parameters
        .get("qom-type")
        .filter(|_| item.group == "object")
    else {
        return;
    };
    match kind {
        "secret" | "igvm-cfg" => values(parameters, &["file"], needs, Collector::read),
        "tls-creds-anon" | "tls-creds-psk" | "tls-creds-x509" => {
            values(parameters, &["dir"], needs, Collector::read);
        }
        "authz-list-file" => values(parameters, &["filename"], needs, Collector::read),
        "rng-random" => values(parameters, &["filename"], needs, Collector::read),
        "memory-backend-file" => {
            let read_only = parameters.is_on("readonly") == Some(true);
            memory(
                parameters.get("mem-path").unwrap_or_default(),
                read_only,
                needs,
            );
        }
        "memory-backend-epc" => needs.write("/dev/sgx_vepc"),
        "input-linux" => values(parameters, &["evdev"], needs, Collector::write),
        "iommufd" if parameters.get("fd").is_none() => needs.write("/dev/iommu"),
        "pr-manager-helper" => values(parameters, &["path"], needs, Collector::connect),
        "filter-dump" => values(parameters, &["file"], needs, Collector::output),
        "vfio-user-server" => address(parameters, "socket", Protocol::TCP, true, needs),
        "tdx-guest" => {
            address(
                parameters,
                "quote-generation-socket",
                Protocol::TCP,
                false,
                needs,
            );
        }
        "sev-guest" | "sev-snp-guest" => {
            needs.write(parameters.get("sev-device").unwrap_or("/dev/sev"));
            let files = ["dh-cert-file", "session-file"];
            values(parameters, &files, needs, Collector::read);
        }
        "dbus-vmstate" => needs.refuse(&BUS),
        "can-host-socketcan" => needs.refuse(&FAMILY),
        "secret_keyring" | "cryptodev-backend-lkcf" => needs.refuse(&KEYS),
        _ => {}
    }
}
