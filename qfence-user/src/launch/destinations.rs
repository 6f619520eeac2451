//! Environment variables that name a server for the command. Pure.

use std::{
    ffi::{OsStr, OsString},
    net::{IpAddr, Ipv4Addr},
};

/// The most bytes of a variable that are read.
const LONGEST: usize = 4096;

/// The first port of X servers; a display is one more each.
const X11: u16 = 6000;

/// A server that variables name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The names of the variables.
    pub names: Vec<String>,
    /// The server's address.
    pub address: IpAddr,
    /// The TCP port.
    pub port: u16,
}

/// How a variable names a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Syntax {
    /// `host:display[.screen]`
    Display,
    /// `scheme://[user@]host[:port]`, or without the scheme: a proxy that curl does not use.
    Proxy,
    /// The same for all programs.
    ProxyOfCurl,
    /// `tcp://host[:port]`, `ssh://host[:port]`. Other schemes are no network.
    Podman,
    /// The same, and `host[:port]`.
    Docker,
    /// Whether Docker's client uses TLS: then it has another default server ([`DOCKER_TLS`]).
    DockerTls,
    /// Addresses that are tried one after another: `[{machine}]tcp:host[:port]`, `host[:port]`, `unix:path`.
    Pulse,
    /// `tcp:host:port`
    Adb,
    /// `host[:port]`, the default port.
    Host(u16),
}

/// The variables, in the order in which they are reported.
const VARIABLES: [(&str, Syntax); 16] = [
    ("DISPLAY", Syntax::Display),
    ("http_proxy", Syntax::ProxyOfCurl),
    ("HTTP_PROXY", Syntax::Proxy),
    ("https_proxy", Syntax::ProxyOfCurl),
    ("HTTPS_PROXY", Syntax::ProxyOfCurl),
    ("ftp_proxy", Syntax::ProxyOfCurl),
    ("FTP_PROXY", Syntax::ProxyOfCurl),
    ("all_proxy", Syntax::ProxyOfCurl),
    ("ALL_PROXY", Syntax::ProxyOfCurl),
    ("PULSE_SERVER", Syntax::Pulse),
    ("DOCKER_HOST", Syntax::Docker),
    ("DOCKER_TLS_VERIFY", Syntax::DockerTls),
    ("CONTAINER_HOST", Syntax::Podman),
    ("CUPS_SERVER", Syntax::Host(631)),
    ("ADB_SERVER_SOCKET", Syntax::Adb),
    ("rsync_proxy", Syntax::Host(8080)),
];

/// The default port of Docker and podman.
const DOCKER: u16 = 2375;

/// The server of Docker's client with TLS if no variable names one. With one, the default port is that without TLS
/// (`ParseHost` in opts/hosts.go of docker/cli).
const DOCKER_TLS: (IpAddr, u16) = (IpAddr::V4(Ipv4Addr::LOCALHOST), 2376);

/// The default port of HTTP proxies for curl, and what uses its library, as git does (CURLOPT_PROXYPORT(3)). Others take
/// that of the URL's scheme: wget, Python's urllib, Go's net/http. For HTTPS proxies all of them take 443.
const CURL: u16 = 1080;

/// The servers that a command's variables name and whose addresses are known without a resolver.
#[must_use]
pub fn of(variables: &[(OsString, OsString)]) -> Vec<Destination> {
    let value_of = |name: &str| {
        let mut last_first = variables.iter().rev();
        let found = last_first.find(|(given, _)| given == name);
        found
            .map(|(_, value)| value)
            .filter(|value| !value.is_empty())
    };
    let has_docker = value_of("DOCKER_HOST")
        .or(value_of("DOCKER_CONTEXT"))
        .is_some();
    let mut found: Vec<Destination> = Vec::new();
    let mut add = |name: String, (address, port): (IpAddr, u16)| match found
        .iter_mut()
        .find(|known| (known.address, known.port) == (address, port))
    {
        Some(known) => known.names.push(name),
        None => found.push(Destination {
            names: vec![name],
            address,
            port,
        }),
    };
    for (name, syntax) in VARIABLES {
        let Some(value) = value_of(name).and_then(|value| text(value)) else {
            continue;
        };
        let general = match syntax {
            Syntax::DockerTls => (!has_docker).then_some(DOCKER_TLS),
            _ => server(syntax, value),
        };
        if let Some(server) = general {
            add(name.to_owned(), server);
        }
        let of_curl = (syntax == Syntax::ProxyOfCurl).then(|| proxy(value, CURL));
        if let Some(server) = of_curl
            .flatten()
            .filter(|of_curl| general != Some(*of_curl))
        {
            add(format!("{name} (for curl)"), server);
        }
    }
    found
}

