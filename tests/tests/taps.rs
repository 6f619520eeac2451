//! Tap devices of a QEMU: qfence opens a device that exists, fences it, and hands it over. The real QEMU shows that it takes
//! the descriptor, and an executable with the name of a QEMU which words and descriptors it gets.

use std::{
    fs,
    os::{fd::OwnedFd, unix::fs::PermissionsExt as _},
    path::PathBuf,
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use tests::{
    fence::{Fence, qfence},
    namespace::Namespace,
    probe, remains,
    run::{Ended, to_end, to_end_with_input, wait_until, without_sudo},
    shell::Shell,
    workspace,
};

const QEMU: &str = "qemu-system-x86_64";

/// The arguments of a QEMU that runs nothing, and has a monitor on its standard streams.
const BARE: [&str; 7] = [
    "-S",
    "-nodefaults",
    "-no-user-config",
    "-display",
    "none",
    "-monitor",
    "stdio",
];

/// Shows its words, the devices of its descriptors, and whether it may open the device of all taps.
const SHOW: &str = "#!/bin/bash
printf 'word %s\\n' \"$@\"
for fd in /proc/self/fd/*; do
    number=${fd##*/}
    device=$(sed -n 's/^iff:[[:space:]]*//p' /proc/$$/fdinfo/$number 2>/dev/null)
    if [ -n \"$device\" ]; then echo \"has $number $device\"; fi
done
if (exec 9<>/dev/net/tun) 2>/dev/null; then echo may open; else echo may not open; fi
";

/// An executable that is taken for a QEMU.
struct Shower {
    dir: tempfile::TempDir,
}

impl Shower {
    fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        workspace::make_readable(dir.path())?;
        let shower = Self { dir };
        fs::write(shower.path(), SHOW)?;
        fs::set_permissions(shower.path(), fs::Permissions::from_mode(0o755))?;
        Ok(shower)
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join(QEMU)
    }

    /// Starts it in a fence, with these options of `exec` and these arguments.
    fn run(
        &self,
        host: &Namespace,
        options: &[&str],
        arguments: &[&str],
    ) -> Result<(Ended, Fence)> {
        let fence = Fence::new("taps")?.with(&["--user", "root"]).with(options);
        let mut command = fence.command(host, self.path());
        command.args(arguments);
        Ok((to_end(command)?, fence))
    }

    /// What it shows; it has started and ended well, and nothing is left.
    fn shown(&self, host: &Namespace, options: &[&str], arguments: &[&str]) -> Result<String> {
        let (ended, fence) = self.run(host, options, arguments)?;
        ensure!(ended.code() == Some(0), "{arguments:?}: {ended:?}");
        remains::ensure_none(fence.name())?;
        Ok(ended.stdout)
    }

    /// The error with which it is refused. It did not start, and nothing is left.
    fn refusal(&self, host: &Namespace, options: &[&str], arguments: &[&str]) -> Result<String> {
        let (ended, fence) = self.run(host, options, arguments)?;
        ensure!(
            ended.code() == Some(125),
            "{options:?} {arguments:?}: {ended:?}"
        );
        ensure!(ended.stdout.is_empty(), "it ran: {ended:?}");
        remains::ensure_none(fence.name())?;
        let mut lines = ended.stderr.lines();
        let error = lines.find(|line| line.starts_with("qfence: error: "));
        Ok(error.with_context(|| ended.stderr.clone())?.to_owned())
    }
}

/// A host with a tap device for one queue, one for several, and a bridge.
fn host() -> Result<Namespace> {
    let host = Namespace::new()?;
    for arguments in [
        "tuntap add tap0 mode tap",
        "link set tap0 up",
        "tuntap add tap1 mode tap multi_queue",
        "link set tap1 up",
        "tuntap add other mode tap",
        "link add br0 type bridge",
        "link set br0 up",
        "link add v0 type veth peer name v1",
    ] {
        host.ip(arguments)?;
    }
    Ok(host)
}

/// The only line with this beginning, without it.
fn line<'a>(shown: &'a str, start: &str) -> Result<&'a str> {
    let mut lines = shown.lines().filter_map(|line| line.strip_prefix(start));
    let found = lines
        .next()
        .with_context(|| format!("no {start:?}: {shown}"))?;
    ensure!(lines.next().is_none(), "several {start:?}: {shown}");
    Ok(found)
}

