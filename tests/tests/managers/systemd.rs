//! A real systemd takes processes out of a fence, or runs programs for them, by every way to ask it; and by none where
//! the fence closes managers.

use std::{collections::BTreeMap, process::Command};

use anyhow::{Context as _, Result};
use tests::{
    fence::qfence,
    run::{Ended, to_end, wait_until},
    shell::Shell,
    systemd::{Machine, USER},
};

/// Tries the ways.
const SCRIPT: &str = "/run/ways-out.sh";

/// The ways that the script tries, and whether they move a process of the command; the others run a program.
const WAYS: [(&str, bool); 9] = [
    ("transient-unit", true),
    ("run", false),
    ("scope", false),
    ("attach", true),
    ("symlink", true),
    ("proc-root", true),
    ("user-namespace", true),
    ("private-socket", false),
    ("relative-path", true),
];

/// Where the user's manager puts processes.
const OUTSIDE: &str = "/user.slice/";

fn boot() -> Result<Machine> {
    let machine = Machine::boot()?;
    machine.write(SCRIPT, include_str!("ways_out.sh"))?;
    Ok(machine)
}

/// A command in a fence named `name` on the machine.
fn fenced(machine: &Machine, name: &str, options: &[&str]) -> Result<Command> {
    let mut command = machine.command(qfence()?)?;
    command.args(["exec", "--log", "none", "--name", name, "--user", USER]);
    command.args(options).arg("--");
    Ok(command)
}

/// The cgroup in which each way ended.
fn ways(machine: &Machine, mut command: Command) -> Result<(BTreeMap<String, String>, Ended)> {
    command.args(["sh", SCRIPT, &machine.manager()?.to_string()]);
    let ended = to_end(command)?;
    let way = |line: &str| {
        let (way, cgroup) = line.split_once(' ').context("a way and a cgroup")?;
        Ok((way.to_owned(), cgroup.to_owned()))
    };
    let ways: Result<BTreeMap<_, _>> = ended.stdout.lines().map(way).collect();
    let ways = ways.with_context(|| format!("{ended:?}"))?;
    assert_eq!(ways.len(), WAYS.len(), "{ended:?}");
    Ok((ways, ended))
}

#[test]
fn systemd_takes_nothing_out_of_a_fence() -> Result<()> {
    let machine = boot()?;
    let (without, ended) = ways(&machine, machine.command_as_user("env")?)?;
    for (way, _) in WAYS {
        assert!(
            without[way].starts_with(OUTSIDE),
            "control: {way}: {ended:?}"
        );
    }

    // The domain alone refuses the root directory of a process outside.
    let report = ["--on-leave", "report", "--allow-bus"];
    let open = [&report[..], &["--allow-foreign-netns"]].concat();
    for (options, is_closed) in [(&report[..], Some("proc-root")), (&open, None)] {
        let (allowed, ended) = ways(&machine, fenced(&machine, "allowed", options)?)?;
        for (way, _) in WAYS {
            let is_outside = allowed[way].starts_with(OUTSIDE);
            assert_eq!(is_outside, Some(way) != is_closed, "{way}: {ended:?}");
        }
    }

    let (inside, ended) = ways(&machine, fenced(&machine, "closed", &[])?)?;
    for (way, moves) in WAYS {
        let expected = if moves { "/qfence/closed" } else { "-" };
        assert_eq!(inside[way], expected, "{way}: {ended:?}");
    }
    assert!(!ended.stderr.contains("warning"), "{ended:?}");
    machine.end()
}

#[test]
fn whom_systemd_takes_out_is_killed() -> Result<()> {
    let machine = boot()?;
    let mut command = fenced(&machine, "leaving", &["--allow-bus"])?;
    command.arg("sh");
    let mut shell = Shell::start(command)?;
    let transient = "busctl --user call org.freedesktop.systemd1 /org/freedesktop/systemd1 \
                     org.freedesktop.systemd1.Manager StartTransientUnit 'ssa(sv)a(sa(sv))' \
                     left-$pid.scope fail 1 PIDs au 1 $pid 0";
    shell.ask("export XDG_RUNTIME_DIR=/run/user/$(id -u)")?;
    let mut pid = String::new();
    // The supervisor knows a process only once it has looked at it, so the first ones may get away.
    wait_until("a process that is moved is killed", || {
        let started = shell.ask("sleep 1000 > /dev/null 2>&1 & pid=$!; sleep 2; echo $pid")?;
        pid = started.into_iter().next().context("a number")?;
        shell.ask(&format!("{transient} 2>&1"))?;
        let alive = shell.ask("sleep 2; kill -9 $pid 2> /dev/null && echo alive; true")?;
        Ok(alive.is_empty())
    })?;
    wait_until("it is reported", || {
        let said = shell.stderr();
        Ok(said.contains(&format!("process {pid} (sleep"))
            && said.contains("has left the fence's cgroup")
            && said.contains("it was killed"))
    })?;
    // The command itself has not left.
    assert_eq!(
        shell.ask("sed -n s/^0:://p /proc/self/cgroup")?,
        ["/qfence/leaving"]
    );
    shell.close_input();
    shell.wait_for_code()?;
    machine.end()
}
