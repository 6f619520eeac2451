//! A command that has ended, and that other threads, a slow close or a tracer keep: `exec` ends with its status, as it
//! would without them, and says who keeps it.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tests::{
    fence::{Fence, qfence},
    fuse::Fuse,
    process::Process,
    remains,
    run::{fenced, to_end, wait_until},
    shell::{Shell, state_of},
    workspace,
};

/// Does as it is told, and ends with the status on its input.
const PROGRAM: &str = r#"
import ctypes, os, sys, threading, time
libc = ctypes.CDLL(None)
what, argument = sys.argv[1:3]
PR_SET_PTRACER, PTRACE_SEIZE, SYS_EXIT = 0x59616d61, 0x4206, 60

def seize(pid):
    if libc.ptrace(PTRACE_SEIZE, pid, 0, 0) != 0:
        sys.exit("cannot trace")

if what == "read":
    threading.Thread(target=lambda: open(argument, "rb").read(), daemon=True).start()
elif what == "open":
    file = open(argument, "rb")
elif what == "traced":
    libc.prctl(PR_SET_PTRACER, ctypes.c_ulong(-1), 0, 0, 0)
    ready, tell = os.pipe()
    tracee = os.getpid()
    if os.fork() == 0:
        os.setsid()
        seize(tracee)
        os.write(tell, b"!")
        time.sleep(float(argument))
        os._exit(0)
    os.read(ready, 1)
elif what == "trace":
    seize(int(argument))
elif what == "leave":
    def work():
        time.sleep(float(argument))
        os._exit(5)
    threading.Thread(target=work).start()
print("ready", os.getpid(), flush=True)
if what == "leave":
    libc.syscall(SYS_EXIT, 0)
os._exit(int(sys.stdin.readline()))
"#;

/// How long may pass until what is kept is let be.
const LIMIT: Duration = Duration::from_secs(40);

/// Longer than all of the test.
const FOREVER: &str = "300";

struct Program(tempfile::NamedTempFile);

impl Program {
    fn new() -> Result<Self> {
        let file = tempfile::NamedTempFile::new()?;
        fs::write(file.path(), PROGRAM)?;
        workspace::make_readable(file.path())?;
        Ok(Self(file))
    }

    fn path(&self) -> String {
        self.0.path().display().to_string()
    }

    /// Starts it in a fence, where it has done what it is told; and its number.
    fn start(&self, fence: &Fence, what: &str, argument: &str) -> Result<(Shell, u32)> {
        let mut shell = Shell::start(fenced(fence, &["sh"]))?;
        let path = self.path();
        shell.tell(&format!("exec /usr/bin/python3 {path} {what} {argument}"))?;
        let line = shell.next_line().with_context(|| shell.stderr())?;
        let pid = line.strip_prefix("ready ").context(line.clone())?.parse()?;
        Ok((shell, pid))
    }
}

