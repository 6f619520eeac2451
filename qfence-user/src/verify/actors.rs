//! Processes, of an unprivileged user as a rule, outside of the fence and inside.

use std::{ffi::OsString, io, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use nix::{fcntl::OFlag, unistd::pipe2};
use tokio::{net::unix::pipe, time::timeout};

use crate::{
    base::identity::{self, Identity, Sudo},
    fence::guard::Fence,
    launch::{
        child::{self, Child, Closures, Launch, Lifted, Strictness},
        signals::Blocked,
    },
    probe::ProbeResult,
};

/// This program, whatever has become of its path, and whether or not the user could come to it.
const SELF: &str = "/proc/self/exe";

/// `nobody`, by number: not every system has a database that knows it.
const USER: &str = "65534:65534";

/// How long a process may take before it counts as hung.
const HANG: Duration = Duration::from_secs(30);

/// Where a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Without the fence: the control.
    Outside,
    /// In the fence.
    Inside,
    /// Without the fence, but for the filter of system calls and the domain that it has: what these alone stop.
    Filtered,
}

/// What every process is started with.
pub struct Actors {
    identity: Identity,
    blocked: Blocked,
    limits: Lifted,
    closures: Arc<Closures>,
}

impl Actors {
    /// Actors with the signal mask and limits that qfence was started with.
    ///
    /// # Errors
    /// If these cannot be read.
    pub fn new(blocked: Blocked) -> Result<Self> {
        let identity = identity::resolve(Some(USER), &Sudo::default())?;
        Ok(Self {
            identity: identity.context("the unprivileged user is root here")?,
            blocked,
            limits: Lifted::lift()?,
            closures: Closures::new(Strictness::default(), false)?.into(),
        })
    }

    /// Makes a probe, of which each step may take so many milliseconds.
    ///
    /// # Errors
    /// If there is no outcome.
    pub async fn probe(
        &self,
        place: Place,
        fence: &Fence,
        step_ms: u32,
        spec: &str,
    ) -> Result<ProbeResult> {
        let step = step_ms.to_string();
        let mut actor = self.start(place, fence, &["probe", "--timeout-ms", &step, spec])?;
        let context = || format!("the attempt {spec} has no outcome");
        let line = actor.line().await.with_context(context)?;
        serde_json::from_str(&line).with_context(context)
    }

    /// Starts this program with other arguments.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(&self, place: Place, fence: &Fence, arguments: &[&str]) -> Result<Actor> {
        self.start_as(Some(&self.identity), place, fence, arguments)
    }

    /// The same as root.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start_as_root(&self, place: Place, fence: &Fence, arguments: &[&str]) -> Result<Actor> {
        self.start_as(None, place, fence, arguments)
    }

    fn start_as(
        &self,
        identity: Option<&Identity>,
        place: Place,
        fence: &Fence,
        arguments: &[&str],
    ) -> Result<Actor> {
        let entry = match place {
            Place::Inside => Some(fence.cgroup().entry()?),
            Place::Outside | Place::Filtered => None,
        };
        let closures = (place != Place::Outside).then(|| Arc::clone(&self.closures));
        let (read, write) = pipe2(OFlag::O_CLOEXEC).context("cannot make a pipe")?;
        let words = [SELF].iter().chain(arguments);
        let command: Vec<OsString> = words.map(OsString::from).collect();
        let child = child::start(Launch {
            command: &command,
            identity,
            entry,
            // What a probe comes to is the proof, and on record.
            proof: None,
            closures,
            allow_new_privs: false,
            signal_mask: self.blocked.mask_before(),
            reignored: self.blocked.reignored(),
            limits: self.limits,
            preserve_fds: 0,
            stdout: Some(write),
        })?;
        // From here on it ends with this value.
        let mut actor = Actor {
            child,
            stdout: None,
            read: Vec::new(),
        };
        actor.stdout = Some(pipe::Receiver::from_owned_fd(read).context("cannot poll a pipe")?);
        Ok(actor)
    }
}

/// A process, killed when dropped.
pub struct Actor {
    child: Child,
    stdout: Option<pipe::Receiver>,
    read: Vec<u8>,
}

impl Actor {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.child.pid().as_raw()
    }

    /// Waits for a line of output.
    ///
    /// # Errors
    /// If it ends, or hangs, without one.
    pub async fn line(&mut self) -> Result<String> {
        let line = timeout(HANG, self.next_line()).await;
        line.context("a process hangs")?
    }

    async fn next_line(&mut self) -> Result<String> {
        let stdout = self.stdout.as_ref().context("no pipe from a process")?;
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return String::from_utf8(line).context("a process says what is no text");
            }
            stdout.readable().await.context("cannot poll a pipe")?;
            let mut buffer = [0; 1024];
            match stdout.try_read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => self.read.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("cannot read from a process"),
            }
        }
        let ended = self.child.wait().context("cannot wait for a process")?;
        bail!("a process ended without a word: {ended}")
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        // One that has ended is only to be waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
