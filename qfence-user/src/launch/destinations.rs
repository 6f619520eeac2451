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
    /// `scheme://[user@]host[:port]`, or without the scheme; the default port.
    Url(u16),
    /// `tcp://host:port`, the default port. Other schemes are no network.
    Engine(u16),
    /// Addresses that are tried one after another: `[{machine}]tcp:host[:port]`, `host[:port]`, `unix:path`.
    Pulse,
    /// `tcp:host:port`
    Adb,
    /// `host[:port]`, the default port.
    Host(u16),
}

/// The variables, in the order in which they are reported.
const VARIABLES: [(&str, Syntax); 15] = [
    ("DISPLAY", Syntax::Display),
    ("http_proxy", Syntax::Url(80)),
    ("HTTP_PROXY", Syntax::Url(80)),
    ("https_proxy", Syntax::Url(80)),
    ("HTTPS_PROXY", Syntax::Url(80)),
    ("ftp_proxy", Syntax::Url(80)),
    ("FTP_PROXY", Syntax::Url(80)),
    ("all_proxy", Syntax::Url(80)),
    ("ALL_PROXY", Syntax::Url(80)),
    ("PULSE_SERVER", Syntax::Pulse),
    ("DOCKER_HOST", Syntax::Engine(2375)),
    ("CONTAINER_HOST", Syntax::Engine(2375)),
    ("CUPS_SERVER", Syntax::Host(631)),
    ("ADB_SERVER_SOCKET", Syntax::Adb),
    ("rsync_proxy", Syntax::Host(8080)),
];

/// The servers that a command's variables name and whose addresses are known without a resolver.
#[must_use]
pub fn of(variables: &[(OsString, OsString)]) -> Vec<Destination> {
    let mut found: Vec<Destination> = Vec::new();
    for (name, syntax) in VARIABLES {
        let value = variables.iter().rev().find(|(given, _)| given == name);
        let Some((address, port)) = value.and_then(|(_, value)| server(syntax, value)) else {
            continue;
        };
        match found
            .iter_mut()
            .find(|known| (known.address, known.port) == (address, port))
        {
            Some(known) => known.names.push(name.to_owned()),
            None => found.push(Destination {
                names: vec![name.to_owned()],
                address,
                port,
            }),
        }
    }
    found
}

fn server(syntax: Syntax, value: &OsStr) -> Option<(IpAddr, u16)> {
    let value = value.to_str().filter(|text| text.len() <= LONGEST)?.trim();
    match syntax {
        Syntax::Display => {
            let (host, display) = value.rsplit_once(':')?;
            let number: u16 = display.split('.').next()?.parse().ok()?;
            // Without a host, and with `unix`, the socket is a file.
            let is_file = host.is_empty() || host == "unix" || host.contains('/');
            let address = (!is_file).then(|| address(host)).flatten()?;
            Some((address, X11.checked_add(number)?))
        }
        Syntax::Url(default) => {
            let (scheme, rest) = value.split_once("://").unwrap_or(("http", value));
            let default = match scheme {
                "https" => 443,
                scheme if scheme.starts_with("socks") => 1080,
                _ => default,
            };
            endpoint(rest.split('/').next()?, default)
        }
        Syntax::Engine(default) => {
            let (scheme, rest) = value.split_once("://")?;
            match scheme {
                "tcp" => endpoint(rest.split('/').next()?, default),
                "ssh" => endpoint(rest.split('/').next()?, 22),
                _ => None,
            }
        }
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
mod tests {
    use super::*;

    fn found(variables: &[(&str, &str)]) -> Vec<String> {
        let variables: Vec<_> = variables
            .iter()
            .map(|(name, value)| (OsString::from(name), OsString::from(value)))
            .collect();
        of(&variables)
            .into_iter()
            .map(|server| {
                format!(
                    "{} {}:{}",
                    server.names.join(","),
                    server.address,
                    server.port
                )
            })
            .collect()
    }

    #[test]
    fn the_server_of_each_variable_is_found() {
        for (name, value, server) in [
            ("DISPLAY", "localhost:10.0", "127.0.0.1:6010"),
            ("DISPLAY", "192.0.2.1:0", "192.0.2.1:6000"),
            ("DISPLAY", "[::1]:10", "::1:6010"),
            ("http_proxy", "http://127.0.0.1:3128/", "127.0.0.1:3128"),
            ("http_proxy", "127.0.0.1:3128", "127.0.0.1:3128"),
            (
                "HTTPS_PROXY",
                "http://me:secret@localhost:8080",
                "127.0.0.1:8080",
            ),
            ("all_proxy", "socks5h://localhost", "127.0.0.1:1080"),
            ("http_proxy", "http://[::1]:3128", "::1:3128"),
            ("PULSE_SERVER", "tcp:127.0.0.1:4714", "127.0.0.1:4714"),
            (
                "PULSE_SERVER",
                "{abc}unix:/run/p tcp:localhost",
                "127.0.0.1:4713",
            ),
            ("PULSE_SERVER", "127.0.0.1", "127.0.0.1:4713"),
            ("DOCKER_HOST", "tcp://localhost:2376", "127.0.0.1:2376"),
            ("DOCKER_HOST", "ssh://me@127.0.0.1", "127.0.0.1:22"),
            ("CONTAINER_HOST", "tcp://127.0.0.1", "127.0.0.1:2375"),
            ("CUPS_SERVER", "localhost", "127.0.0.1:631"),
            ("ADB_SERVER_SOCKET", "tcp:localhost:5037", "127.0.0.1:5037"),
        ] {
            assert_eq!(
                found(&[(name, value)]),
                [format!("{name} {server}")],
                "{value}"
            );
        }
    }

    #[test]
    fn what_is_no_network_or_needs_a_resolver_is_not() {
        for (name, value) in [
            ("DISPLAY", ":0"),
            ("DISPLAY", "unix:0"),
            ("DISPLAY", "/tmp/launch/org.x:0"),
            ("DISPLAY", "localhost"),
            ("http_proxy", ""),
            ("http_proxy", "http://proxy.example:3128"),
            ("http_proxy", "http://127.0.0.1:x"),
            ("PULSE_SERVER", "unix:/run/user/1000/pulse/native"),
            ("PULSE_SERVER", "/run/pulse"),
            ("DOCKER_HOST", "unix:///run/docker.sock"),
            ("DOCKER_HOST", "fd://"),
            ("CUPS_SERVER", "/run/cups/cups.sock"),
            ("ADB_SERVER_SOCKET", "localfilesystem:/x"),
            ("NO_PROXY", "127.0.0.1:80"),
        ] {
            assert!(found(&[(name, value)]).is_empty(), "{name}={value}");
        }
    }

    #[test]
    fn variables_for_one_server_are_one_line() {
        let proxy = "http://localhost:3128";
        assert_eq!(
            found(&[
                ("https_proxy", proxy),
                ("http_proxy", proxy),
                ("DISPLAY", "localhost:10")
            ]),
            [
                "DISPLAY 127.0.0.1:6010",
                "http_proxy,https_proxy 127.0.0.1:3128"
            ]
        );
    }
}
