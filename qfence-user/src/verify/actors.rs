//! Starts processes outside and inside the fence, usually as an unprivileged user.

use std::{ffi::OsString, io, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use nix::{fcntl::OFlag, unistd::pipe2};
use tokio::{net::unix::pipe, time::timeout};

use crate::{
    base::identity::{self, Callers, Identity},
    fence::guard::Fence,
    launch::{
        child::{self, Child, Closures, Launch, Lifted, Wanted},
        environment::Environment,
        signals::Blocked,
    },
    probe::ProbeResult,
};

/// This program, even if its file was moved or removed, or is not accessible to the user.
const SELF: &str = "/proc/self/exe";

/// `nobody`, by number, because not every system has an entry for it.
const USER: &str = "65534:65534";

/// The time after which a process counts as hung.
const HANG: Duration = Duration::from_secs(30);

/// Where a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Outside of the fence: the control.
    Outside,
    /// In the fence.
    Inside,
    /// Outside of the fence, with only the fence's system call filter and Landlock domain. Shows the attempts that
    /// these two stop alone.
    Filtered,
}

/// The settings with which every process is started.
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
        let identity = identity::resolve(Some(USER), &Callers::default())?;
        Ok(Self {
            identity: identity.context("the unprivileged user is root here")?,
            blocked,
            limits: Lifted::lift()?,
            closures: Closures::new(Wanted::default())?.into(),
        })
    }

    /// Makes a probe. Each step may take `step_ms` milliseconds.
    ///
    /// # Errors
    /// If the probe reports no outcome.
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

    /// Starts this program with other arguments, as the unprivileged user.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(&self, place: Place, fence: &Fence, arguments: &[&str]) -> Result<Actor> {
        self.start_as(Some(&self.identity), place, fence, arguments)
    }

    /// Starts this program with other arguments, as root.
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
        let variables = identity.map(|identity| identity.environment.clone());
        let variables = variables.unwrap_or_default();
        let words = [SELF].iter().chain(arguments);
        let command: Vec<OsString> = words.map(OsString::from).collect();
        let child = child::start(Launch {
            command: &command,
            identity,
            environment: Environment::of_user(variables),
            entry,
            // The outcome of the probe and the fence's record are the proof.
            proof: None,
            closures,
            managers: None,
            netns: None,
            allow_new_privs: false,
            signal_mask: self.blocked.mask_before(),
            reignored: self.blocked.reignored(),
            limits: self.limits,
            preserve_fds: 0,
            given: &[],
            stdout: Some(write),
        })?;
        // From here on, dropping this value ends the process.
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
        // Only the wait matters for a process that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
