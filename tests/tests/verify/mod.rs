//! `verify` shows what a fence does, holds against it what it does not, and leaves nothing behind.

mod closures;
mod devices;
mod witness;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use closures::Closures;
use devices::Devices;
use nix::sys::signal::Signal;
use qfence_common::Hook;
use serde::Deserialize;
use tests::{
    fence::{qfence, verifier},
    namespace::{NOBODY, Namespace},
    private::Private,
    process::Process,
    run::{Ended, HANG, read_all, to_end, wait_until, without_sudo},
    workspace,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Report {
    holds: bool,
    kernel: String,
    attempts: Vec<Row>,
    must_work: Vec<Row>,
    devices: Devices,
    closures: Closures,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    attempt: String,
    without: String,
    with: String,
    layers: Vec<String>,
    errno: Option<String>,
    ms: f64,
    verdict: String,
}

impl Report {
    fn rows(&self) -> BTreeMap<&str, &Row> {
        let rows = self.attempts.iter().chain(&self.must_work);
        rows.map(|row| (row.attempt.as_str(), row)).collect()
    }
}

/// The kinds of attempt that every kernel has that qfence runs on.
const EVERYWHERE: [&str; 12] = [
    "tcp/127.0.0.1/8080",
    "tcp/::1/8080",
    "tcp/::ffff:192.0.2.10/8080",
    "udp/192.0.2.10/8080",
    "udp/::ffff:127.0.0.1/8080",
    "udp-connected/2001:db8:1::10/8080",
    "udp-sendmmsg/127.0.0.1/8080",
    "udp/192.0.2.255/8080",
    "ping/127.0.0.1",
    "ping/::1",
    "udp/198.51.100.7/8080+dev=lo",
    "udp/198.19.8.8/8080",
];

fn verify(mut command: Command, options: &[&str]) -> Result<(Ended, Report)> {
    command.arg("verify").arg("--json").args(options);
    let ended = to_end(command)?;
    let report = serde_json::from_str(&ended.stdout).with_context(|| format!("{ended:?}"))?;
    Ok((ended, report))
}

#[test]
fn every_class_is_stopped_here_and_all_that_must_works() -> Result<()> {
    let (ended, report) = verify(Command::new(qfence()?), &[])?;
    assert!(report.holds, "{report:#?}");
    assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""));
    assert!(!report.kernel.is_empty());
    closures::check(&report.closures)?;
    devices::check(&report.devices)?;
    let mut layers = BTreeSet::new();
    for row in &report.attempts {
        match row.verdict.as_str() {
            "stopped" => {
                assert!(
                    ["reached", "arrived"].contains(&row.without.as_str()),
                    "{row:?}"
                );
                assert_eq!(row.with, "nothing", "{row:?}");
                assert!(!row.layers.is_empty(), "{row:?}");
                layers.extend(row.layers.iter().map(String::as_str));
            }
            "untried" => {
                let why = row.without.as_str();
                assert!(["unsupported", "unprivileged"].contains(&why), "{row:?}");
                assert!(row.errno.is_some(), "{row:?}");
            }
            _ => panic!("{row:?}"),
        }
        assert!(row.ms.is_finite() && row.ms >= 0.0, "{row:?}");
    }
    let all = [
        "connect4",
        "connect6",
        "egress",
        "ingress",
        "sendmsg4",
        "sendmsg6",
        "sock_create",
    ];
    assert!(layers.is_superset(&BTreeSet::from(all)), "{layers:?}");
    let rows = report.rows();
    for attempt in ["ping/192.0.2.255+compat", "request_key, calling out"] {
        let row = rows[attempt];
        assert!(
            row.verdict == "untried" || row.layers == ["seccomp"],
            "{row:?}"
        );
    }
    for attempt in EVERYWHERE {
        assert_eq!(rows[attempt].verdict, "stopped", "{:?}", rows[attempt]);
    }
    for case in [
        "tcp/198.51.100.7/8080",
        "tcp/2001:db8:2::7/8080",
        "udp/198.51.100.7/8080",
        "ping/198.51.100.7",
        "ping/2001:db8:2::7",
        "udp/127.0.0.53/53",
        "tcp/127.0.0.53/53",
        "hostfwd tcp from 192.0.2.10",
        "hostfwd udp, connected from 127.0.0.1",
        "hostfwd udp, unconnected from ::1",
        "hostfwd udp, new socket from 192.0.2.10",
    ] {
        assert_eq!(rows[case].verdict, "works", "{:?}", rows[case]);
    }
    for address in ["127.0.0.1", "192.0.2.10", "::1", "2001:db8:1::10"] {
        let own = &rows[format!("own listener at {address}, --allow self").as_str()];
        assert_eq!(own.verdict, "works", "{own:?}");
        let of_host = &rows[format!("tcp/{address}/8080, --allow self").as_str()];
        assert_eq!(of_host.verdict, "stopped", "{of_host:?}");
    }
    Ok(())
}

