//! The servers that a QEMU connects to by itself, as its options name them: for character devices, networks, disks, and
//! displays, sound servers.

use std::net::{IpAddr, Ipv4Addr};

use qfence_common::Protocol;

use super::{chardev, configuration::Item, parameters::Parameters};

/// A server that QEMU connects to or sends to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// The argument as the user wrote it.
    pub argument: String,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The server's address.
    pub address: IpAddr,
    /// The server's port.
    pub port: u16,
}

/// The network protocols of disks, and their default ports.
const DISKS: [(&str, u16); 10] = [
    ("nbd", 10809),
    ("nbds", 10809),
    ("http", 80),
    ("https", 443),
    ("ftp", 21),
    ("ftps", 990),
    ("ssh", 22),
    ("iscsi", 3260),
    ("nfs", 2049),
    ("gluster", 24007),
];

/// The options of disks whose value is the name of an image.
const IMAGES: [&str; 13] = [
    "hda", "hdb", "hdc", "hdd", "fda", "fdb", "pflash", "mtdblock", "sd", "cdrom", "kernel",
    "initrd", "bios",
];

/// The default port of PulseAudio.
const PULSE: u16 = 4713;

/// An address and a port as text.
type Endpoint<'a> = (Protocol, &'a str, &'a str);

/// The servers of one option whose addresses are known without a resolver.
#[must_use]
pub fn of(item: &Item) -> Vec<Client> {
    let mut found = Vec::new();
    collect(item, &mut |(protocol, host, port)| {
        if let (Some(address), Ok(port)) = (address(host), port.parse())
            && port != 0
        {
            found.push(Client {
                argument: item.argument.clone(),
                protocol,
                address,
                port,
            });
        }
    });
    found.dedup();
    found
}

fn collect(item: &Item, add: &mut dyn FnMut(Endpoint<'_>)) {
    let parameters = &item.parameters;
    let get = |key: &str| parameters.get(key).unwrap_or_default();
    let text = item.text().unwrap_or_default();
    match item.group.as_str() {
        "chardev" => device(parameters, add),
        "monitor" | "qmp" | "qmp-pretty" | "serial" | "parallel" | "debugcon" | "virtioconsole"
        | "qtest" => {
            if let Some(parameters) = chardev::parameters(text) {
                device(&parameters, add);
            }
        }
        "netdev" | "nic" | "net" => network(parameters, add),
        "drive" => {
            image(get("file"), add);
            nodes(parameters, add);
        }
        "blockdev" => nodes(parameters, add),
        "vnc" | "display" if parameters.is_on("reverse") == Some(true) => {
            // The number is a port here, and not a display.
            if let Some((host, port)) = get("vnc").rsplit_once(':') {
                add((Protocol::TCP, of_family(host, parameters, ""), port));
            }
        }
        "audiodev" | "audio" if get("driver") == "pa" => pulse(get("server"), add),
        "object" if get("qom-type") == "input-barrier" => {
            let host = parameters.get("server").unwrap_or("localhost");
            let port = parameters.get("port").unwrap_or("24800");
            add((Protocol::TCP, host, port));
        }
        group if IMAGES.contains(&group) => image(text, add),
        _ => {}
    }
}

/// A character device. A server waits for its peer, and does not connect.
fn device(parameters: &Parameters, add: &mut dyn FnMut(Endpoint<'_>)) {
    let get = |key: &str| parameters.get(key).unwrap_or_default();
    let is_server = parameters.is_on("server") == Some(true);
    let has_other = parameters.get("path").or(parameters.get("fd")).is_some();
    let host = of_family(get("host"), parameters, "");
    match get("backend") {
        "socket" if !is_server && !has_other => add((Protocol::TCP, host, get("port"))),
        "udp" => add((Protocol::UDP, host, get("port"))),
        _ => {}
    }
}

/// The host of which only the addresses of one family are used, as `ipv4` and `ipv6` beside it demand
/// (`inet_ai_family_from_address` of QEMU's util/qemu-sockets.c).
fn of_family<'a>(host: &'a str, parameters: &Parameters, prefix: &str) -> &'a str {
    let is_on = |key| parameters.is_on(&format!("{prefix}{key}"));
    let is_v6 = match (is_on("ipv4"), is_on("ipv6")) {
        (Some(is_v4), None) => !is_v4,
        (is_v4, is_v6) => is_v6 == Some(true) && is_v4 != Some(true),
    };
    match host {
        "" | "localhost" if is_v6 => "::1",
        host => host,
    }
}

