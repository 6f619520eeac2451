//! Where a character device leads: to another process, or to the internet.

use super::{configuration::Item, parameters::Parameters};

/// The backends that lead to nothing, to a file, or to QEMU's own window and terminal.
const NOBODY: [&str; 11] = [
    "null", "ringbuf", "memory", "file", "vc", "con", "stdio", "msmouse", "wctablet", "testdev",
    "braille",
];

/// The peer of a character device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A server at this address. The connection is QEMU's own, and the fence judges it.
    Internet {
        /// A name or an address. Empty for this host.
        host: String,
        /// A port or its name.
        port: String,
    },
    /// A client that connects by TCP.
    Caller,
    /// Another process, or whatever uses a device. The fence does not see it.
    Process,
    /// No peer outside of QEMU.
    Nobody,
}

/// The peer of the `-chardev` with this id; `None` if there is none.
#[must_use]
pub fn by_id(items: &[Item], id: &str) -> Option<Peer> {
    let named = |item: &&Item| item.group == "chardev" && item.parameters.get("id") == Some(id);
    items.iter().find(named).map(|item| of(&item.parameters))
}

/// The peer of a device in the legacy syntax: `tcp:host:port`, `unix:path`, `chardev:id`, ….
#[must_use]
pub fn by_old_spelling(items: &[Item], text: &str) -> Option<Peer> {
    if let Some(id) = text.strip_prefix("chardev:") {
        return by_id(items, id);
    }
    let kind = text.strip_prefix("mon:").unwrap_or(text);
    let kind = kind.split(':').next().unwrap_or_default();
    match parameters(text) {
        Some(parameters) => Some(of(&parameters)),
        // An address without a port.
        None if ADDRESSED.contains(&kind) => None,
        None => Some(Peer::Process),
    }
}

/// The legacy kinds with a host and a port.
const ADDRESSED: [&str; 5] = ["tcp", "telnet", "tn3270", "websocket", "udp"];

/// The parameters of a device in the legacy syntax, as with `-chardev` (`qemu_chr_parse_compat` of QEMU's
/// chardev/char.c). `None` for `chardev:id`, `none`, and what cannot be read.
#[must_use]
pub fn parameters(text: &str) -> Option<Parameters> {
    let text = text.strip_prefix("mon:").unwrap_or(text);
    let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
    if kind == "unix" {
        let mut parameters = Parameters::with_implied(rest, "path");
        parameters.set("backend", "socket");
        if parameters.get("path").is_none() {
            parameters.set("path", "");
        }
        return Some(parameters);
    }
    if ADDRESSED.contains(&kind) {
        let (address, rest) = rest.split_once(',').unwrap_or((rest, ""));
        // udp:host:port@local:port
        let (address, local) = address.split_once('@').unwrap_or((address, ""));
        let (host, port) = address.rsplit_once(':')?;
        let mut parameters = Parameters::without_implied(rest);
        parameters.set("backend", if kind == "udp" { "udp" } else { "socket" });
        parameters.set("host", host);
        parameters.set("port", port);
        if let (Some((host, port)), "udp") = (local.rsplit_once(':'), kind) {
            parameters.set("localaddr", host);
            parameters.set("localport", port);
        }
        return Some(parameters);
    }
    let (backend, path) = match kind {
        "file" | "pipe" | "pty" => (kind, rest),
        _ if text.starts_with("/dev/parport") => ("parallel", text),
        _ if text.starts_with("/dev/") => ("serial", text),
        kind if NOBODY.contains(&kind) => (kind, ""),
        _ => return None,
    };
    let mut parameters = Parameters::default();
    parameters.set("backend", backend);
    if !path.is_empty() {
        parameters.set("path", path);
    }
    Some(parameters)
}

fn of(parameters: &Parameters) -> Peer {
    let says = |key: &str| parameters.get(key).unwrap_or_default();
    let internet = || Peer::Internet {
        host: says("host").to_owned(),
        port: says("port").to_owned(),
    };
    match says("backend") {
        "udp" => internet(),
        "socket" if parameters.get("path").or(parameters.get("fd")).is_some() => Peer::Process,
        "socket" if matches!(says("server"), "" | "off" | "no" | "false" | "n") => internet(),
        "socket" => Peer::Caller,
        kind if NOBODY.contains(&kind) => Peer::Nobody,
        _ => Peer::Process,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::configuration::Place;

    fn internet(host: &str, port: &str) -> Peer {
        Peer::Internet {
            host: host.to_owned(),
            port: port.to_owned(),
        }
    }

    #[test]
    fn both_spellings_lead_to_the_same_peer() {
        for (old, new, peer) in [
            (
                "tcp:127.0.0.1:80",
                "socket,host=127.0.0.1,port=80",
                internet("127.0.0.1", "80"),
            ),
            (
                "tcp::80,nodelay",
                "socket,host=,port=80,nodelay=on",
                internet("", "80"),
            ),
            (
                "telnet:h:23,server=off",
                "socket,host=h,port=23,server=off",
                internet("h", "23"),
            ),
            (
                "tcp:[::1]:80",
                "socket,host=[::1],port=80",
                internet("[::1]", "80"),
            ),
            (
                "tcp::80,server,nowait",
                "socket,port=80,server=on,wait=off",
                Peer::Caller,
            ),
            (
                "udp:h:53@:54",
                "udp,host=h,port=53,localport=54",
                internet("h", "53"),
            ),
            ("unix:/run/s", "socket,path=/run/s", Peer::Process),
            (
                "mon:unix:/run/s",
                "socket,path=/run/s,mux=on",
                Peer::Process,
            ),
            ("null", "null", Peer::Nobody),
            ("pty", "pty", Peer::Process),
            ("pipe:/tmp/p", "pipe,path=/tmp/p", Peer::Process),
            ("/dev/ttyS0", "serial,path=/dev/ttyS0", Peer::Process),
            ("file:/tmp/x", "file,path=/tmp/x", Peer::Nobody),
        ] {
            let item = Item {
                group: "chardev".to_owned(),
                parameters: Parameters::parse(&format!("{new},id=c"), "backend").unwrap(),
                argument: String::new(),
                place: Place::Elsewhere,
            };
            let items = [item];
            assert_eq!(by_old_spelling(&items, old), Some(peer.clone()), "{old}");
            assert_eq!(by_id(&items, "c"), Some(peer.clone()), "{new}");
            assert_eq!(by_old_spelling(&items, "chardev:c"), Some(peer), "{new}");
            assert_eq!(by_id(&items, "d"), None);
        }
    }
}