#[test]
fn the_table_of_the_short_form_has_a_line_for_each() -> Result<()> {
    let (_, report) = verify(Command::new(qfence()?), &["--short"])?;
    let mut command = Command::new(qfence()?);
    command.args(["verify", "--short"]);
    let ended = to_end(command)?;
    assert_eq!(ended.code(), Some(0), "{}", ended.stdout);
    for row in report.attempts.iter().chain(&report.must_work) {
        let line = format!(" {}  ", row.attempt);
        let mut lines = ended.stdout.lines();
        let line = lines.find(|found| found.starts_with(&line));
        let line = line.with_context(|| format!("no {row:?} in {}", ended.stdout))?;
        assert!(line.ends_with(&row.verdict), "{line}");
    }
    assert!(
        ended.stdout.contains("\nThe fence holds: "),
        "{}",
        ended.stdout
    );
    Ok(())
}

/// `verify`, or `exec --verify`, on a host of its own, with a fence that stands.
struct Running {
    // Fields are dropped in order: the process ends before its host does.
    process: Process,
    host: Private,
    stdout: std::sync::mpsc::Receiver<std::io::Result<Vec<u8>>>,
    name: String,
}

impl Running {
    fn start(arguments: &[&str]) -> Result<Self> {
        let host = Private::new()?;
        let mut command = host.qfence()?;
        without_sudo(&mut command);
        command.args(arguments).stdout(Stdio::piped());
        command.stderr(Stdio::null());
        let mut process = Process::spawn(command)?;
        let stdout = process.child().stdout.take().context("a pipe")?;
        let mut name = None;
        wait_until("all programs are attached", || {
            // The fences before that one are those of the ways out that are no packets.
            let cgroups = host.left().unwrap_or_default();
            name = cgroups
                .iter()
                .filter_map(|path| path.file_name()?.to_str())
                .find(|name| name.starts_with("verify-"))
                .map(str::to_owned);
            let Some(name) = &name else { return Ok(false) };
            let mut hooks = Hook::ALL.into_iter();
            let last = hooks.rfind(|hook| !hook.row().is_optional);
            let last = last.context("a hook")?;
            let pin = pins(name).join(last.name());
            host.namespace().run(|| Ok(pin.exists()))
        })?;
        Ok(Self {
            host,
            process,
            stdout: read_all(stdout),
            name: name.context("a fence")?,
        })
    }

    /// Takes a layer away, as an administrator could.
    fn take_away(&self, hook: &str) -> Result<()> {
        let mut command = self.host.namespace().command("bpftool");
        command
            .args(["link", "detach", "pinned"])
            .arg(pins(&self.name).join(hook));
        let ended = to_end(command)?;
        ensure!(ended.code() == Some(0), "{ended:?}");
        Ok(())
    }

    fn end(&mut self) -> Result<(Option<i32>, String)> {
        let status = self.process.wait(HANG)?.context("it does not end")?;
        let stdout = self.stdout.recv_timeout(HANG)??;
        Ok((status.code(), String::from_utf8(stdout)?))
    }

    fn left(&self) -> Result<Vec<PathBuf>> {
        let mut left = self.host.left()?;
        left.extend(self.host.namespace().run(|| {
            let list = |path: &str| -> Result<Vec<PathBuf>> {
                let entries = fs::read_dir(path).with_context(|| path.to_owned())?;
                entries.map(|entry| Ok(entry?.path())).collect()
            };
            Ok([list("/sys/fs/bpf/qfence")?, list("/run/qfence")?].concat())
        })?);
        Ok(left)
    }
}

fn pins(name: &str) -> PathBuf {
    Path::new("/sys/fs/bpf/qfence").join(name)
}

#[test]
fn a_layer_that_is_missing_is_found_out() -> Result<()> {
    let mut running = Running::start(&["verify", "--json"])?;
    running.take_away("egress")?;
    let (code, stdout) = running.end()?;
    assert_eq!(code, Some(1), "{stdout}");
    let report: Report = serde_json::from_str(&stdout)?;
    assert!(!report.holds);
    let rows = report.rows();
    for passed in [
        "ping/127.0.0.1",
        "udp/198.51.100.7/8080+dev=lo",
        "tcp/198.19.7.7/8080",
    ] {
        assert_eq!(rows[passed].verdict, "passed", "{:?}", rows[passed]);
    }
    // The others are as they were.
    for stopped in [
        "tcp/127.0.0.1/8080",
        "udp/::1/8080",
        "udplite/127.0.0.1/8080",
    ] {
        assert_eq!(rows[stopped].verdict, "stopped", "{:?}", rows[stopped]);
    }
    assert!(running.left()?.is_empty(), "{:?}", running.left()?);
    Ok(())
}

