//! Passes notifications of the command on to systemd (sd_notify(3)). For systemd the main process of the unit is qfence, and
//! by default it takes notifications from that alone. So the command gets a socket of qfence's, and qfence sends what arrives
//! there.

use std::{
    env,
    fs::{self, Permissions},
    io::{self, IoSlice},
    net::Shutdown,
    os::{
        fd::AsRawFd as _,
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            fs::PermissionsExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::{
    libc,
    sys::socket::{ControlMessage, MsgFlags, UnixCredentials, sendmsg},
    unistd::{Pid, Uid, chown, getgid, getuid},
};

use crate::base::{message_queue::MessageQueue, notify_directory, random};

/// The variable with systemd's socket.
pub const VARIABLE: &str = "NOTIFY_SOCKET";

/// The most bytes of a notification (`NOTIFY_BUFFER_MAX` in systemd's src/core/manager.c).
const LONGEST: usize = 4096;

/// How long systemd may take to accept a notification. Then it is lost.
const PATIENCE: Duration = Duration::from_secs(5);

/// The fields that are passed on if their value is a number. Others name a process (MAINPID), change who may notify, or come
/// with descriptors, which are for systemd alone.
const NUMBERS: [&[u8]; 8] = [
    b"ERRNO",
    b"EXIT_STATUS",
    b"EXTEND_TIMEOUT_USEC",
    b"MONOTONIC_USEC",
    b"READY",
    b"RELOADING",
    b"STOPPING",
    b"WATCHDOG_USEC",
];

/// The fields whose value is a text.
const TEXTS: [&[u8]; 2] = [b"BUSERROR", b"STATUS"];

/// systemd's socket.
#[derive(Debug)]
pub struct Manager {
    socket: UnixDatagram,
    /// The main process of the unit.
    main: Pid,
}

impl Manager {
    /// Connects to the socket that the environment names; `None` if there is no variable. `main` is the process that systemd
    /// has started. Must be called before the network namespace is changed, to which abstract names belong.
    ///
    /// # Errors
    /// If it cannot be connected to.
    pub fn of_environment(main: Pid) -> Result<Option<Self>> {
        let Some(name) = env::var_os(VARIABLE) else {
            return Ok(None);
        };
        let context = || format!("cannot connect to {VARIABLE}={}", name.display());
        let address = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
            [b'/', ..] => SocketAddr::from_pathname(&name),
            _ => Err(io::Error::other(
                "it is neither a path nor an abstract name",
            )),
        };
        let socket = UnixDatagram::unbound().with_context(context)?;
        socket
            .connect_addr(&address.with_context(context)?)
            .with_context(context)?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Some(Self { socket, main }))
    }

    /// Tells systemd that the unit has been started.
    ///
    /// # Errors
    /// If systemd does not get it.
    pub fn ready(&self) -> Result<()> {
        self.send(b"READY=1")
            .with_context(|| format!("cannot notify systemd ({VARIABLE})"))
    }

    /// Sends a notification in the name of the main process.
    fn send(&self, message: &[u8]) -> nix::Result<()> {
        let credentials = UnixCredentials::from(libc::ucred {
            pid: self.main.as_raw(),
            uid: getuid().as_raw(),
            gid: getgid().as_raw(),
        });
        let control = [ControlMessage::ScmCredentials(&credentials)];
        sendmsg::<()>(
            self.socket.as_raw_fd(),
            &[IoSlice::new(message)],
            &control,
            MsgFlags::MSG_NOSIGNAL,
            None,
        )
        .map(drop)
    }
}