#[test]
fn a_tap_is_opened_and_handed_over() -> Result<()> {
    let (host, shower) = (host()?, Shower::new()?);
    let by_name = "tap,id=n,ifname=tap0,script=no,downscript=no";
    for (option, value, rest) in [
        ("-netdev", by_name, "type=tap,id=n,fd="),
        (
            "-nic",
            "tap,ifname=tap0,script=no,downscript=no",
            "type=tap,fd=",
        ),
    ] {
        let shown = shower.shown(&host, &[], &[option, value])?;
        let descriptor = line(&shown, &format!("word {rest}"))?;
        let has = line(&shown, "has ")?;
        ensure!(has == format!("{descriptor} tap0"), "{shown}");
        // Another tap of the same user stays out of reach.
        ensure!(shown.contains("may not open"), "{shown}");
    }
    let mut unfenced = host.command(shower.path());
    let unfenced = probe::output(&mut unfenced)?;
    ensure!(unfenced.ends_with("may open\n"), "control: {unfenced}");
    // It was closed: the next process can have it.
    shower.shown(&host, &[], &["-netdev", by_name])?;
    Ok(())
}

#[test]
fn each_queue_and_each_device_has_a_descriptor() -> Result<()> {
    let (host, shower) = (host()?, Shower::new()?);
    let several = "tap,id=a,ifname=tap1,script=no,downscript=no,queues=3";
    let one = r#"{"type":"tap","id":"b","ifname":"tap0","script":"no","downscript":"no"}"#;
    let shown = shower.shown(&host, &[], &["-netdev", several, "-netdev", one])?;
    let of = |device: &str| -> Vec<&str> {
        let has = shown.lines().filter_map(|line| line.strip_prefix("has "));
        has.filter_map(|line| line.strip_suffix(device)).collect()
    };
    ensure!((of(" tap1").len(), of(" tap0").len()) == (3, 1), "{shown}");
    let mut listed: Vec<_> = line(&shown, "word type=tap,id=a,fds=")?
        .split(':')
        .collect();
    listed.sort_unstable();
    let mut had = of(" tap1");
    had.sort_unstable();
    ensure!(listed == had, "{shown}");
    let json = format!(r#"{{"fd":"{}","id":"b","type":"tap"}}"#, of(" tap0")[0]);
    ensure!(shown.contains(&json), "{shown}");
    Ok(())
}

#[test]
fn qemu_takes_the_descriptor() -> Result<()> {
    let host = host()?;
    for (value, count) in [
        ("tap,id=n,ifname=tap0,script=no,downscript=no", 1),
        ("tap,id=n,ifname=tap1,script=no,downscript=no,queues=2", 2),
    ] {
        let fence = Fence::new("taps")?;
        let mut command = fence.command(&host, QEMU);
        command.args(BARE).args(["-netdev", value]);
        without_sudo(&mut command);
        let ended = to_end_with_input(command, b"info network\nquit\n")?;
        ensure!(ended.code() == Some(0), "{ended:?}");
        let taps = ended.stdout.matches("type=tap,fd=").count();
        ensure!(taps == count, "{ended:?}");
        remains::ensure_none(fence.name())?;
    }
    Ok(())
}

#[test]
fn what_cannot_be_handed_over_is_refused_with_what_to_do() -> Result<()> {
    let (host, shower) = (host()?, Shower::new()?);
    let named = |name: &str| format!("tap,id=n,ifname={name},script=no,downscript=no");
    for (name, why, instead) in [
        (
            "tap7",
            "there is no network device tap7",
            "ip tuntap add tap7",
        ),
        ("tap7", "there is no network device tap7", "--tap tap7"),
        ("v0", "v0 is a veth device", "no tap device"),
        ("br0", "br0 is a bridge", "no tap device"),
        ("tap1", "cannot open the tap device tap1", "give queues="),
    ] {
        let error = shower.refusal(&host, &[], &["-netdev", &named(name)])?;
        ensure!(error.contains(why) && error.contains(instead), "{error}");
    }
    let several = format!("{},queues=2", named("tap0"));
    let error = shower.refusal(&host, &[], &["-netdev", &several])?;
    ensure!(error.contains("multi_queue"), "{error}");
    let twice = named("tap0");
    let error = shower.refusal(&host, &[], &["-netdev", &twice, "-netdev", &twice])?;
    ensure!(error.contains("tap0 twice"), "{error}");
    for (device, why) in [
        ("lo", "lo is the loopback device: "),
        ("br0", "br0 is a bridge: "),
        ("tap7", "there is no network device tap7"),
    ] {
        let error = shower.refusal(&host, &["--device", device], &[])?;
        ensure!(error.contains(why), "{error}");
    }
    for (tap, why) in [
        (
            "tap7",
            "the command is no QEMU with -netdev tap,ifname=tap7",
        ),
        ("tap7,bridge=br0", "the command is no QEMU"),
    ] {
        let error = shower.refusal(&host, &["--tap", tap], &[])?;
        ensure!(error.contains(why), "{error}");
    }
    let error = shower.refusal(&host, &["--tap", "tap0"], &["-netdev", &named("tap0")])?;
    ensure!(
        error.contains("a network device of this name already"),
        "{error}"
    );
    let no_bridge = ["--tap", "tap7,bridge=v0"];
    let error = shower.refusal(&host, &no_bridge, &["-netdev", &named("tap7")])?;
    ensure!(
        error.contains("v0 is a veth device, and no bridge"),
        "{error}"
    );
    ensure!(!host.ip("-br link")?.contains("tap7"), "it was left");
    let both = ["--tap", "tap7", "--allow-unfenced-net"];
    let error = shower.refusal(&host, &both, &["-netdev", &named("tap7")])?;
    ensure!(error.contains("remove one of them"), "{error}");
    Ok(())
}

#[test]
fn a_device_is_made_for_the_command_and_ends_with_it() -> Result<()> {
    let (host, shower) = (host()?, Shower::new()?);
    fs::write(shower.path(), format!("{SHOW}sleep 1000\n"))?;
    let value = "tap,id=n,ifname=tap7,script=no,downscript=no,queues=2";
    for ending in ["rm", "kill"] {
        let fence = Fence::new("taps")?.with(&["--user", "root", "--tap", "tap7,bridge=br0"]);
        let mut command = fence.command(&host, shower.path());
        command.args(["-netdev", value]);
        let mut running = command.stdout(std::process::Stdio::null()).spawn()?;
        wait_until("the device is up and in the bridge", || {
            let shown = host.ip("link show dev tap7").unwrap_or_default();
            Ok(shown.contains("master br0") && shown.contains(",UP"))
        })?;
        if ending == "kill" {
            running.kill()?;
        }
        let mut rm = host.command(qfence()?);
        probe::output(rm.args(["rm", "--time", "0", fence.name()]))?;
        running.wait()?;
        remains::ensure_none(fence.name())?;
        wait_until("the device is gone", || {
            Ok(host.ip("link show dev tap7").is_err())
        })?;
    }
    Ok(())
}

/// Takes the descriptor of a device out of a process of a fence.
fn take_descriptor(host: &Namespace, fence: &Fence, device: &str) -> Result<OwnedFd> {
    let mut ps = host.command(qfence()?);
    let listed: Vec<serde_json::Value> =
        serde_json::from_str(&probe::output(ps.args(["ps", "--json"]))?)?;
    let row = listed.iter().find(|row| row["name"] == fence.name());
    let pids = row.and_then(|row| row["pids"].as_array());
    for pid in pids.context("ps does not list it")? {
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else {
            continue;
        };
        for descriptor in descriptors.flatten() {
            let shown = fs::read_to_string(descriptor.path()).unwrap_or_default();
            let mut lines = shown.lines();
            if !lines.any(|line| line == format!("iff:\t{device}")) {
                continue;
            }
            let pid = i32::try_from(pid.as_i64().context("a number")?)?;
            let pid = Pid::from_raw(pid).context("a process")?;
            let number = descriptor.file_name().to_string_lossy().parse()?;
            let process = pidfd_open(pid, PidfdFlags::empty())?;
            return Ok(pidfd_getfd(process, number, PidfdGetfdFlags::empty())?);
        }
    }
    bail!("nobody has {device}: {row:?}")
}

/// Somebody outside has the device's descriptor, and it would be unfenced.
#[test]
fn a_device_that_was_made_ends_although_somebody_has_its_descriptor() -> Result<()> {
    let (host, shower) = (host()?, Shower::new()?);
    fs::write(shower.path(), format!("{SHOW}sleep 1000\n"))?;
    let value = "tap,id=n,ifname=tap7,script=no,downscript=no";
    for ending in ["rm", "kill"] {
        let fence = Fence::new("taps")?.with(&["--user", "root", "--tap", "tap7,bridge=br0"]);
        let mut command = fence.command(&host, shower.path());
        command.args(["-netdev", value]);
        let mut running = command.stdout(std::process::Stdio::null()).spawn()?;
        let mut taken = None;
        wait_until("the command has the device", || {
            taken = take_descriptor(&host, &fence, "tap7").ok();
            Ok(taken.is_some())
        })?;
        let is_there = |host: &Namespace| host.ip("link show dev tap7").is_ok();
        ensure!(is_there(&host), "control");
        if ending == "kill" {
            running.kill()?;
        }
        let mut rm = host.command(qfence()?);
        probe::output(rm.args(["rm", "--time", "0", fence.name()]))?;
        running.wait()?;
        ensure!(!is_there(&host), "{ending}: the device is left");
        remains::ensure_none(fence.name())?;
        drop(taken);
    }
    Ok(())
}

/// Two fences cannot judge the guest of one device.
#[test]
fn a_device_is_of_one_fence() -> Result<()> {
    let (host, shower) = (host()?, Shower::new()?);
    let first = Fence::new("taps")?.with(&["--user", "root", "--device", "v0"]);
    let mut shell = Shell::start(first.command(&host, "sh"))?;
    shell.pid()?;
    let mut ps = host.command(qfence()?);
    let listed = probe::output(ps.args(["ps", "--json"]))?;
    ensure!(listed.contains("\"devices\":[\"v0\"]"), "{listed}");
    let error = shower.refusal(&host, &["--device", "v0"], &[])?;
    let theirs = format!("v0 is of the fence {} already", first.name());
    ensure!(error.contains(&theirs), "{error}");
    shell.close_input();
    ensure!(shell.wait_for_code()? == 0, "{}", shell.stderr());
    shower.shown(&host, &["--device", "v0"], &[])?;
    Ok(())
}

/// A device that goes, or comes back, is no damage; one whose programs were detached is fenced again.
#[test]
fn a_device_that_comes_back_is_fenced_again() -> Result<()> {
    let host = host()?;
    let fence =
        Fence::new("taps")?.with(&["--user", "root", "--device", "other", "--on-damage", "kill"]);
    let mut shell = Shell::start(fence.command(&host, "sh"))?;
    shell.pid()?;
    let said = |shell: &Shell, words: &str| {
        wait_until(words, || Ok(shell.stderr().contains(words))).with_context(|| shell.stderr())
    };
    host.ip("link del other")?;
    said(&shell, "the network device other is gone")?;
    host.ip("tuntap add other mode tap")?;
    said(
        &shell,
        "the network device other was made anew, and is fenced again",
    )?;
    // As fast as it can be done.
    for _ in 0..5 {
        host.ip("link del other")?;
        host.ip("tuntap add other mode tap")?;
    }
    wait_until("the last one is fenced", || {
        let mut ps = host.command(qfence()?);
        Ok(!probe::output(ps.arg("ps"))?.contains("UNFENCED"))
    })?;
    ensure!(!shell.stderr().contains("NOT FENCED"), "{}", shell.stderr());
    shell.close_input();
    ensure!(shell.wait_for_code()? == 0, "{}", shell.stderr());
    remains::ensure_none(fence.name())
}

/// The description of the fence is written anew with a device. Readers after the supervisor know the QEMU by it.
#[test]
fn a_device_that_comes_back_leaves_the_qemu_described() -> Result<()> {
    let host = host()?;
    let shower = Shower::new()?;
    fs::copy("/bin/sh", shower.path())?;
    let fence = Fence::new("taps")?.with(&["--user", "root", "--device", "other"]);
    let mut shell = Shell::start(fence.command(&host, shower.path()))?;
    let pid = shell.pid()?;
    let ensure_described = || {
        let path = format!("/run/qfence/{}.json", fence.name());
        let described: serde_json::Value = serde_json::from_slice(&fs::read(path)?)?;
        let described_pid = described["qemu"]["process"]["pid"].as_i64();
        ensure!(described_pid == Some(pid.into()), "{described}");
        Ok(described["devices"].to_string())
    };
    let before = ensure_described()?;
    host.ip("link del other")?;
    host.ip("tuntap add other mode tap")?;
    wait_until("the device is described anew", || {
        Ok(ensure_described()? != before)
    })?;
    shell.close_input();
    ensure!(shell.wait_for_code()? == 0, "{}", shell.stderr());
    remains::ensure_none(fence.name())
}
