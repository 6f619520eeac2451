//! The servers that a QEMU connects to by itself, as its options name them: for character devices, networks, disks, and
//! displays.

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
        "vnc" if parameters.is_on("reverse") == Some(true) => {
            // The number is a port here, and not a display.
            if let Some((host, port)) = get("vnc").rsplit_once(':') {
                add((Protocol::TCP, host, port));
            }
        }
        "audiodev" if get("driver") == "pa" => {
            if let Some(rest) = get("server").strip_prefix("tcp:") {
                let (host, port) = rest.rsplit_once(':').unwrap_or((rest, "4713"));
                add((Protocol::TCP, host, port));
            }
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
    match get("backend") {
        "socket" if !is_server && !has_other => add((Protocol::TCP, get("host"), get("port"))),
        "udp" => add((Protocol::UDP, get("host"), get("port"))),
        _ => {}
    }
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
            add((Protocol::TCP, get("addr.host"), get("addr.port")));
        }
        "dgram" if get("remote.type") == "inet" => {
            add((Protocol::UDP, get("remote.host"), get("remote.port")));
        }
        "l2tpv3" if parameters.is_on("udp") == Some(true) => {
            add((Protocol::UDP, get("dst"), get("dstport")));
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
                    add((Protocol::TCP, value, &port));
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
