//! Boots the guests, each on a private host of its own.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{self, Command},
};

use anyhow::{Context as _, Result};
use tests::{
    dns::Dns,
    guest::ipxe::{self, Fetch},
    listener::Listener,
    progress,
    workspace::make_readable,
    world::{HOST_V4, SERVER_V4, World},
};

use crate::outcome::{Comparison, Ending, Run};

/// The port of the web servers on the host and on the internet.
const PORT: u16 = 8080;

/// The resolver in the host's resolv.conf, and a name that it resolves.
const RESOLVER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53));
const NAME: &str = "www.example";

/// The user that QEMU runs as, fenced or not.
const USER: &str = "nobody";

/// Boots a guest without a fence and one in a fence, and compares their results.
pub(super) fn compare(program: &Path) -> Result<Comparison> {
    progress::note(
        "two guests: QEMU with user networking, which boots only the iPXE of its network card",
    );
    progress::note(&format!(
        "each has a host of its own ({HOST_V4}) and an internet ({SERVER_V4}), in namespaces"
    ));
    let unfenced = [
        "setpriv",
        // Sends QEMU a signal when the demo ends. setpriv sets it after the change of user, which would clear it.
        "--pdeathsig=TERM",
        "--reuid=nobody",
        "--regid=nogroup",
        "--clear-groups",
        "--",
    ];
    let without = progress::during("a guest without qfence", || {
        boot(&unfenced.map(str::to_owned))
    })?;
    let fence = Fence::new(program)?;
    let with = progress::during("a guest with qfence", || boot(&fence.launcher()))?;
    Ok(Comparison {
        tries: tries().map(|(label, _)| label),
        without,
        with,
        refusals: fence.refusals()?,
    })
}

/// The tries of a guest, in the order of [`Run::endings`]: a description, and the page to fetch.
fn tries() -> [(String, String); 4] {
    let host = |address| (format!("the host, as {address}:{PORT}"), page(address));
    [
        host("10.0.2.2"),
        host(&HOST_V4.to_string()),
        ("a name, through the host's DNS".into(), page(NAME)),
        (
            format!("the internet, {SERVER_V4}:{PORT}"),
            page(&SERVER_V4.to_string()),
        ),
    ]
}

fn page(host: &str) -> String {
    format!("http://{host}:{PORT}/")
}

/// Boots a guest on a private host and internet of its own. `launcher` precedes the command of QEMU.
fn boot(launcher: &[String]) -> Result<Run> {
    let world = World::new().context(
        "making a private host and internet (in a container, it must be a privileged one)",
    )?;
    let everywhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), PORT);
    let host = Listener::http(&world.host, everywhere)?;
    let _server = Listener::http(&world.internet, everywhere)?;
    let _dns = Dns::start(&world.host, RESOLVER, &[(NAME, SERVER_V4)])?;
    let tries = tries();
    let pages = tries
        .each_ref()
        .map(|(label, page)| (label.as_str(), page.as_str()));
    let fetches = ipxe::attempt(launcher, &world, &pages)?;
    Ok(Run {
        endings: fetches.into_iter().map(|(_, fetch)| fetch.into()).collect(),
        arrivals: host.arrivals().len(),
    })
}

impl From<Fetch> for Ending {
    fn from(fetch: Fetch) -> Self {
        match fetch {
            Fetch::Reached => Self::Reached,
            _ if fetch.is_refused() => Self::Refused,
            _ if fetch.is_timeout() => Self::NoAnswer,
            Fetch::Failed { code, .. } => Self::Failed { code },
        }
    }
}

/// A fence that logs to a file. Dropping it removes a fence that still exists.
struct Fence<'a> {
    program: &'a Path,
    name: String,
    dir: tempfile::TempDir,
}

impl<'a> Fence<'a> {
    fn new(program: &'a Path) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("qfence-demo-")
            .tempdir()
            .context("making a directory for the log")?;
        make_readable(dir.path())?;
        Ok(Self {
            program,
            name: format!("demo-{}", process::id()),
            dir,
        })
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("refusals.log")
    }

    /// The words before a command that run it in the fence.
    fn launcher(&self) -> Vec<String> {
        let (program, log) = (
            self.program.display().to_string(),
            self.log().display().to_string(),
        );
        let words = [&program, "exec", "--name", &self.name, "--user", USER];
        let log = ["--log", &log, "--log-format", "text", "--"];
        words.into_iter().chain(log).map(str::to_owned).collect()
    }

    /// The refusals in the log. It is complete once the fence has ended.
    fn refusals(&self) -> Result<Vec<String>> {
        let log = self.log();
        let text =
            fs::read_to_string(&log).with_context(|| format!("reading {}", log.display()))?;
        Ok(text.lines().map(str::to_owned).collect())
    }
}

impl Drop for Fence<'_> {
    fn drop(&mut self) {
        if Path::new("/sys/fs/bpf/qfence").join(&self.name).exists() {
            // A destructor cannot report errors.
            let _ = Command::new(self.program).args(["rm", &self.name]).output();
        }
    }
}
