//! Character devices, VNC, SPICE and migration: the servers of a QEMU, and its clients.

use qfence_common::Protocol;

use super::{
    Kind,
    collector::Collector,
    firmware::values,
    refused::{FAMILY, INCOMING_COMMAND, PTY},
};
use crate::qemu::{chardev, configuration::Item, parameters::Parameters};

/// The first port of VNC, and of VNC in WebSockets (QEMU's ui/vnc.c).
const VNC: u16 = 5900;
const VNC_WEBSOCKET: u16 = 5700;

/// Collects what one option needs.
pub(super) fn collect(item: &Item, needs: &mut Collector<'_>) {
    let parameters = &item.parameters;
    let text = item.text().unwrap_or_default();
    match item.group.as_str() {
        "chardev" => device(parameters, needs),
        "monitor" | "qmp" | "qmp-pretty" | "serial" | "parallel" | "debugcon" | "virtioconsole"
        | "qtest" => legacy(text, needs),
        // TCP is always a server here (`gdbserver_start`).
        "gdb" if text.starts_with("tcp:") => legacy(&format!("{text},server=on"), needs),
        "gdb" => legacy(text, needs),
        "s" => needs.listen(Protocol::TCP, "1234"),
        "vnc" | "display" => vnc(parameters, needs),
        "spice" => spice(parameters, needs),
        "incoming" => incoming(text, needs),
        _ => {}
    }
}

/// A character device in the legacy syntax.
pub(super) fn legacy(text: &str, needs: &mut Collector<'_>) {
    if let Some(parameters) = chardev::parameters(text) {
        device(&parameters, needs);
    }
}

fn device(parameters: &Parameters, needs: &mut Collector<'_>) {
    values(parameters, &["logfile"], needs, Collector::output);
    let get = |key: &str| parameters.get(key).unwrap_or_default();
    let path = get("path");
    match get("backend") {
        "socket" => {
            let is_server = parameters.is_on("server") == Some(true);
            match (path, is_server) {
                ("", true) => range(get("port"), get("to"), 0, needs),
                ("", false) => {}
                _ => unix(
                    path,
                    parameters.is_on("abstract") == Some(true),
                    is_server,
                    needs,
                ),
            }
        }
        "udp" => needs.listen(Protocol::UDP, get("localport")),
        "file" => {
            needs.output(path);
            needs.read(get("input-path"));
        }
        // The two directions, or one file for both.
        "pipe" => {
            for file in [
                &format!("{path}.in"),
                &format!("{path}.out"),
                &path.to_owned(),
            ] {
                if needs.kind(file) != Kind::Missing {
                    needs.write(file);
                }
            }
        }
        "serial" | "tty" | "parallel" | "parport" => needs.write(path),
        "pty" => needs.refuse(&PTY),
        _ => {}
    }
}

/// A Unix socket. Abstract names need no directory, and anybody may bind one.
pub(super) fn unix(path: &str, is_abstract: bool, is_server: bool, needs: &mut Collector<'_>) {
    match (is_abstract, is_server) {
        (false, true) => needs.make_beside(path),
        (false, false) => needs.connect(path),
        (true, true) => {}
        (true, false) => needs.connect_name(format!("@{path}").into()),
    }
}

/// A Unix or internet address in dotted keys (`SocketAddress` of QEMU's qapi/sockets.json).
pub(super) fn address(
    parameters: &Parameters,
    prefix: &str,
    protocol: Protocol,
    is_server: bool,
    needs: &mut Collector<'_>,
) {
    let key = |name: &str| format!("{prefix}.{name}");
    let get = |name: &str| parameters.get(&key(name)).unwrap_or_default();
    match get("type") {
        "unix" => {
            let is_abstract = parameters.is_on(&key("abstract")) == Some(true);
            unix(get("path"), is_abstract, is_server, needs);
        }
        "vsock" => needs.refuse(&FAMILY),
        "inet" if is_server && protocol == Protocol::TCP => {
            range(get("port"), get("to"), 0, needs);
        }
        "inet" if is_server => needs.listen(protocol, get("port")),
        _ => {}
    }
}

/// TCP ports: the first, and the last as `to`.
fn range(first: &str, last: &str, offset: u16, needs: &mut Collector<'_>) {
    let port = |text: &str| text.parse::<u16>().ok()?.checked_add(offset);
    if let Some(first) = port(first) {
        needs.listen_to(Protocol::TCP, first, port(last).unwrap_or(first));
    }
}

/// `host:display`, `unix:path`, with `to=`, `websocket=` and `reverse`. The same is a value of -display.
fn vnc(parameters: &Parameters, needs: &mut Collector<'_>) {
    let to = parameters.get("to").unwrap_or_default();
    let is_reverse = parameters.is_on("reverse") == Some(true);
    let given = parameters.get("vnc").unwrap_or_default();
    if let Some(path) = given.strip_prefix("unix:") {
        unix(path, false, !is_reverse, needs);
    } else if !is_reverse {
        range(after_host(given), to, VNC, needs);
    }
    match parameters.get("websocket") {
        None => {}
        Some("on" | "") => range(after_host(given), to, VNC_WEBSOCKET, needs),
        Some(address) => match address.strip_prefix("unix:") {
            Some(path) => unix(path, false, true, needs),
            None => range(after_host(address), "", 0, needs),
        },
    }
}

/// QEMU's display where it has no window: the first free one of these (`localhost:0,to=99` in QEMU's system/vl.c).
pub(super) fn default_vnc(needs: &mut Collector<'_>) {
    needs.listen_to(Protocol::TCP, VNC, VNC + 99);
}

pub(super) fn after_host(address: &str) -> &str {
    address.rsplit(':').next().unwrap_or_default()
}

fn spice(parameters: &Parameters, needs: &mut Collector<'_>) {
    if parameters.is_on("unix") == Some(true) {
        values(parameters, &["addr"], needs, Collector::make_beside);
    } else {
        for key in ["port", "tls-port"] {
            needs.listen(Protocol::TCP, parameters.get(key).unwrap_or_default());
        }
    }
    let files = [
        "x509-dir",
        "x509-key-file",
        "x509-cert-file",
        "x509-cacert-file",
        "x509-dh-key-file",
    ];
    values(parameters, &files, needs, Collector::read);
}

/// The source of a guest that is restored. Since QEMU 8.2 also JSON, or dotted keys.
fn incoming(text: &str, needs: &mut Collector<'_>) {
    if text.starts_with('{') || text.starts_with("channel-type=") {
        let Ok(parameters) = Parameters::parse(text, "") else {
            return;
        };
        let get = |key: &str| parameters.get(key).unwrap_or_default();
        return match get("addr.transport") {
            "socket" => address(&parameters, "addr", Protocol::TCP, true, needs),
            "exec" => needs.refuse(&INCOMING_COMMAND),
            "file" => needs.read(get("addr.filename")),
            _ => {}
        };
    }
    let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
    match kind {
        "exec" => needs.refuse(&INCOMING_COMMAND),
        "unix" => needs.make_beside(rest),
        "file" => needs.read(rest.split(",offset=").next().unwrap_or_default()),
        "vsock" => needs.refuse(&FAMILY),
        "tcp" => {
            let (address, options) = rest.split_once(',').unwrap_or((rest, ""));
            let options = Parameters::without_implied(options);
            range(
                after_host(address),
                options.get("to").unwrap_or_default(),
                0,
                needs,
            );
        }
        _ => {}
    }
}
