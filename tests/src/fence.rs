//! The fence under test: its executable, its unique name, and its log of refusals.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::{
    namespace::Namespace,
    probe::read_lines,
    reachable::{reachable, reachable_together},
    run::to_end,
    workspace::{self, Once},
};

/// The directory of the pins of fences.
const PINS: &str = "/sys/fs/bpf/qfence";

/// The directory of the descriptions of fences.
const STATE: &str = "/run/qfence";

/// The executable under test: `$QFENCE_BIN`, or the workspace's release build, copied to where every user can access
/// it.
pub fn qfence() -> Result<PathBuf> {
    static PROGRAM: Once<PathBuf> = Once::new();
    PROGRAM.get(|| {
        let program = built()?;
        reachable_together(&[&program, &verifier_of(&program)?])
    })
}

fn built() -> Result<PathBuf> {
    let built = workspace::root().join("target/release/qfence-user");
    let path = std::env::var_os("QFENCE_BIN").map_or(built, PathBuf::from);
    if !path.is_file() {
        bail!(
            "there is no {}: build it (`cargo xtask build --release`), or set QFENCE_BIN",
            path.display()
        );
    }
    Ok(path)
}

/// The variable with the path of another build of qfence-user, to which a benchmark compares the one under test.
pub const OTHER_BUILD: &str = "QFENCE_OTHER";

/// Another build of qfence-user, if there is one to compare with: `$QFENCE_OTHER`, copied to where every user can access
/// it.
pub fn other_build() -> Result<Option<PathBuf>> {
    std::env::var_os(OTHER_BUILD)
        .map(|path| reachable(Path::new(&path)))
        .transpose()
}

/// The executable in the same directory that makes probes.
pub fn verifier() -> Result<PathBuf> {
    verifier_of(&qfence()?)
}

fn verifier_of(program: &Path) -> Result<PathBuf> {
    let path = program.with_file_name("qfence-verify");
    if !path.is_file() {
        bail!(
            "there is no {}: it is built with qfence-user",
            path.display()
        );
    }
    Ok(path)
}

/// A fence's name that no other test uses, such as `t-label-4711-0`.
#[must_use]
pub fn unique_name(label: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("t-{label}-{}-{number}", std::process::id())
}

/// One line of the fence's log in JSON. Other fields are ignored.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Refusal {
    /// The time.
    pub time: String,
    /// The fence's name.
    pub fence: String,
    /// The verdict.
    pub verdict: String,
    /// The protocol; empty for a device.
    #[serde(default)]
    pub protocol: String,
    /// The destination's address; empty for a socket or a device.
    #[serde(default)]
    pub destination: String,
    /// The destination's port.
    #[serde(default)]
    pub port: u16,
    /// The type of a socket.
    #[serde(default)]
    pub socket: String,
    /// The path of a device.
    #[serde(default)]
    pub device: String,
    /// The name of a Unix socket.
    #[serde(default)]
    pub unix: String,
    /// The manager that has this name.
    #[serde(default)]
    pub manager: Option<String>,
    /// The local address that a socket was to be bound to.
    #[serde(default)]
    pub local: String,
    /// The local port.
    #[serde(default)]
    pub local_port: u16,
    /// The hook that recorded it.
    pub hook: String,
    /// `attempt`, or `repeats` for further attempts with the same key.
    pub kind: String,
    /// The number of attempts.
    pub count: u64,
    /// The process; 0 if it is unknown.
    #[serde(deserialize_with = "zero_for_null")]
    pub pid: u32,
    /// The process's name.
    pub command: String,
    /// The id of the process's cgroup.
    pub cgroup: u64,
    /// The rule that decided.
    pub rule: String,
}

/// The name and the log of a fence. Dropping it removes the fence if it still exists.
#[derive(Debug)]
pub struct Fence {
    program: PathBuf,
    name: String,
    arguments: Vec<String>,
    dir: tempfile::TempDir,
}

