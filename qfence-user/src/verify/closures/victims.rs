//! What the attempts are made against: a process of the same user, with sockets, files and memory. The hidden verb
//! `victim` makes them.

use std::{
    fs::{self, DirBuilder},
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        linux::net::SocketAddrExt as _,
        unix::{
            fs::DirBuilderExt as _,
            net::{SocketAddr, UnixDatagram, UnixListener},
        },
    },
    path::Path,
    process, thread,
};

use anyhow::{Context as _, Result};
use nix::sys::{
    signal::{SigSet, Signal},
    socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket},
};
use serde::{Deserialize, Serialize};

use super::attempts::raw;

/// The directory of all victims. Only root can change it.
pub const BASE: &str = "/run/qfence-closures";

/// The executable that makes the attempts, and is the victim.
pub const PROGRAM: &str = "/run/qfence-closures/closures";

/// A directory that the attempts may use.
pub const SCRATCH: &str = "/run/qfence-closures/scratch";

/// The directory in which the user's files are.
pub const HOME: &str = "/run/qfence-closures/home";

/// The user's runtime directory.
pub const RUNTIME: &str = "/run/user/65534";

/// Sockets of managers of the system.
pub const SYSTEM_SOCKETS: [&str; 2] = ["/run/docker.sock", "/run/dbus/system_bus_socket"];

/// A file through which the process shares memory.
pub const SHARED: &str = "/dev/shm/qfence-closures";

/// A socket in the abstract namespace.
pub const ABSTRACT: &str = "qfence-closures";

/// A port that the attempts may not listen on under `--strict`, and one that they may.
pub const PORTS: (u16, u16) = (18081, 18082);

/// A variable that the caller of `exec` has, as it could have a password.
pub const SECRET: &str = "QFENCE_VERIFY_SECRET";

/// The signal that is blocked by the victim.
pub const BLOCKED: Signal = Signal::SIGUSR1;

/// The victims, as the attempts must know them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Victims {
    /// The process, which leads its process group.
    pub pid: i32,
    /// The address of eight bytes in its memory.
    pub address: usize,
    /// The id of its System V shared memory; `None` if this kernel has none.
    pub memory: Option<i32>,
    /// Whether the session keyring of the caller has a key.
    pub has_key: bool,
}

/// Makes the victims, prints them, and waits until its standard input ends.
///
/// # Errors
/// If one cannot be made.
pub fn serve() -> Result<()> {
    let mut blocked = SigSet::empty();
    blocked.add(BLOCKED);
    blocked.thread_block().context("cannot block a signal")?;
    let runtime = Path::new(RUNTIME);
    DirBuilder::new()
        .mode(0o700)
        .create(runtime.join("systemd"))?;
    for name in ["bus", "systemd/private", "wayland-0"] {
        accept(UnixListener::bind(runtime.join(name))?.into());
    }
    let address = SocketAddr::from_abstract_name(ABSTRACT)?;
    accept(UnixListener::bind_addr(&address)?.into());
    let packets = socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    bind(
        packets.as_raw_fd(),
        &UnixAddr::new(&runtime.join("packets"))?,
    )?;
    listen(&packets, Backlog::new(8)?)?;
    accept(packets);
    let datagrams = UnixDatagram::bind(runtime.join("datagrams"))?;
    thread::spawn(move || while datagrams.recv(&mut [0]).is_ok() {});
    files()?;
    // A container may have no such directory.
    let _ = fs::write(SHARED, "memory of the user");
    let memory = Box::leak(Box::new(0_u64));
    let victims = Victims {
        pid: process::id().cast_signed(),
        address: std::ptr::from_mut(memory) as usize,
        memory: raw::make_shared_memory().ok(),
        has_key: false,
    };
    writeln!(io::stdout(), "{}", serde_json::to_string(&victims)?)?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Closes the connections to a socket, until the process ends. The kernel makes the other end of a connection in the
/// cgroup that connects, so one in a queue would keep the links of the ended fence.
fn accept(listener: OwnedFd) {
    thread::spawn(move || {
        while let Ok(connection) = nix::sys::socket::accept(listener.as_raw_fd()) {
            // The number is of a descriptor that was just made.
            let _ = nix::unistd::close(connection);
        }
    });
}

/// Makes the files of a home. Each attempt to change one has a file of its own.
fn files() -> Result<()> {
    let home = Path::new(HOME);
    DirBuilder::new().mode(0o700).create(home.join(".ssh"))?;
    for name in [
        ".ssh/id_rsa",
        ".bashrc",
        ".profile",
        ".vimrc",
        ".netrc",
        ".inputrc",
        ".gitconfig",
    ] {
        fs::write(home.join(name), "a file of the user\n")?;
    }
    Ok(())
}
