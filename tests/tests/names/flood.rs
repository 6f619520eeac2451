//! A fence that asks without end.

use tests::{
    memory::Memory,
    probe::{self, Load},
};

use super::*;

/// The memory that a supervisor may use in addition to its memory before, in kB.
const GROWTH: u64 = 16 * 1024;

/// The number of queries.
const QUERIES: u64 = 20_000;

#[test]
fn a_flood_of_names_fills_no_memory_and_other_fences_are_answered() -> Result<()> {
    let world = World::new()?;
    world.write_resolv_conf("nameserver 127.0.0.1\n")?;
    let program = probe::program()?;
    let program = program.display();
    let mut server = Shell::start(world.host.command("sh"))?;
    server.tell(&format!("exec {program} --serve dns-udp/53"))?;
    assert_eq!(server.next_line()?, "serving");
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