/// The servers of a client of PulseAudio: it tries one after another, `[{machine}]tcp:host[:port]`, `host[:port]` or a file.
fn pulse(servers: &str, add: &mut dyn FnMut(Endpoint<'_>)) {
    let first = servers.split_whitespace().find_map(|server| {
        let server = server.rsplit('}').next()?;
        let is_file = server.starts_with("unix:") || server.starts_with('/');
        (!is_file).then_some(server)
    });
    let Some(server) = first else {
        return;
    };
    let is_v6 = server.starts_with("tcp6:");
    let plain = ["tcp:", "tcp4:", "tcp6:"]
        .into_iter()
        .find_map(|kind| server.strip_prefix(kind))
        .unwrap_or(server);
    let (host, port) = match address(plain) {
        Some(_) => (plain, PULSE),
        None => endpoint(plain, PULSE),
    };
    let host = match host {
        "localhost" if is_v6 => "::1",
        host => host,
    };
    add((Protocol::TCP, host, &port.to_string()));
}

fn network(parameters: &Parameters, add: &mut dyn FnMut(Endpoint<'_>)) {
    let get = |key: &str| parameters.get(key).unwrap_or_default();
    match get("type") {
        "socket" => {
            for (key, protocol) in [
                ("connect", Protocol::TCP),
                ("udp", Protocol::UDP),
                ("mcast", Protocol::UDP),
            ] {
                if let Some((host, port)) = get(key).rsplit_once(':') {
                    add((protocol, host, port));
                }
            }
        }
        "stream" if get("addr.type") == "inet" && parameters.is_on("server") != Some(true) => {
            let host = of_family(get("addr.host"), parameters, "addr.");
            add((Protocol::TCP, host, get("addr.port")));
        }
        "dgram" if get("remote.type") == "inet" => {
            let host = of_family(get("remote.host"), parameters, "remote.");
            add((Protocol::UDP, host, get("remote.port")));
        }
        "l2tpv3" if parameters.is_on("udp") == Some(true) => {
            add((
                Protocol::UDP,
                of_family(get("dst"), parameters, ""),
                get("dstport"),
            ));
        }
        _ => {}
    }
}

/// The nodes of a disk, in dotted keys.
fn nodes(parameters: &Parameters, add: &mut dyn FnMut(Endpoint<'_>)) {
    for (key, value) in parameters.iter() {
        let (node, key) = match key.rsplit_once('.') {
            Some((node, key)) => (Some(node), key),
            None => (None, key),
        };
        let get = |name: &str| match node {
            Some(node) => parameters.get(&format!("{node}.{name}")),
            None => parameters.get(name),
        };
        match key {
            "filename" | "url" => image(value, add),
            // `server.host`, also deeper; the older spelling of NBD and SSH has them beside the driver.
            "host" => {
                let above = node.and_then(|node| node.strip_suffix("server"));
                let driver = match above {
                    Some(above) => parameters.get(&format!("{above}driver")),
                    None => get("driver"),
                };
                let default = DISKS.iter().find(|(name, _)| Some(*name) == driver);
                if let Some((_, default)) = default {
                    let port = get("port").map_or_else(|| default.to_string(), str::to_owned);
                    let prefix = node.map(|node| format!("{node}.")).unwrap_or_default();
                    add((Protocol::TCP, of_family(value, parameters, &prefix), &port));
                }
            }
            _ => {}
        }
    }
}

/// The name of an image: `nbd:host:port`, `nbd://host:port/export`, `http://…`, or one of these within another name.
fn image(name: &str, add: &mut dyn FnMut(Endpoint<'_>)) {
    if let Some(text) = name.strip_prefix("json:") {
        if let Ok(parameters) = Parameters::parse(text, "driver") {
            nodes(&parameters, add);
        }
        return;
    }
    if let Some((scheme, rest)) = name.split_once("://") {
        let scheme = scheme.split('+').next().unwrap_or_default();
        let default = DISKS.iter().find(|(name, _)| *name == scheme);
        if let (Some((_, default)), false) = (default, name.contains("+unix://")) {
            let authority = rest.split(['/', '?']).next().unwrap_or_default();
            let (host, port) = endpoint(authority, *default);
            add((Protocol::TCP, host, &port.to_string()));
        }
        return;
    }
    if let Some(rest) = name.strip_prefix("nbd:")
        && !rest.starts_with("unix:")
    {
        let address = rest.split(":exportname=").next().unwrap_or_default();
        if let Some((host, port)) = address.rsplit_once(':') {
            add((Protocol::TCP, host, port));
        }
    }
}

/// The host and the port of `[user@]host[:port]`.
#[must_use]
pub fn endpoint(authority: &str, default: u16) -> (&str, u16) {
    let address = authority.rsplit('@').next().unwrap_or_default();
    let is_whole = address.ends_with(']') || !address.contains(':');
    match address.rsplit_once(':') {
        Some((host, port)) if !is_whole => (host, port.parse().unwrap_or(0)),
        _ => (address, default),
    }
}

/// The address of a host, if it is known without a resolver. An empty one is this host.
#[must_use]
pub fn address(host: &str) -> Option<IpAddr> {
    match host.trim_start_matches('[').trim_end_matches(']') {
        "" | "localhost" => Some(Ipv4Addr::LOCALHOST.into()),
        literal => literal.parse().ok(),
    }
}

#[cfg(test)]
mod tests;
