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
        ("DOCKER_HOST", "localhost:2375", "127.0.0.1:2375"),
        ("DOCKER_HOST", "127.0.0.1", "127.0.0.1:2375"),
        ("DOCKER_TLS_VERIFY", "1", "127.0.0.1:2376"),
        ("HTTP_PROXY", "http://127.0.0.1", "127.0.0.1:80"),
        ("https_proxy", "https://127.0.0.1", "127.0.0.1:443"),
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
        ("DOCKER_HOST", "/run/docker.sock"),
        ("DOCKER_HOST", "./docker.sock"),
        ("DOCKER_TLS_VERIFY", ""),
        ("CONTAINER_HOST", "localhost:2375"),
        ("CUPS_SERVER", "/run/cups/cups.sock"),
        ("ADB_SERVER_SOCKET", "localfilesystem:/x"),
        ("NO_PROXY", "127.0.0.1:80"),
    ] {
        assert!(found(&[(name, value)]).is_empty(), "{name}={value}");
    }
}

#[test]
fn the_server_of_docker_with_tls_is_another_one_without_a_host() {
    let tls = ("DOCKER_TLS_VERIFY", "1");
    let host = |value| [("DOCKER_HOST", value), tls];
    assert_eq!(
        found(&host("tcp://127.0.0.1")),
        ["DOCKER_HOST 127.0.0.1:2375"]
    );
    assert!(found(&host("unix:///run/docker.sock")).is_empty());
    assert_eq!(found(&host("")), ["DOCKER_TLS_VERIFY 127.0.0.1:2376"]);
    assert!(found(&[("DOCKER_CONTEXT", "x"), tls]).is_empty());
}

#[test]
fn a_proxy_without_a_port_has_another_one_for_curl() {
    assert_eq!(
        found(&[
            ("http_proxy", "http://127.0.0.1"),
            ("HTTP_PROXY", "localhost")
        ]),
        [
            "http_proxy,HTTP_PROXY 127.0.0.1:80",
            "http_proxy (for curl) 127.0.0.1:1080"
        ]
    );
    for (value, port) in [
        ("http://127.0.0.1:80", 80),
        ("http://127.0.0.1:1080", 1080),
        ("socks5://127.0.0.1", 1080),
        ("https://127.0.0.1", 443),
    ] {
        let server = format!("http_proxy 127.0.0.1:{port}");
        assert_eq!(found(&[("http_proxy", value)]), [server], "{value}");
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