/// How `exec` ends, which it does in time.
fn code(shell: &mut Shell) -> Result<i32> {
    let pid = Path::new("/proc").join(shell.started().to_string());
    let start = std::time::Instant::now();
    while state_of(shell.started()).is_some_and(|state| state != 'Z') {
        ensure!(
            start.elapsed() < LIMIT,
            "{} goes on: {}",
            pid.display(),
            shell.stderr()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    shell.wait_for_code()
}

fn rm(fence: &Fence) -> Result<tests::run::Ended> {
    let mut command = Command::new(qfence()?);
    command.args(["rm", "--time", "1", fence.name()]);
    to_end(command)
}

/// That the thread in state D is named.
fn ensure_thread_named(said: &str, begin: &str, pid: u32) {
    let who = format!("of process {pid} (python3, state D, in ");
    let line = said.lines().find(|line| line.contains(begin));
    assert!(line.is_some(), "{begin:?} is not in {said}");
    let line = line.unwrap_or_default();
    assert!(line.contains(&who), "{who:?} is not in {line}");
}

fn ensure_cleared(fence: &Fence, mut fuse: Fuse) -> Result<()> {
    fuse.release()?;
    let events = remains::cgroup(fence.name())?.join("cgroup.events");
    wait_until("nothing is stuck any more", || {
        Ok(!fs::read_to_string(&events).is_ok_and(|text| text.contains("populated 1")))
    })?;
    let mut ps = Command::new(qfence()?);
    ps.arg("ps");
    to_end(ps)?;
    remains::ensure_none(fence.name())
}

#[test]
fn a_command_that_ended_with_a_stuck_thread_has_its_status() -> Result<()> {
    let (fuse, program) = (Fuse::new()?, Program::new()?);
    let fence = Fence::new("thread")?.with(&["--user", "nobody"]);
    let file = fuse.file().display().to_string();
    let (mut shell, pid) = program.start(&fence, "read", &file)?;
    fuse.await_reads(1)?;
    shell.tell("3")?;
    let code = code(&mut shell)?;
    let said = shell.stderr();
    assert_eq!(code, 3, "{said}");
    ensure_thread_named(&said, "the command has ended (exit status: 3)", pid);
    assert!(!said.contains("the command was killed"), "{said}");
    ensure_cleared(&fence, fuse)
}

#[test]
fn a_command_that_was_killed_with_a_stuck_thread_is_given_up() -> Result<()> {
    let (fuse, program) = (Fuse::new()?, Program::new()?);
    let fence = Fence::new("thread-stuck")?.with(&["--user", "nobody"]);
    let file = fuse.file().display().to_string();
    let (mut shell, pid) = program.start(&fence, "read", &file)?;
    fuse.await_reads(1)?;
    kill(Pid::from_raw(pid.try_into()?), Signal::SIGKILL)?;
    let code = code(&mut shell)?;
    let said = shell.stderr();
    assert_eq!(code, 125, "{said}");
    ensure_thread_named(&said, "error: the command was killed and does not end", pid);
    ensure_cleared(&fence, fuse)
}

#[test]
fn a_command_that_takes_long_to_close_its_files_has_its_status() -> Result<()> {
    let program = Program::new()?;
    let fuse = Fuse::with_slow_close(Duration::from_secs(14))?;
    let fence = Fence::new("slow")?.with(&["--user", "nobody"]);
    let file = fuse.file().display().to_string();
    let (mut shell, pid) = program.start(&fence, "open", &file)?;
    shell.tell("7")?;
    let code = code(&mut shell)?;
    let said = shell.stderr();
    assert_eq!(code, 7, "{said}");
    let word = format!("the command is ending and has not ended: process {pid} (python3, state ");
    assert_eq!(said.matches(&word).count(), 1, "{said}");
    assert!(!said.contains("killed"), "{said}");
    ensure_cleared(&fence, fuse)
}

/// The control: without its first thread it is no zombie for the supervisor.
#[test]
fn a_command_that_goes_on_without_its_first_thread_is_waited_for() -> Result<()> {
    let program = Program::new()?;
    let fence = Fence::new("leader")?.with(&["--user", "nobody"]);
    let (mut shell, pid) = program.start(&fence, "leave", "14")?;
    wait_until("the first thread has ended", || {
        Ok(state_of(pid) == Some('Z'))
    })?;
    let code = code(&mut shell)?;
    let said = shell.stderr();
    assert_eq!(code, 5, "{said}");
    assert!(!said.contains("ended"), "{said}");
    remains::ensure_none(fence.name())
}

#[test]
fn a_command_that_a_process_of_its_own_traces_has_its_status() -> Result<()> {
    let program = Program::new()?;
    let fence = Fence::new("traced")?.with(&["--user", "nobody"]);
    let (mut shell, _) = program.start(&fence, "traced", FOREVER)?;
    shell.tell("3")?;
    let code = code(&mut shell)?;
    let said = shell.stderr();
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("(python3, state S) traces it"), "{said}");
    remains::ensure_none(fence.name())
}

#[test]
fn rm_removes_the_fence_of_a_command_that_is_traced_from_outside() -> Result<()> {
    let program = Program::new()?;
    let fence = Fence::new("traced-outside")?.with(&["--user", "nobody"]);
    let (mut shell, pid) = program.start(&fence, "read", "/dev/null")?;
    let mut tracer = Command::new("/usr/bin/python3");
    tracer.args([&program.path(), "trace", &pid.to_string()]);
    tracer
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null());
    let mut tracer = Process::spawn(tracer)?;
    let status = format!("/proc/{pid}/status");
    wait_until("it is traced", || {
        Ok(!fs::read_to_string(&status)?.contains("TracerPid:\t0\n"))
    })?;
    let removed = rm(&fence)?;
    assert_eq!(removed.code(), Some(0), "{removed:?}");
    let code = code(&mut shell)?;
    let said = shell.stderr();
    assert_eq!(code, 125, "{said}");
    let word = format!(
        "the command was killed and does not end: process {} (python3,",
        tracer.id()
    );
    assert!(said.contains(&word), "{said}");
    remains::ensure_none(fence.name())?;
    tracer.stop()?;
    Ok(())
}
