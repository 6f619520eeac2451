//! Networks: the ports and sockets that QEMU binds for them.

use qfence_common::Protocol;

use super::{
    collector::Collector,
    firmware::values,
    refused::{FAMILY, PASST, SMB},
    servers::{address, after_host, legacy},
};
use crate::qemu::{configuration::Item, guestfwd, parameters::Parameters};

/// Collects what one option needs.
pub(super) fn collect(item: &Item, needs: &mut Collector<'_>) {
    if !matches!(item.group.as_str(), "netdev" | "nic" | "net") {
        return;
    }
    let parameters = &item.parameters;
    let unsaid = if item.group == "nic" { "user" } else { "" };
    match parameters.get("type").unwrap_or(unsaid) {
        "user" => user(parameters, needs),
        "passt" => needs.refuse(&PASST),
        "socket" => socket(parameters, needs),
        "stream" => {
            let is_server = parameters.is_on("server") == Some(true);
            address(parameters, "addr", Protocol::TCP, is_server, needs);
        }
        "dgram" => {
            address(parameters, "local", Protocol::UDP, true, needs);
            address(parameters, "remote", Protocol::UDP, false, needs);
            // A multicast group has one address, which QEMU binds.
            if parameters.get("local.type").is_none() {
                let port = parameters.get("remote.port").unwrap_or_default();
                needs.listen(Protocol::UDP, port);
            }
        }
        "l2tpv3" if parameters.is_on("udp") == Some(true) => {
            values(parameters, &["srcport"], needs, |needs, port| {
                needs.listen(Protocol::UDP, port);
            });
        }
        "tap" => {
            // qfence gives it a descriptor if it has the device fenced.
            if parameters.get("fd").is_none() && parameters.get("fds").is_none() {
                needs.write("/dev/net/tun");
            }
            if parameters.is_on("vhost") == Some(true) {
                needs.write("/dev/vhost-net");
            }
        }
        "vhost-vdpa" => values(parameters, &["vhostdev"], needs, Collector::write),
        "af-xdp" => needs.refuse(&FAMILY),
        "dump" => needs.output(parameters.get("file").unwrap_or("qemu-vlan0.pcap")),
        _ => {}
    }
}

fn user(parameters: &Parameters, needs: &mut Collector<'_>) {
    for forward in parameters.all("hostfwd") {
        host_forward(forward, needs);
    }
    for forward in parameters.all("guestfwd") {
        // A command (`cmd:`) is no device.
        if let Some(target) = guestfwd::target(forward) {
            legacy(target, needs);
        }
    }
    values(parameters, &["tftp"], needs, Collector::read);
    if parameters.get("smb").is_some() {
        needs.refuse(&SMB);
    }
}

/// `[tcp|udp]:[address]:port-[guest]:port`, or `unix:path-[guest]:port` (`slirp_hostfwd` of QEMU's net/slirp.c).
fn host_forward(text: &str, needs: &mut Collector<'_>) {
    let Some((protocol, rest)) = text.split_once(':') else {
        return;
    };
    let Some((host, _guest)) = rest.rsplit_once('-') else {
        return;
    };
    match protocol {
        "unix" => needs.make_beside(host),
        "udp" => needs.listen(Protocol::UDP, after_host(host)),
        "tcp" | "" => needs.listen(Protocol::TCP, after_host(host)),
        _ => {}
    }
}

fn socket(parameters: &Parameters, needs: &mut Collector<'_>) {
    let port = |key: &str| after_host(parameters.get(key).unwrap_or_default());
    needs.listen(Protocol::TCP, port("listen"));
    // The group's own port.
    needs.listen(Protocol::UDP, port("mcast"));
    if parameters.get("udp").is_some() {
        needs.listen(Protocol::UDP, port("localaddr"));
    }
}
