//! An upgrade replaces the program under a running fence: as long as the command runs, its supervisor continues, everything is
//! enforced, and every attempt is counted. A package manager writes a file beside the old one and renames it.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{ChildStdin, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use qfence_common::abi::VERSION;
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;
use tests::{
    fence::{qfence, read_refusals, unique_name},
    private::Private,
    process::Process,
    run::{Ended, HANG, to_end, wait_until, without_sudo},
    workspace::make_readable,
};

use crate::{
    dead_man::dead_men,
    versions::{OTHER, of_another_version},
};

/// Connects to a port that is denied and to one that is allowed, again and again, and counts. It answers to lines on its input.
const LOAD: &str = r#"
import json, socket, sys, threading, time
denied, allowed = int(sys.argv[1]), int(sys.argv[2])
counts = {"refused": 0, "passed": 0, "reached": 0, "failed": 0}
stop = threading.Event()

def connects(port):
    with socket.socket() as one:
        try:
            one.connect(("127.0.0.1", port))
            return True
        except OSError:
            return False

def work():
    while not stop.is_set():
        counts["passed" if connects(denied) else "refused"] += 1
        counts["reached" if connects(allowed) else "failed"] += 1
        time.sleep(0.001)

worker = threading.Thread(target=work)
worker.start()
for line in sys.stdin:
    word = line.split()
    if word[0] == "try":
        print(json.dumps(connects(int(word[1]))), flush=True)
        continue
    if word[0] == "stop":
        stop.set()
        worker.join()
    print(json.dumps(counts), flush=True)
stop.set()
"#;

/// What the load has counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
struct Counts {
    /// Connections to the denied port that were refused, and that were not.
    refused: u64,
    passed: u64,
    /// Connections to the allowed port that were made, and that were not.
    reached: u64,
    failed: u64,
}

/// A port of the host, and the number of connections to it.
struct Port {
    number: u16,
    connections: Arc<AtomicU64>,
}

impl Port {
    fn new(host: &Private) -> Result<Self> {
        let listener = host
            .namespace()
            .run(|| Ok(TcpListener::bind("127.0.0.1:0")?))?;
        let number = listener.local_addr()?.port();
        let connections = Arc::<AtomicU64>::default();
        let count = Arc::clone(&connections);
        // It ends with the test.
        thread::spawn(move || {
            for _connection in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        Ok(Self {
            number,
            connections,
        })
    }

    fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }
}

/// qfence, as if it were installed by a package.
struct Installed {
    host: Private,
    directory: TempDir,
}

impl Installed {
    fn new() -> Result<Self> {
        let host = Private::new()?;
        host.namespace().ip("link set lo up")?;
        let directory = tempfile::Builder::new()
            .prefix("qfence-upgrade-")
            .tempdir()?;
        make_readable(directory.path())?;
        let installed = Self { host, directory };
        installed.install(&fs::read(qfence()?)?)?;
        Ok(installed)
    }

    fn program(&self) -> PathBuf {
        self.directory.path().join("qfence-user")
    }

    /// Replaces the program as dpkg and rpm do.
    fn install(&self, bytes: &[u8]) -> Result<()> {
        let partial = self.directory.path().join("qfence-user.dpkg-new");
        fs::write(&partial, bytes)?;
        fs::set_permissions(&partial, fs::Permissions::from_mode(0o755))?;
        Ok(fs::rename(partial, self.program())?)
    }

    /// Runs a program on the host.
    fn run(&self, program: &Path, words: &[&str]) -> Result<Ended> {
        let mut command = self.host.namespace().command(program);
        command.args(words);
        without_sudo(&mut command);
        to_end(command)
    }

    /// Runs the installed program, which must succeed.
    fn qfence(&self, words: &[&str]) -> Result<Ended> {
        let ended = self.run(&self.program(), words)?;
        assert_eq!(ended.code(), Some(0), "{words:?}: {ended:?}");
        Ok(ended)
    }

    /// The fence in the list of a program.
    fn row(&self, program: &Path, name: &str) -> Result<Value> {
        let listed = self.run(program, &["ps", "--json"])?;
        let rows: Vec<Value> =
            serde_json::from_str(&listed.stdout).with_context(|| format!("{listed:?}"))?;
        let mut rows = rows.into_iter();
        rows.find(|row| row["name"] == name).context("it is listed")
    }
}

/// The load in a fence.
struct Load {
    process: Process,
    stdin: Option<ChildStdin>,
    lines: mpsc::Receiver<String>,
}

impl Load {
    fn start(mut command: Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        without_sudo(&mut command);
        let mut process = Process::spawn(command)?;
        let stdin = process.child().stdin.take();
        let stdout = process.child().stdout.take().context("a pipe")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            lines.map(|line| sender.send(line)).find(Result::is_err)
        });
        Ok(Self {
            process,
            stdin,
            lines,
        })
    }

    fn ask<'a, T: Deserialize<'a>>(&mut self, line: &str, answer: &'a mut String) -> Result<T> {
        let stdin = self.stdin.as_mut().context("its input is open")?;
        writeln!(stdin, "{line}")?;
        *answer = self.lines.recv_timeout(HANG).context("no answer")?;
        serde_json::from_str(answer).with_context(|| format!("{line}: {answer}"))
    }

    fn counts(&mut self) -> Result<Counts> {
        self.ask("count", &mut String::new())
    }

    /// Waits until it has gone on, and checks that only what is allowed was reached.
    fn continues(&mut self) -> Result<()> {
        let before = self.counts()?;
        wait_until("the load continues", || {
            let now = self.counts()?;
            ensure!((now.passed, now.failed) == (0, 0), "{now:?}");
            Ok(now.refused >= before.refused + 20 && now.reached >= before.reached + 20)
        })
    }

    fn reaches(&mut self, port: &Port) -> Result<bool> {
        self.ask(&format!("try {}", port.number), &mut String::new())
    }
}

