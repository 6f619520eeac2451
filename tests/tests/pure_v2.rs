//! Another kind of host: Debian's kernel 6.1 with cgroup v2 alone, and controllers in it. qfence runs
//! inside a guest, which is the host here; the machine around it is its internet.

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result};
use qfence_user::probe::{Ending, ProbeResult, Step};
use tests::{
    fence::{qfence, verifier},
    guest::{Guest, Options},
    listener::Listeners,
    probe::read_lines,
    workspace,
    world::World,
};

const PORT: u16 = 8080;
/// The modules of L2TP over IP, each after those that it needs.
const L2TP: [&str; 4] = ["udp_tunnel", "ip6_udp_tunnel", "l2tp_core", "l2tp_ip"];
const NO_FENCE: [&str; 0] = [];

/// qfence, and the libraries that it is linked with, by the paths that it looks for them at.
fn files() -> Result<Vec<(String, PathBuf)>> {
    let qfence = qfence()?;
    let libraries = Command::new("ldd")
        .arg(&qfence)
        .output()
        .context("run ldd")?;
    let libraries = String::from_utf8(libraries.stdout)?;
    let paths = libraries
        .split_whitespace()
        .filter(|word| word.starts_with('/'));
    let mut files: Vec<_> = paths.map(|path| (path.to_owned(), path.into())).collect();
    assert!(!files.is_empty(), "{libraries}");
    files.push(("/bin/qfence-user".into(), qfence));
    // Of the same package, and so with the same libraries.
    files.push(("/bin/qfence-verify".into(), verifier()?));
    Ok(files)
}

/// A machine with cgroup v2, a service on it, qfence and L2TP, which other machines load on demand.
fn host(world: &World) -> Result<Guest> {
    let mut files = files()?;
    for module in L2TP {
        let here = workspace::guest_dir()?.join(format!("kernel/{module}.ko"));
        files.push((format!("/lib/modules/{module}.ko"), here));
    }
    let options = Options {
        files,
        ..Options::default()
    };
    let mut host = Guest::boot(world, &NO_FENCE, &options)?;
    host.shell("mount -t cgroup2 cgroup2 /sys/fs/cgroup && echo 0 > /proc/sys/kernel/printk")?;
    for module in L2TP {
        host.shell(&format!("insmod /lib/modules/{module}.ko"))?;
    }
    host.serve(&[&format!("tcp/{PORT}"), &format!("udp/{PORT}")])?;
    Ok(host)
}

fn outcomes(host: &mut Guest, command: &str) -> Result<Vec<ProbeResult>> {
    read_lines(&host.shell(command)?)
}

#[test]
fn a_host_with_cgroup_v2_alone_is_fenced_off_and_its_limits_hold() -> Result<()> {
    let world = World::new()?;
    let internet = Listeners::everywhere(&world.internet, PORT)?;
    let mut host = host(&world)?;

    let attempts = format!(
        "tcp/127.0.0.1/{PORT} udp/127.0.0.1/{PORT} tcp/10.0.2.15/{PORT} tcp/fec0::15/{PORT} \
         udp/::1/{PORT}"
    );
    for outcome in outcomes(&mut host, &format!("probe {attempts}"))? {
        assert!(outcome.is_reached(), "control: {outcome:?}");
    }
    // Linux 6.1 has no domain that keeps a command from joining namespaces, which is warned of.
    let exec = "qfence-user exec --name v2 --user 65534:65534 --log /tmp/log --allow-foreign-netns";
    // Nothing has mounted bpffs here; once it is mounted, that is not said again. (The guest's line is
    // in raw mode, where a line of qfence's begins afresh.)
    let said = host.shell(&format!("{exec} -- sleep 0"))?;
    assert_eq!(said.trim(), "qfence: mounted bpffs, which was not there");
    assert_eq!(host.shell(&format!("{exec} -- sleep 0"))?, "");
    for outcome in outcomes(&mut host, &format!("{exec} -- probe {attempts}"))? {
        assert!(outcome.failed_with("ECONNREFUSED"), "{outcome:?}");
    }
    let log = host.shell("cat /tmp/log")?;
    assert_eq!(log.matches(" v2 denied ").count(), 5, "{log}");

    // To an address of its own, and as a broadcast, of which the kernel copies before egress.
    let l2tp = "qfence-verify probe --timeout-ms 100 l2tp/10.0.2.15 l2tp/10.0.2.255";
    for outcome in read_lines::<ProbeResult>(&host.shell(l2tp)?)? {
        assert_eq!(outcome.ending, Ending::Sent, "control: {outcome:?}");
    }
    for outcome in read_lines::<ProbeResult>(&host.shell(&format!("{exec} -- {l2tp}"))?)? {
        assert!(outcome.failed_at(Step::Socket, "EPERM"), "{outcome:?}");
    }
    let log = host.shell("cat /tmp/log")?;
    assert_eq!(
        log.matches(" v2 denied l2tp dgram socket ").count(),
        2,
        "{log}"
    );

    let abroad =
        format!("tcp/198.51.100.7/{PORT} udp/198.51.100.7/{PORT} tcp/2001:db8:2::7/{PORT}");
    for outcome in outcomes(&mut host, &format!("{exec} -- probe {abroad}"))? {
        assert!(outcome.says("hello from"), "{outcome:?}");
    }
    assert_eq!(internet.arrivals().len(), 3);

    let limits = "--memory-max 64M --cpu-max 50% --pids-max 20";
    let read = "cd /sys/fs/cgroup/qfence/v2 && cat memory.max cpu.max pids.max";
    let said = host.shell(&format!("{exec} {limits} -- sh -c '{read}'"))?;
    assert_eq!(said, "67108864\n50000 100000\n20");
    // And they are more than files: the 21st process cannot be made.
    let forks = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 5 & done; echo made them all";
    let said = host.shell(&format!(
        "{exec} --pids-max 10 -- sh -c '{forks}' 2>&1 || true"
    ))?;
    assert!(!said.contains("made them all"), "{said}");

    let left = host.shell(
        "ls -d /sys/fs/cgroup/qfence/v2 /sys/fs/bpf/qfence/v2 /run/qfence/v2.json 2>&1 || true",
    )?;
    assert_eq!(left.matches("No such file").count(), 3, "{left}");
    Ok(())
}
