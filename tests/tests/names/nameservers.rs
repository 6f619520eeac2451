//! The resolver asks the nameservers that resolv.conf has now, and as its options say.

use std::{net::UdpSocket, time::Duration};

use anyhow::Context as _;
use tests::{
    probe,
    world::{GATEWAY_V4, GATEWAY_V6},
};

use super::*;

/// A nameserver of the host that answers nobody.
const SILENT: &str = "127.0.0.99";

fn address(last: u8) -> IpAddr {
    IpAddr::from([198, 51, 100, last])
}

fn wait_for(shell: &mut Shell, expected: IpAddr) -> Result<()> {
    let expected = expected.to_string();
    wait_until(&format!("the answer is {expected}"), || {
        Ok(reply(shell, "dns/192.0.2.99/www.example.org")? == expected)
    })
}

#[test]
fn nameservers_of_both_families_and_of_a_link_are_followed() -> Result<()> {
    let world = World::new()?;
    let [by_v4, by_v6] = [(GATEWAY_V4, 21), (GATEWAY_V6, 22)].map(|(at, last)| {
        let records = [("www.example.org", address(last))];
        Dns::start(&world.internet, at, &records)
    });
    let (by_v4, by_v6) = (by_v4?, by_v6?);
    world.write_resolv_conf(&format!("nameserver {GATEWAY_V4}\n"))?;
    let fence = locked("nameservers", &["www.example.org"])?;
    let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
    wait_for(&mut shell, address(21))?;
    world.write_resolv_conf(&format!("nameserver {GATEWAY_V6}\n"))?;
    wait_for(&mut shell, address(22))?;

    // Nobody answers at these addresses any more.
    drop((by_v4, by_v6));
    let found = world
        .internet
        .ip("-6 -o address show dev eth0 scope link")?;
    let link = found
        .split_whitespace()
        .find(|word| word.starts_with("fe80:"));
    let (link, _) = link
        .and_then(|word| word.split_once('/'))
        .with_context(|| found.clone())?;
    for gateway in [format!("{GATEWAY_V4}/24"), format!("{GATEWAY_V6}/64")] {
        world
            .internet
            .ip(&format!("address del {gateway} dev eth0"))?;
    }
    let _server = probe::nameserver(&world.internet)?;
    // Before there is an interface of this name, there is no nameserver.
    world.write_resolv_conf(&format!("nameserver {link}%late0\n"))?;
    wait_until("no nameserver is asked", || {
        Ok(reply(&mut shell, "dns/192.0.2.99/www.example.org")? == "rcode 2")
    })?;
    world.host_ip("link property add dev eth0 altname late0")?;
    wait_for(&mut shell, SERVER_V4)
}

#[test]
fn without_a_nameserver_this_machine_is_asked() -> Result<()> {
    let world = World::new()?;
    world.write_resolv_conf("options edns0\n")?;
    let _server = probe::nameserver(&world.host)?;
    let fence = locked("no-nameserver", &["www.example.org"])?;
    let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
    wait_for(&mut shell, SERVER_V4)
}

#[test]
fn nameservers_are_asked_as_often_as_the_options_say() -> Result<()> {
    let world = World::new()?;
    let silent = world.host.run(|| Ok(UdpSocket::bind((SILENT, 53))?))?;
    silent.set_read_timeout(Some(Duration::from_millis(1)))?;
    // Only those for a name: qfence itself asks for a NAT64 translator.
    let received = |name: &str| {
        let label = [&[1][..], name.as_bytes(), b"\x07example"].concat();
        let mut buffer = [0; 512];
        let mut count = 0;
        while let Ok(length) = silent.recv(&mut buffer) {
            let mut parts = buffer[..length].windows(label.len());
            count += usize::from(parts.any(|part| part == label));
        }
        count
    };
    let write = |options: &str| {
        world.write_resolv_conf(&format!(
            "nameserver {SILENT}\noptions timeout:1 {options}\n"
        ))
    };
    write("attempts:3")?;
    let fence = locked("options", &["*.example.org"])?;
    let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
    let mut ask = |name: &str| -> Result<usize> {
        let query = format!("dns/{SILENT}/{name}.example.org");
        let results = shell.attempt(&["--timeout-ms", "60000", &query])?;
        assert_eq!(results[0].reply.as_deref(), Some("rcode 2"), "{results:?}");
        Ok(received(name))
    };
    assert_eq!(ask("a")?, 3);
    write("attempts:1")?;
    wait_until("it is asked once", || Ok(ask("b")? == 1))
}