impl Fence {
    /// Chooses a name. The command of [`Self::launcher`] makes the fence itself.
    pub fn new(label: &str) -> Result<Self> {
        let program = qfence()?;
        let dir = tempfile::Builder::new().prefix("qfence-log-").tempdir()?;
        workspace::make_readable(dir.path())?;
        Ok(Self {
            program,
            name: unique_name(label),
            arguments: Vec::new(),
            dir,
        })
    }

    /// Has another build of qfence-user make the fence.
    #[must_use]
    pub fn by(mut self, program: PathBuf) -> Self {
        self.program = program;
        self
    }

    /// Adds options to `exec`, for example `--user nobody`.
    #[must_use]
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments
            .extend(arguments.iter().copied().map(str::to_owned));
        self
    }

    /// The fence's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The words to put before a command, to run it in the fence with a log in JSON.
    #[must_use]
    pub fn launcher(&self) -> Vec<String> {
        let (program, log) = (
            self.program.display().to_string(),
            self.log().display().to_string(),
        );
        let mut words = vec![program, "exec".into(), "--name".into(), self.name.clone()];
        words.extend(["--log".into(), log, "--log-format".into(), "json".into()]);
        words.extend_from_slice(&self.arguments);
        words.push("--".into());
        words
    }

    /// A command that runs `program` in the fence, in a network namespace.
    pub fn command(&self, namespace: &Namespace, program: impl AsRef<OsStr>) -> Command {
        let mut command = namespace.command(&self.program);
        command.args(&self.launcher()[1..]).arg(program);
        command
    }

    /// The path of the log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.dir.path().join("refusals.json")
    }

    /// All lines of the log so far.
    pub fn lines(&self) -> Result<Vec<Value>> {
        let log = self.log();
        let text = fs::read_to_string(&log).with_context(|| format!("read {}", log.display()))?;
        read_lines(&text)
    }

    /// The refusals so far.
    pub fn refusals(&self) -> Result<Vec<Refusal>> {
        read_refusals(&self.log())
    }

    /// Waits up to five seconds for a refusal in the log that `matches`: the log is written shortly after the refusal.
    pub fn await_refusal(&self, matches: impl Fn(&Refusal) -> bool) -> Result<Refusal> {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let refusals = self.refusals()?;
            if let Some(found) = refusals.iter().find(|refusal| matches(refusal)) {
                return Ok(found.clone());
            }
            if Instant::now() >= deadline {
                bail!("no such refusal in the log of {}: {refusals:#?}", self.name);
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whether the policy in force refuses calls to an address. Packets through loopback are refused in any case, which is
    /// not what this tells. `namespace` is that of the fence.
    pub fn is_refused(&self, namespace: &Namespace, address: &str) -> Result<bool> {
        let mut command = namespace.command(qfence()?);
        command.args(["explain", "--fence", self.name(), address]);
        let ended = to_end(command)?;
        ensure!(ended.code() == Some(0), "{ended:?}");
        Ok(!ended.stdout.contains("allow any"))
    }

    /// Whether any pin of the fence exists.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        Path::new(PINS).join(&self.name).exists()
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        let described = Path::new(STATE)
            .join(format!("{}.json", self.name))
            .exists();
        if self.is_pinned() || described {
            // A destructor cannot report an error.
            let _ = Command::new(&self.program)
                .args(["rm", &self.name])
                .output();
        }
    }
}

/// Reads a log in JSON. A missing file counts as empty, and an incomplete line is ignored.
pub fn read_refusals(log: &Path) -> Result<Vec<Refusal>> {
    let text = match fs::read_to_string(log) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        result => result.with_context(|| format!("read {}", log.display()))?,
    };
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole
        .lines()
        // Other lines have no verdict.
        .filter(|line| line.contains(r#""verdict":"#))
        .map(|line| serde_json::from_str(line).with_context(|| format!("unexpected: {line}")))
        .collect()
}

fn zero_for_null<'de, D: Deserializer<'de>>(number: D) -> Result<u32, D::Error> {
    Ok(Option::deserialize(number)?.unwrap_or_default())
}