/// The text of a variable, if it is none too long.
fn text(value: &OsStr) -> Option<&str> {
    let text = value.to_str().filter(|text| text.len() <= LONGEST)?;
    Some(text.trim())
}

/// The server of a proxy; an HTTP proxy may have a default port.
fn proxy(value: &str, default: u16) -> Option<(IpAddr, u16)> {
    let (scheme, rest) = value.split_once("://").unwrap_or(("http", value));
    let default = match scheme {
        "https" => 443,
        scheme if scheme.starts_with("socks") => 1080,
        _ => default,
    };
    endpoint(rest.split('/').next()?, default)
}

fn server(syntax: Syntax, value: &str) -> Option<(IpAddr, u16)> {
    match syntax {
        Syntax::Display => {
            let (host, display) = value.rsplit_once(':')?;
            let number: u16 = display.split('.').next()?.parse().ok()?;
            // Without a host, and with `unix`, the socket is a file.
            let is_file = host.is_empty() || host == "unix" || host.contains('/');
            let address = (!is_file).then(|| address(host)).flatten()?;
            Some((address, X11.checked_add(number)?))
        }
        Syntax::Proxy | Syntax::ProxyOfCurl => proxy(value, 80),
        Syntax::Podman | Syntax::Docker => {
            let (scheme, rest) = match value.split_once("://") {
                // A path is a file.
                None if syntax == Syntax::Docker && !value.starts_with(['/', '.']) => {
                    ("tcp", value)
                }
                parts => parts?,
            };
            match scheme {
                "tcp" => endpoint(rest.split('/').next()?, DOCKER),
                "ssh" => endpoint(rest.split('/').next()?, 22),
                _ => None,
            }
        }
        Syntax::DockerTls => None,
        Syntax::Pulse => value.split_whitespace().find_map(|server| {
            let server = server.rsplit('}').next()?;
            let is_file = server.starts_with("unix:") || server.starts_with('/');
            let plain = ["tcp:", "tcp4:", "tcp6:"]
                .into_iter()
                .find_map(|kind| server.strip_prefix(kind))
                .unwrap_or(server);
            (!is_file).then(|| endpoint(plain, 4713)).flatten()
        }),
        Syntax::Adb => endpoint(value.strip_prefix("tcp:")?, 5037),
        Syntax::Host(default) => {
            let is_file = value.starts_with('/');
            (!is_file)
                .then(|| endpoint(value.split('/').next()?, default))
                .flatten()
        }
    }
}

/// The address and the port of `[user@]host[:port]`.
fn endpoint(authority: &str, default: u16) -> Option<(IpAddr, u16)> {
    let text = authority.rsplit('@').next()?;
    if let Some(address) = address(text) {
        return Some((address, default));
    }
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    Some((address(host)?, port))
}

/// The address of a host, if it is known without a resolver.
fn address(host: &str) -> Option<IpAddr> {
    match host {
        "localhost" => Some(Ipv4Addr::LOCALHOST.into()),
        _ => {
            let inner = host
                .strip_prefix('[')
                .and_then(|host| host.strip_suffix(']'));
            inner.unwrap_or(host).parse().ok()
        }
    }
}

#[cfg(test)]
mod tests;
