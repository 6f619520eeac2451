//! Local ports.

use anyhow::Result;

use super::{DONE, scene::Scene};

#[test]
fn strict_allows_only_named_ports() -> Result<()> {
    let scene = Scene::new()?;
    let options = ["--strict=listeners", "--allow-listen", "tcp:8000-8001"];
    let fence = scene.expect(
        &options,
        &[
            ("bind tcp 127.0.0.1 8000", DONE),
            ("bind tcp ::1 8001", DONE),
            ("bind mptcp 127.0.0.1 8000", DONE),
            ("bind tcp 127.0.0.1 0", DONE),
            ("bind udp ::1 0", DONE),
            ("bind udp 127.0.0.1 8000", "EACCES"),
            ("bind tcp 127.0.0.1 8002", "EACCES"),
            ("bind tcp ::1 7999", "EACCES"),
            ("bind mptcp ::1 8002", "EACCES"),
            ("bind udp ::ffff:127.0.0.1 8000", "EACCES"),
            // Such a socket can get the port of a service that shares it.
            ("bind tcp+addr 127.0.0.1 0", DONE),
            ("bind udp+addr 127.0.0.1 0", "EACCES"),
            ("bind udp+port ::1 0", "EACCES"),
            ("bind tcp+port 127.0.0.1 0", "EACCES"),
            ("bind tcp+port 127.0.0.1 8000", DONE),
        ],
    )?;
    let found: Vec<_> = fence
        .refusals()?
        .into_iter()
        .map(|one| {
            format!(
                "{} {} {} {}",
                one.hook, one.protocol, one.local, one.local_port
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            "bind4 udp 127.0.0.1 8000",
            "bind4 tcp 127.0.0.1 8002",
            "bind6 tcp ::1 7999",
            "bind6 tcp ::1 8002",
            "bind6 udp 127.0.0.1 8000",
            "bind4 udp 127.0.0.1 0",
            "bind6 udp ::1 0",
            "bind4 tcp 127.0.0.1 0",
        ]
    );
    scene.expect(&[], &[("bind udp 127.0.0.1 8000", DONE)])?;
    Ok(())
}