/// The socket for the command. Dropping it passes on what has arrived, and removes it.
#[derive(Debug)]
pub struct Relay {
    path: PathBuf,
    socket: Arc<UnixDatagram>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Makes a socket that only root and `owner` can send to.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn new(run: &Path, owner: Option<Uid>) -> Result<Self> {
        let directory = notify_directory::prepare(run)?;
        notify_directory::sweep(run)
            .with_context(|| format!("cannot clear {}", directory.display()))?;
        let path = directory.join(format!("{:016x}", random::number()));
        let context = || format!("cannot make the socket {}", path.display());
        let socket = UnixDatagram::bind(&path).with_context(context)?;
        let relay = Self {
            path: path.clone(),
            socket: socket.into(),
            ends: Arc::default(),
            thread: None,
        };
        fs::set_permissions(&path, Permissions::from_mode(0o600)).with_context(context)?;
        chown(&path, owner, None).with_context(context)?;
        Ok(relay)
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Begins to pass on what arrives.
    ///
    /// # Errors
    /// If no thread can be made.
    pub fn start(&mut self, manager: Manager, messages: MessageQueue) -> Result<()> {
        let socket = Arc::clone(&self.socket);
        let ends = Arc::clone(&self.ends);
        let thread = thread::Builder::new()
            .name("qfence-notify".into())
            .spawn(move || pass_on(&socket, &manager, &ends, &messages));
        self.thread = Some(thread.context("cannot make a thread")?);
        Ok(())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        // What has arrived is still read.
        let _ = self.socket.shutdown(Shutdown::Read);
        if let Some(thread) = self.thread.take() {
            // A panic is reported by the panic handler.
            let _ = thread.join();
        }
        // A socket that stays is removed by a later command.
        let _ = notify_directory::remove(&self.path);
    }
}

/// Passes on notifications until the socket is shut down.
fn pass_on(socket: &UnixDatagram, manager: &Manager, ends: &AtomicBool, messages: &MessageQueue) {
    let mut buffer = [0; LONGEST + 1];
    let mut is_told = false;
    loop {
        // Descriptors that come with it are closed by the kernel: there is no room for them.
        let length = match socket.recv(&mut buffer) {
            Ok(0) if ends.load(Ordering::SeqCst) => return,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                messages.notify(format_args!(
                    "error: cannot receive notifications of the command for systemd: {error}"
                ));
                return;
            }
        };
        let received = buffer.get(..length).unwrap_or_default();
        let passed = match received.len() > LONGEST {
            true => Vec::new(),
            false => filtered(received),
        };
        if passed.is_empty() {
            continue;
        }
        match manager.send(&passed) {
            Ok(()) => is_told = false,
            Err(errno) if !is_told => {
                messages.notify(format_args!(
                    "error: cannot pass on a notification of the command to systemd: {errno}"
                ));
                is_told = true;
            }
            Err(_) => {}
        }
    }
}

/// The lines of a notification that are passed on. systemd ends a line at a newline or a carriage return (`strv_split` in its
/// src/core/manager.c). A message with other control characters is no text, and none of it is passed on.
fn filtered(message: &[u8]) -> Vec<u8> {
    let is_end = |byte: &u8| matches!(byte, b'\n' | b'\r');
    let is_text = std::str::from_utf8(message).is_ok()
        && message
            .iter()
            .all(|byte| is_end(byte) || !byte.is_ascii_control());
    if !is_text {
        return Vec::new();
    }
    let lines: Vec<_> = message
        .split(is_end)
        .filter(|line| is_passed(line))
        .collect();
    lines.join(&b'\n')
}

/// Whether a line is a known field with a value of its kind.
fn is_passed(line: &[u8]) -> bool {
    let Some(end) = line.iter().position(|byte| *byte == b'=') else {
        return false;
    };
    let (name, value) = line.split_at(end);
    let value = value.get(1..).unwrap_or_default();
    match name {
        b"WATCHDOG" => matches!(value, b"1" | b"trigger"),
        _ if NUMBERS.contains(&name) => !value.is_empty() && value.iter().all(u8::is_ascii_digit),
        _ => TEXTS.contains(&name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_state_of_the_service_is_passed_on() {
        for (message, passed) in [
            (&b"READY=1"[..], &b"READY=1"[..]),
            (b"READY=1\nSTATUS=it = runs\n", b"READY=1\nSTATUS=it = runs"),
            (b"MAINPID=7\nREADY=1", b"READY=1"),
            (b"FDSTORE=1\nFDNAME=x", b""),
            (b"NOTIFYACCESS=all", b""),
            (b"BARRIER=1", b""),
            // systemd ends a line at each of the two.
            (
                b"STATUS=x\rMAINPID=7\nWATCHDOG=trigger",
                b"STATUS=x\nWATCHDOG=trigger",
            ),
            (b"READY=1\rNOTIFYACCESS=all", b"READY=1"),
            (b"READY=1\0MAINPID=7", b""),
            (b"STATUS=x\x0bMAINPID=7", b""),
            (b"STATUS=\xff", b""),
            (b"READY=yes\nERRNO=-1\nWATCHDOG=2\nEXIT_STATUS=", b""),
            (
                b"ERRNO=2\nWATCHDOG=1\nSTATUS=",
                b"ERRNO=2\nWATCHDOG=1\nSTATUS=",
            ),
            (b"READY", b""),
            (b"XREADY=1\nready=1", b""),
            (b"\xff\0=\n", b""),
            (b"", b""),
        ] {
            assert_eq!(filtered(message), passed, "{message:?}");
        }
    }
}
