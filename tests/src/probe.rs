//! The executable `probe`: a small static program that makes probes in the syntax of `qfence-verify probe`, in a guest
//! or on the host. It also makes traffic, lasting connections, and system calls that are not probes. This module builds
//! and runs it, and parses its output.

use std::{
    collections::BTreeMap,
    env, fs,
    path::PathBuf,
    process::{Command, Output},
};

use anyhow::{Context as _, Result, bail, ensure};
pub use qfence_user::probe::{Ending, HELLO, ProbeResult, Step};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    namespace::{Namespace, User},
    reachable::reachable,
    shell::Shell,
    workspace::{self, Once},
};

/// The ending of a connection that was not refused, in the summaries of `probe --connect-each FILE`.
pub const CONNECTED: &str = "connected";

/// The summary of `probe --flood N ATTEMPT`, and of each line of `probe --connect-each FILE`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flood {
    /// The attempt that was repeated.
    pub attempt: String,
    /// The number of repetitions.
    pub count: u64,
    /// The duration of all repetitions, in milliseconds.
    pub ms: f64,
    /// The number of repetitions per ending: `reached`, `sent`, `timeout`, [`CONNECTED`], or the name of an error.
    pub endings: BTreeMap<String, u64>,
}

impl Flood {
    /// The number of repetitions with this ending.
    #[must_use]
    pub fn ended(&self, ending: &str) -> u64 {
        self.endings.get(ending).copied().unwrap_or(0)
    }
}

/// The line of `probe --load KIND/ADDRESS/PORT`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// The traffic, as it was given.
    pub load: String,
    /// The amount of traffic: bytes, connections, messages or calls.
    pub count: u64,
    /// The duration, in milliseconds.
    pub ms: f64,
}

impl Load {
    /// The amount per second.
    #[must_use]
    pub fn a_second(&self) -> f64 {
        #[expect(
            clippy::cast_precision_loss,
            reason = "nothing counts to 2^53 in a round"
        )]
        let count = self.count as f64;
        count * 1000.0 / self.ms
    }
}

/// The line of `probe --race KIND/PORT`, and of `probe --torn …`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Race {
    /// How often the listener was opened, or the socket was connected.
    pub opened: u64,
    /// The number of connections or datagrams that the kernel accepted.
    pub sent: u64,
    /// The number of those that failed at once.
    pub refused: u64,
    /// The number of connections that got no answer in time.
    pub lost: u64,
    /// The number of connections that the host's socket accepted, in a race where it takes turns with the listener.
    pub reached: u64,
}

/// The variable with the path of a probe executable that is already built.
pub const BUILT: &str = "QFENCE_PROBE";

/// The path of the static executable, where every user can access it: a copy of `$QFENCE_PROBE`, or built at first use.
pub fn program() -> Result<PathBuf> {
    static PROGRAM: Once<PathBuf> = Once::new();
    PROGRAM.get(|| reachable(&built()?))
}

/// Starts a nameserver that has all names, at all addresses of a namespace, and waits until it serves.
pub fn nameserver(namespace: &Namespace) -> Result<Shell> {
    let mut shell = Shell::start(namespace.command("sh"))?;
    shell.tell(&format!("exec {} --serve dns-udp/53", program()?.display()))?;
    let said = shell.next_line()?;
    ensure!(said == "serving", "the nameserver says {said:?}");
    Ok(shell)
}

/// The path of the executable in the checkout: `$QFENCE_PROBE`, or built now.
pub fn built() -> Result<PathBuf> {
    env::var_os(BUILT).map_or_else(|| build("checks"), |path| Ok(path.into()))
}

/// Builds it in a profile of cargo. In the profile of the tests it shares their libraries.
pub fn build(profile: &str) -> Result<PathBuf> {
    let dir = workspace::guest_dir()?;
    let target = workspace::root().join("target");
    let _lock = workspace::lock(&dir)?;
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(workspace::root())
        .args(["rustc", "--profile", profile, "--package", "tests"])
        .args(["--bin", "probe"])
        .arg("--target-dir")
        .arg(&target)
        .env_remove("CARGO_BUILD_TARGET")
        .args(["--", "-Ctarget-feature=+crt-static", "-Cstrip=symbols"])
        .output()
        .context("run cargo to build the probe")?;
    if !output.status.success() {
        bail!("cargo failed:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    // Building all executables of the tests replaces this file by a dynamically linked one, so a copy is kept
    // elsewhere.
    let made = target.join(profile).join("probe");
    let made = fs::read(&made).with_context(|| format!("read {}", made.display()))?;
    let kept = dir.join(profile);
    fs::create_dir_all(&kept)?;
    let kept = kept.join("probe");
    if fs::read(&kept).ok().as_ref() != Some(&made) {
        workspace::write_atomically(&kept, &made)?;
    }
    Ok(kept)
}

/// Makes attempts from a namespace, as root. Options of the probe may come first, for example
/// `--timeout-ms`, `300` (the default is 2000).
pub fn run(namespace: &Namespace, attempts: &[&str]) -> Result<Vec<ProbeResult>> {
    run_command(namespace.command(program()?).args(attempts))
}

/// Makes attempts from a namespace, as another user.
pub fn run_as(user: User, namespace: &Namespace, attempts: &[&str]) -> Result<Vec<ProbeResult>> {
    run_command(namespace.command_as(user, program()?).args(attempts))
}

/// Runs a command that ends in the probe, possibly after a launcher, and parses its output.
pub fn run_command(command: &mut Command) -> Result<Vec<ProbeResult>> {
    read_lines(&output(command)?).with_context(|| format!("{command:?}"))
}

/// Runs a command that must succeed; returns its output.
pub fn output(command: &mut Command) -> Result<String> {
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .output()
        .with_context(|| format!("run {command:?}"))?;
    if !status.success() {
        let stderr = String::from_utf8_lossy(&stderr);
        bail!("{command:?}: {status}\n{stderr}");
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

/// Parses lines of JSON, such as the probe's output: [`ProbeResult`]s, or one [`Flood`].
pub fn read_lines<T: DeserializeOwned>(text: &str) -> Result<Vec<T>> {
    text.lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| serde_json::from_str(line).with_context(|| format!("unexpected: {line}")))
        .collect()
}
