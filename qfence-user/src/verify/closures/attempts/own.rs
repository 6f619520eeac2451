//! What a process does with things of its own, which must work in every fence.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::{self, Child, Command},
};

use nix::{
    sys::{memfd, signal},
    unistd::Pid,
};
use signal::{Signal, kill};

use super::{Tried, errno_of, processes::attach_to, tried};
use crate::verify::closures::victims::{SCRATCH, Victims};

fn scratch() -> PathBuf {
    Path::new(SCRATCH).join(format!("own-{}", process::id()))
}

/// Runs an attempt on a process of its own, which it ends.
fn on_child(attempt: impl FnOnce(i32) -> Tried) -> Tried {
    let child = Command::new("/bin/sleep").arg("10").spawn();
    let mut child: Child = child.map_err(errno_of)?;
    let tried = attempt(child.id().cast_signed());
    let _ = child.kill();
    let _ = child.wait();
    tried
}

pub(crate) fn trace_child(_: &Victims) -> Tried {
    on_child(attach_to)
}

pub(crate) fn signal_child(_: &Victims) -> Tried {
    on_child(|pid| kill(Pid::from_raw(pid), Signal::SIGTERM))
}

pub(crate) fn write_file(_: &Victims) -> Tried {
    let file = File::create_new(scratch());
    tried(file.and_then(|mut file| file.write_all(b"x")))
}

pub(crate) fn read_public(_: &Victims) -> Tried {
    tried(fs::read("/etc/passwd"))
}

pub(crate) fn read_own_status(_: &Victims) -> Tried {
    tried(fs::read("/proc/self/status"))
}

pub(crate) fn connect_to_own(_: &Victims) -> Tried {
    let path = scratch();
    let _listener = UnixListener::bind(&path).map_err(errno_of)?;
    tried(UnixStream::connect(path))
}

pub(crate) fn pair(_: &Victims) -> Tried {
    tried(UnixStream::pair())
}

pub(crate) fn memory_file(_: &Victims) -> Tried {
    memfd::memfd_create("qfence", memfd::MFdFlags::MFD_CLOEXEC).map(drop)
}

pub(crate) fn null_device(_: &Victims) -> Tried {
    let file = File::options().write(true).open("/dev/null");
    tried(file.and_then(|mut file| file.write_all(b"x")))
}