fn executable(pid: u32) -> Result<String> {
    Ok(fs::read_link(format!("/proc/{pid}/exe"))?
        .display()
        .to_string())
}

#[test]
fn fences_go_on_and_nothing_is_lost_while_the_program_is_replaced() -> Result<()> {
    let installed = Installed::new()?;
    let [denied, allowed, later] = [0, 1, 2].map(|_| Port::new(&installed.host));
    let (denied, allowed, later) = (denied?, allowed?, later?);
    let name = unique_name("upgrade");
    let log = installed.directory.path().join("log.json");
    let script = installed.directory.path().join("load.py");
    fs::write(&script, LOAD)?;

    let mut command = installed.host.namespace().command(installed.program());
    command.args([
        "exec",
        "--name",
        &name,
        "--user",
        "nobody",
        "--die-with-supervisor",
    ]);
    command.args(["--allow", &format!("tcp:127.0.0.1:{}", allowed.number)]);
    command
        .arg("--log")
        .arg(&log)
        .args(["--log-format", "json", "--", "python3"]);
    command
        .arg(&script)
        .args([denied.number.to_string(), allowed.number.to_string()]);
    let mut load = Load::start(command)?;
    load.continues()?;
    let supervisor = load.process.id();
    let path = installed.program().display().to_string();
    assert_eq!(executable(supervisor)?, path);

    // A version with the same ABI knows the fence.
    installed.install(&fs::read(qfence()?)?)?;
    assert_eq!(executable(supervisor)?, format!("{path} (deleted)"));
    load.continues()?;
    let row = installed.row(&installed.program(), &name)?;
    assert_eq!(
        (&row["state"], &row["abi"]),
        (&"running".into(), &VERSION.into())
    );
    assert!(!load.reaches(&later)?);
    let rule = format!("tcp:127.0.0.1:{}", later.number);
    installed.qfence(&["set", &name, "--allow", &rule])?;
    assert!(load.reaches(&later)?);
    wait_until("the new program reads the record", || {
        let lines = installed.qfence(&["logs", &name])?;
        Ok(lines.stdout.contains("deny host"))
    })?;
    // What the supervisor starts later is the program that it is.
    let [watcher] = dead_men(&name)?[..] else {
        anyhow::bail!("not one process watches");
    };
    tests::process::signal(watcher, Signal::SIGKILL)?;
    let mut others = Vec::new();
    wait_until("there is another", || {
        others = dead_men(&name)?;
        others.retain(|pid| *pid != watcher);
        Ok(others.len() == 1)
    })?;
    assert_eq!(executable(others[0])?, format!("{path} (deleted)"));

    // A version with another ABI leaves the fence alone.
    installed.install(&of_another_version(&qfence()?)?)?;
    load.continues()?;
    let row = installed.row(&installed.program(), &name)?;
    assert_eq!(
        (&row["state"], &row["abi"]),
        (&"incompatible".into(), &VERSION.into())
    );
    let refused = installed.run(&installed.program(), &["rm", &name])?;
    assert_eq!(refused.code(), Some(125), "{refused:?}");
    assert!(
        refused.stderr.contains(&format!("this is ABI {OTHER}")),
        "{refused:?}"
    );
    load.continues()?;

    // The load, the ports, the kernel's counters and the record agree. The load made one more attempt by `reaches`.
    let counts: Counts = load.ask("stop", &mut String::new())?;
    assert_eq!((counts.passed, counts.failed), (0, 0));
    let row = installed.row(&qfence()?, &name)?;
    assert_eq!(row["attempts"]["refused"], counts.refused + 1, "{row}");
    assert_eq!(row["attempts"]["lost"], 0, "{row}");
    load.stdin = None;
    let status = load.process.wait(HANG)?.context("it ends")?;
    assert!(status.success(), "{status}");
    let recorded: u64 = read_refusals(&log)?.iter().map(|line| line.count).sum();
    assert_eq!(recorded, counts.refused + 1);
    wait_until("the connections are accepted", || {
        Ok(allowed.connections() == counts.reached && later.connections() == 1)
    })?;
    assert_eq!(denied.connections(), 0);
    assert_eq!(installed.host.left()?, Vec::<PathBuf>::new());
    // The control: without the fence the port is reached.
    let reach = format!(
        "import socket; socket.create_connection(('127.0.0.1', {}))",
        denied.number
    );
    let reached = installed.run(Path::new("python3"), &["-c", &reach])?;
    assert_eq!(reached.code(), Some(0), "{reached:?}");
    wait_until("the port is reached", || Ok(denied.connections() == 1))
}
