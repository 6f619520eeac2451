//! The proof of a start in a cgroup that a user owns.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail, ensure};
use tests::{fence::Fence, namespace::Namespace, run::wait_until, shell::Shell};

use super::scene::{Place, attach, remove};

/// Moves every process that appears in a cgroup to a frozen one below it. A process that moves all the time makes the moves
/// quick. Prints "ready", then each process that it has moved.
const FREEZER: &str = "
import os, sys
place = sys.argv[1]
for below in ['frozen', 'one', 'other']:
    os.mkdir(place + '/' + below)
open(place + '/frozen/cgroup.freeze', 'w').write('1')
if os.fork() == 0:
    ends = [os.open(place + '/' + name + '/cgroup.procs', os.O_WRONLY) for name in ['one', 'other']]
    parent = os.getppid()
    while os.getppid() == parent:
        for end in ends:
            os.write(end, b'0')
    os._exit(0)
known = set(open(place + '/cgroup.procs').read().split())
frozen = os.open(place + '/frozen/cgroup.procs', os.O_WRONLY)
procs = os.open(place + '/cgroup.procs', os.O_RDONLY)
print('ready', flush=True)
while True:
    for pid in os.pread(procs, 4096, 0).decode().split():
        if pid not in known:
            try:
                os.write(frozen, pid.encode())
            except OSError:
                continue
            print('moved', pid, flush=True)
";

/// The attempts until a process of a proof is frozen before it has ended.
const ATTEMPTS: usize = 30;

/// A freezer, and what it leaves.
struct Freezer {
    _process: Shell,
    place: PathBuf,
}

impl Freezer {
    fn start(place: &Place, host: &Namespace) -> Result<Self> {
        let script = place.script(FREEZER)?;
        let mut process = Shell::start(host.command("sh"))?;
        let path = place.path();
        process.tell(&format!(
            "exec /usr/bin/python3 {} {}",
            script.display(),
            path.display()
        ))?;
        ensure!(process.next_line()? == "ready", "{}", process.stderr());
        Ok(Self {
            _process: process,
            place: path.to_owned(),
        })
    }
}

/// The processes in a cgroup below.
fn members(place: &Path, below: &str) -> String {
    fs::read_to_string(place.join(below).join("cgroup.procs")).unwrap_or_default()
}

/// Who owns the cgroup freezes the process of the proof: `attach` goes on without it after ten seconds, and says so.
#[test]
fn a_frozen_proof_does_not_keep_attach_waiting() -> Result<()> {
    let host = Namespace::new()?;
    let fence = Fence::new("attach-frozen")?;
    let place = Place::new(&fence)?;
    let _inside = place.shell(&host)?;
    let path = place.path().display().to_string();
    let control = attach(&fence, &host, &["--cgroup", &path, "--detach"])?;
    ensure!(control.code() == Some(0), "{control:?}");
    ensure!(!control.stderr.contains("was not tried"), "{control:?}");
    remove(&fence)?;
    let freezer = Freezer::start(&place, &host)?;
    for _ in 0..ATTEMPTS {
        let ended = attach(&fence, &host, &["--cgroup", &path, "--detach"])?;
        ensure!(ended.code() == Some(0), "{ended:?}");
        remove(&fence)?;
        if ended.stderr.contains("did not run within 10 seconds") {
            // It was killed, frozen or not.
            return wait_until("the proof's process is gone", || {
                Ok(members(&freezer.place, "frozen").is_empty())
            });
        }
    }
    bail!("no proof was frozen in {ATTEMPTS} attempts")
}