#[test]
fn what_is_looped_back_to_groups_is_found_out() -> Result<()> {
    // The packet layer does not see these copies (nor does a packet socket).
    let mut running = Running::start(&["verify", "--json"])?;
    running.take_away("sendmsg4")?;
    let (code, stdout) = running.end()?;
    assert_eq!(code, Some(1), "{stdout}");
    let report: Report = serde_json::from_str(&stdout)?;
    let rows = report.rows();
    // Without the option to broadcast the kernel fails it: not by the fence's record.
    let broadcast = &rows["udp/192.0.2.255/8080"];
    assert_eq!(broadcast.verdict, "unproven", "{broadcast:?}");
    for passed in ["udp/224.0.0.1/8080", "udp/239.1.2.3/8080"] {
        assert_eq!(rows[passed].verdict, "passed", "{:?}", rows[passed]);
    }
    // Of two layers one is left.
    assert_eq!(rows["udp/127.0.0.1/8080"].layers, ["egress"]);
    assert_eq!(rows["udp/127.0.0.1/8080"].verdict, "stopped");
    Ok(())
}

#[test]
fn an_answer_to_the_host_that_is_refused_is_found_out() -> Result<()> {
    // It is here that who speaks first is remembered.
    let mut running = Running::start(&["verify", "--json", "--short"])?;
    running.take_away("ingress")?;
    let (code, stdout) = running.end()?;
    assert_eq!(code, Some(1), "{stdout}");
    let report: Report = serde_json::from_str(&stdout)?;
    let rows = report.rows();
    for broken in [
        "hostfwd udp, unconnected from 127.0.0.1",
        "hostfwd udp, connected from 192.0.2.10",
    ] {
        assert_eq!(rows[broken].verdict, "broken", "{:?}", rows[broken]);
        assert_eq!(rows[broken].without, "reached", "{:?}", rows[broken]);
    }
    assert_eq!(rows["hostfwd tcp from 127.0.0.1"].verdict, "works");
    Ok(())
}

#[test]
fn whoever_ends_it_early_finds_nothing_left() -> Result<()> {
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let mut running = Running::start(&["verify"])?;
        running.process.signal(signal)?;
        let ended = running.end()?;
        assert_eq!(ended, (Some(code), String::new()));
        assert!(running.left()?.is_empty(), "{:?}", running.left()?);
    }
    Ok(())
}

#[test]
fn what_a_killed_one_leaves_the_next_command_clears() -> Result<()> {
    let mut running = Running::start(&["verify"])?;
    running.process.signal(Signal::SIGKILL)?;
    assert_eq!(running.end()?.0, None);
    assert!(!running.left()?.is_empty(), "the control");
    // What it had running in the fence ends by itself.
    wait_until("ps has cleared it", || {
        let mut command = running.host.qfence()?;
        command.arg("ps");
        ensure!(to_end(command)?.code() == Some(0));
        Ok(running.left()?.is_empty())
    })
}

fn touch(file: &Path) -> [&str; 2] {
    ["touch", file.to_str().unwrap_or_default()]
}

#[test]
fn exec_starts_the_command_once_it_is_shown() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("touched");
    let mut command = Command::new(qfence()?);
    without_sudo(
        command
            .args(["exec", "--verify", "-v", "--"])
            .args(touch(&file)),
    );
    let ended = to_end(command)?;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert!(
        ended.stderr.contains("qfence: The fence holds: "),
        "{ended:?}"
    );
    assert!(file.exists());
    Ok(())
}

#[test]
fn exec_does_not_start_what_would_not_be_held() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("touched");
    let words = touch(&file);
    let mut running = Running::start(&["exec", "--verify", "--", words[0], words[1]])?;
    running.take_away("egress")?;
    let (code, stdout) = running.end()?;
    assert_eq!((code, stdout.as_str()), (Some(125), ""));
    assert!(!file.exists());
    assert!(running.left()?.is_empty(), "{:?}", running.left()?);
    Ok(())
}

