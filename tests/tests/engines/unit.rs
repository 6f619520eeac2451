//! `attach --unit` finds units of a real systemd.

use anyhow::Result;
use tests::{
    fence::qfence,
    run::{Ended, to_end},
    systemd::Machine,
};

/// Runs a command on the machine.
fn run(machine: &Machine, words: &[&str]) -> Result<Ended> {
    let mut command = machine.command(words[0])?;
    command.args(&words[1..]);
    to_end(command)
}

#[test]
fn a_unit_is_found_by_its_name_and_so_is_its_slice() -> Result<()> {
    let machine = Machine::boot()?;
    let program = qfence()?;
    let qfence = |words: &[&str]| {
        let mut command = machine.command(&program)?;
        command.args(words);
        to_end(command)
    };
    let attach = |unit: &str| qfence(&["attach", "--unit", unit, "--detach", "--name", "f"]);
    for unit in ["web", "vms.slice"] {
        let error = attach(unit)?.stderr;
        let is_missing = error.contains("systemd has no unit") || error.contains("is inactive");
        assert!(is_missing, "{unit}: {error}");
    }
    let sleep = ["--unit=web@1.service", "--slice=vms.slice", "sleep", "1000"];
    let started = run(&machine, &[&["systemd-run"], &sleep[..]].concat())?;
    assert_eq!(started.code(), Some(0), "{started:?}");

    for (unit, name, place) in [
        ("web@1", "unit web@1.service", "vms.slice/web@1.service"),
        ("vms.slice", "unit vms.slice", "vms.slice"),
    ] {
        let attached = attach(unit)?;
        assert_eq!(attached.code(), Some(0), "{unit}: {attached:?}");
        let fences = qfence(&["ps", "--json"])?.stdout;
        assert!(fences.contains(&format!("\"{name}\"")), "{fences}");
        assert!(fences.contains(&format!("\"{place}\"")), "{fences}");
        let removed = qfence(&["rm", "f"])?;
        assert_eq!(removed.code(), Some(0), "{unit}: {removed:?}");
    }
    for (unit, words) in [
        ("web@", "is a template"),
        ("system.slice", "has every unit that names no other"),
        ("multi-user.target", "has no processes"),
    ] {
        let refused = attach(unit)?;
        assert!(refused.stderr.contains(words), "{unit}: {refused:?}");
    }
    machine.end()
}
