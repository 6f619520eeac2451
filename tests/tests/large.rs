//! A policy of ten thousand prefixes: it is taken, and right at the edges of each.

use std::{
    fmt::Write as _,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::Result;
use tests::{
    fence::Fence,
    namespace::NOBODY,
    probe::{self, CONNECTED, Flood},
    workspace,
    world::World,
};

/// In each family.
const PREFIXES: u32 = 5000;
/// Every how many of them is tried.
const STEP: usize = 7;

/// The first and the last address of a prefix, those beside it, and how it is written. Between one and
/// the next there is as much again.
fn v4(index: u32) -> ([IpAddr; 2], [IpAddr; 2], String) {
    let first = u32::from(Ipv4Addr::new(44, 0, 0, 0)) + index * 512;
    let address = |bits: u32| IpAddr::from(Ipv4Addr::from(bits));
    let inside = [address(first), address(first + 255)];
    let beside = [address(first - 1), address(first + 256)];
    (inside, beside, format!("{}/24", inside[0]))
}

fn v6(index: u32) -> ([IpAddr; 2], [IpAddr; 2], String) {
    let first = u128::from(Ipv6Addr::new(0x2a00, 0, 0, 0, 0, 0, 0, 0)) + (u128::from(index) << 81);
    let address = |bits: u128| IpAddr::from(Ipv6Addr::from(bits));
    let inside = [address(first), address(first + (1 << 80) - 1)];
    let beside = [address(first - 1), address(first + (1 << 80))];
    (inside, beside, format!("[{}/48]", inside[0]))
}

#[test]
fn ten_thousand_prefixes_are_right_at_their_edges() -> Result<()> {
    let world = World::new()?;
    let dir = tempfile::tempdir()?;
    workspace::make_readable(dir.path())?;
    let all: Vec<_> = (0..PREFIXES)
        .flat_map(|index| [v4(index), v6(index)])
        .collect();
    let mut profile = "default = \"allow\"\n[[rule]]\ndeny = [\n".to_owned();
    for (_, _, prefix) in &all {
        writeln!(profile, "\"{prefix}\",")?;
    }
    profile.push_str("]\n");
    let path = dir.path().join("large.toml");
    fs::write(&path, profile)?;

    let mut lines = String::new();
    let mut expected = Vec::new();
    let edges = all.iter().step_by(STEP).chain(all.iter().rev().take(2));
    for (inside, beside, _) in edges {
        for (addresses, ending) in [(inside, "ECONNREFUSED"), (beside, CONNECTED)] {
            for address in addresses {
                writeln!(lines, "udp/{address}/53")?;
                expected.push((format!("udp/{address}/53"), ending.to_owned()));
            }
        }
    }
    let file = dir.path().join("destinations");
    fs::write(&file, lines)?;
    workspace::make_readable(&file)?;
    let tried = |mut command: std::process::Command| -> Result<Vec<(String, String)>> {
        let output = probe::output(command.arg("--connect-each").arg(&file))?;
        let floods: Vec<Flood> = probe::read_lines(&output)?;
        let ending = |flood: Flood| (flood.attempt, flood.endings.into_keys().collect());
        Ok(floods.into_iter().map(ending).collect())
    };

    let open = tried(world.host.command_as(NOBODY, probe::program()?))?;
    assert!(
        open.iter().all(|(_, ending)| ending == CONNECTED),
        "control"
    );
    let path = path.display().to_string();
    let fence = Fence::new("large")?.with(&["--user", "nobody", "--profile", &path]);
    let fenced = tried(fence.command(&world.host, probe::program()?))?;
    assert_eq!(fenced, expected);
    Ok(())
}