#[test]
fn exec_does_not_start_where_nothing_can_be_shown() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("touched");
    // Enough for a fence, and too little for a private network.
    let exec = |options: &[&str]| -> Result<Ended> {
        let mut command = Command::new("setpriv");
        command
            .arg("--bounding-set=-sys_admin")
            .arg(qfence()?)
            .arg("exec");
        without_sudo(command.args(options).arg("--").args(touch(&file)));
        to_end(command)
    };
    let ended = exec(&["--verify"])?;
    assert_eq!(ended.code(), Some(125), "{ended:?}");
    assert!(ended.stderr.contains("CAP_SYS_ADMIN"), "{ended:?}");
    assert!(
        ended.stderr.contains("the command was not started"),
        "{ended:?}"
    );
    assert!(!file.exists());
    assert_eq!(exec(&[])?.code(), Some(0), "control");
    assert!(file.exists());
    Ok(())
}

#[test]
fn only_root_can() -> Result<()> {
    let dir = tempfile::tempdir()?;
    workspace::make_readable(dir.path())?;
    let program = dir.path().join("qfence-user");
    fs::copy(qfence()?, &program)?;
    let mut command = Namespace::new()?.command_as(NOBODY, &program);
    command.arg("verify");
    let ended = to_end(command)?;
    assert_eq!(ended.code(), Some(125), "{ended:?}");
    assert_eq!(
        ended.stderr,
        "qfence: error: this must be run as root: try `sudo qfence-user …`\n"
    );
    Ok(())
}

/// Whether a file has these bytes in it.
fn has(file: &Path, bytes: &str) -> Result<bool> {
    let content = fs::read(file)?;
    let bytes = bytes.as_bytes();
    Ok(content.windows(bytes.len()).any(|part| part == bytes))
}

#[test]
fn a_supervisor_has_no_probes_in_it() -> Result<()> {
    // A probe, an option of probes, and what is sent.
    for text in [
        "udp-sendmmsg/127.0.0.1/8080",
        "multicast-if",
        "qfence attempt: hello?",
    ] {
        assert!(has(&verifier()?, text)?, "control: {text}");
        assert!(!has(&qfence()?, text)?, "{text}");
    }
    Ok(())
}

/// `verify`, and `exec --verify`, which is not to start anything.
fn both(program: &Path) -> Result<[Ended; 2]> {
    let mut verify = Command::new(program);
    verify.args(["verify", "--short"]);
    let mut exec = Command::new(program);
    without_sudo(exec.args(["exec", "--verify", "--", "echo", "started"]));
    Ok([to_end(verify)?, to_end(exec)?])
}

#[test]
fn without_its_program_nothing_is_shown_and_nothing_started() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let program = dir.path().join("qfence-user");
    let beside = dir.path().join("qfence-verify");
    fs::copy(qfence()?, &program)?;
    let refused = |why: &str| -> Result<()> {
        for ended in both(&program)? {
            assert_eq!(ended.code(), Some(125), "{ended:?}");
            assert_eq!(ended.stdout, "", "{ended:?}");
            assert!(ended.stderr.contains(why), "{why}: {ended:?}");
        }
        Ok(())
    };
    refused(&format!(
        "qfence: error: cannot find {}, the program that makes the probes and is installed beside qfence-user: \
         `cargo xtask install` installs both",
        beside.display()
    ))?;
    // As somebody could put it into /tmp.
    fs::copy("/bin/true", &beside)?;
    chown(&beside, Some(NOBODY.uid), None)?;
    refused("root does not execute it")?;
    chown(&beside, Some(0), None)?;
    // Half of a copy. A shell would run it, to no effect.
    fs::write(&beside, "")?;
    refused("cannot ")?;
    // Whatever ends well, and shows nothing.
    fs::copy("/bin/true", &beside)?;
    let [_, exec] = both(&program)?;
    assert_eq!((exec.code(), exec.stdout.as_str()), (Some(125), ""));

    fs::copy(verifier()?, &beside)?;
    for (ended, shown) in both(&program)?
        .into_iter()
        .zip(["The fence holds: ", "started\n"])
    {
        assert_eq!(ended.code(), Some(0), "control: {ended:?}");
        assert!(ended.stdout.contains(shown), "control: {ended:?}");
    }
    Ok(())
}

#[test]
fn a_program_of_another_build_shows_nothing() -> Result<()> {
    let mut command = Command::new(verifier()?);
    command.args(["--build", "0.0.1-1-0", "--short"]);
    let ended = to_end(command)?;
    assert_eq!((ended.code(), ended.stdout.as_str()), (Some(125), ""));
    assert!(
        ended
            .stderr
            .starts_with("qfence: error: qfence-user is of another build (0.0.1-1-0)"),
        "{ended:?}"
    );
    Ok(())
}
