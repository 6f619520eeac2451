//! A fence that asks without end.

use tests::{
    memory::{Memory, forget_peak},
    probe::{self, Load},
};

use super::*;

/// The memory that a supervisor may use in addition to its memory before, in kB.
const GROWTH: u64 = 16 * 1024;

/// The number of queries.
const QUERIES: u64 = 20_000;

/// A host with a nameserver that has all names.
fn scene() -> Result<(World, Shell)> {
    let world = World::new()?;
    world.write_resolv_conf("nameserver 127.0.0.1\n")?;
    let server = probe::nameserver(&world.host)?;
    Ok((world, server))
}

#[test]
fn names_for_which_there_is_no_room_are_on_record() -> Result<()> {
    let (world, _server) = scene()?;
    let fence = locked("full", &["*.example.org"])?;
    let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
    // 64 addresses of each fill all 2,048 places.
    for number in 0..32 {
        let query = format!("dns/192.0.2.99/many{number}.example.org");
        let found = reply(&mut shell, &query)?;
        assert!(
            found.starts_with(&format!("11.0.{number}.")),
            "{query}: {found}"
        );
    }
    assert_eq!(
        reply(&mut shell, "dns/192.0.2.99/many32.example.org")?,
        "rcode 2"
    );
    wait_until("the look-up is on record", || {
        let lines = fence.lines()?;
        let lookups: Vec<_> = lines
            .iter()
            .filter(|line| line["kind"] == "lookup")
            .collect();
        let is_it = |line: &&&serde_json::Value| line["name"] == "many32.example.org";
        let is_said = lookups.iter().find(is_it);
        assert!(lookups.len() <= 1, "{lookups:?}");
        Ok(is_said.is_some_and(|line| line["verdict"] == "full"))
    })?;
    // What is in force already needs no room.
    let found = reply(&mut shell, "dns/192.0.2.99/many7.example.org")?;
    assert!(found.starts_with("11.0.7."), "{found}");
    Ok(())
}

#[test]
fn a_flood_of_names_fills_no_memory_and_other_fences_are_answered() -> Result<()> {
    let (world, _server) = scene()?;
    let program = probe::program()?;
    let program = program.display();
    let [hostile, other] = [
        locked("flood", &["*.example.org"])?,
        locked("beside-flood", &["*.example.org"])?,
    ];
    let mut hostile = Shell::start(hostile.command(&world.host, "sh"))?;
    let mut other = Shell::start(other.command(&world.host, "sh"))?;
    let look_up = |shell: &mut Shell, number: u64| {
        reply(shell, &format!("dns/192.0.2.99/n{number}.example.org"))
    };
    assert_eq!(look_up(&mut hostile, 0)?, SERVER_V4.to_string());
    forget_peak(hostile.started())?;
    let before = Memory::of(hostile.started())?.resident;

    let (mut sent, mut answered) = (0, 0);
    while sent < QUERIES {
        hostile.tell(&format!(
            "{program} --for-ms 500 --load look-up-flood/192.0.2.99/53"
        ))?;
        for _ in 0..5 {
            answered += 1;
            assert_eq!(look_up(&mut other, answered)?, SERVER_V4.to_string());
        }
        let loads: Vec<Load> = probe::read_lines(&hostile.next_line()?)?;
        sent += loads[0].count;
    }
    let after = Memory::of(hostile.started())?.peak;
    assert!(after <= before + GROWTH, "{before} kB, then {after} kB");
    // What waits comes to its turn, and so do the names that are asked then.
    wait_until("the fence itself is answered", || {
        Ok(look_up(&mut hostile, 1)? == SERVER_V4.to_string())
    })
}
