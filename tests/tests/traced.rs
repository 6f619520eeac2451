//! A command makes the supervisor its tracer (PTRACE_TRACEME): it goes on as one without a tracer, and `exec` waits for
//! its end.

use std::fs;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use tests::{
    fence::Fence,
    remains,
    run::{fenced, to_end, wait_until},
    shell::{Shell, state_of},
};

/// Becomes traced, or does not, for `traced`; then does `what`, which must end by itself.
fn script(traced: bool, what: &str) -> String {
    format!(
        r#"
import ctypes, os, signal, sys, threading, time
def tell(*words): print(*words, flush=True)
def tracer():
    status = open('/proc/thread-self/status').read()
    return int(status.split('TracerPid:')[1].split()[0])
def trace_me():
    if {traced}:
        assert ctypes.CDLL(None).ptrace(0, 0, 0, 0) == 0
        # The supervisor, or another parent.
        assert tracer() == os.getppid()
{what}"#,
        traced = if traced { "True" } else { "False" },
    )
}

/// Runs that in a fence; what it printed, and what `exec` ended with.
fn run(traced: bool, what: &str) -> Result<(String, Option<i32>)> {
    let fence = Fence::new("traced")?.with(&["--user", "nobody"]);
    let script = script(traced, what);
    let ended = to_end(fenced(&fence, &["/usr/bin/python3", "-c", &script]))?;
    remains::ensure_none(fence.name())?;
    let code = ended.code();
    Ok((ended.stdout, code))
}

/// Makes sure that the command does the same with a tracer as without.
fn ensure_same(what: &str, prints: &str, code: i32) -> Result<()> {
    let expected = (prints.to_owned(), Some(code));
    assert_eq!(run(false, what)?, expected, "the control of {what}");
    assert_eq!(run(true, what)?, expected, "{what}");
    Ok(())
}

#[test]
fn a_signal_that_is_handled_or_ignored_is_not_the_end() -> Result<()> {
    // Those of job control, and a real-time signal too.
    for signal in ["SIGUSR1", "SIGTRAP", "SIGCHLD", "SIGTSTP", "SIGRTMIN"] {
        let handled = format!(
            r"
signal.signal(signal.{signal}, lambda *_: tell('handled'))
trace_me()
signal.raise_signal(signal.{signal})
assert tracer() == 0
tell('went on')
trace_me()
os.kill(os.getpid(), signal.SIGCONT)
sys.exit(7)"
        );
        ensure_same(&handled, "handled\nwent on\n", 7)?;
    }
    let ignored = r"
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
for _ in range(100):
    trace_me()
    signal.raise_signal(signal.SIGUSR1)
tell('went on')
sys.exit(7)";
    ensure_same(ignored, "went on\n", 7)
}

#[test]
fn a_signal_that_ends_it_does_so() -> Result<()> {
    for signal in [Signal::SIGTERM, Signal::SIGTRAP, Signal::SIGKILL] {
        let ends = format!(
            r"
import resource
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
trace_me()
signal.raise_signal(signal.{signal})
sys.exit(7)"
        );
        ensure_same(&ends, "", 128 + signal as i32)?;
    }
    Ok(())
}

#[test]
fn a_program_that_it_executes_goes_on() -> Result<()> {
    let executes = r"
trace_me()
os.execlp('sh', 'sh', '-c', 'echo executed; exit 7')";
    ensure_same(executes, "executed\n", 7)
}

#[test]
fn a_thread_and_a_child_of_the_supervisors_go_on() -> Result<()> {
    let thread = r"
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
def run():
    trace_me()
    signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
    tell('went on')
thread = threading.Thread(target=run)
thread.start()
thread.join()
sys.exit(7)";
    ensure_same(thread, "went on\n", 7)?;
    // CLONE_PARENT: its parent is the command's.
    let child = r"
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
reader, writer = os.pipe()
clone = {'x86_64': 56, 'aarch64': 220}[os.uname().machine]
if ctypes.CDLL(None).syscall(clone, 0x8000 | signal.SIGCHLD, 0, 0, 0, 0) == 0:
    trace_me()
    os.kill(os.getpid(), signal.SIGUSR1)
    os.write(writer, b'went on')
    os._exit(3)
os.close(writer)
tell(os.read(reader, 99).decode())
sys.exit(7)";
    ensure_same(child, "went on\n", 7)
}

#[test]
fn signals_to_exec_and_stops_reach_it_as_before() -> Result<()> {
    for traced in [false, true] {
        let fence = Fence::new("traced")?.with(&["--user", "nobody"]);
        let mut shell = Shell::start(fenced(&fence, &["sh"]))?;
        let file = tempfile::NamedTempFile::new()?;
        let waits = r"
def end(*_):
    tell('got it')
    sys.exit(7)
signal.signal(signal.SIGTERM, end)
trace_me()
tell(os.getpid())
while True: time.sleep(1000)";
        fs::write(file.path(), script(traced, waits))?;
        tests::workspace::make_readable(file.path())?;
        shell.tell(&format!("exec /usr/bin/python3 {}", file.path().display()))?;
        let command: u32 = shell.next_line()?.parse().context("its number")?;
        let command_pid = nix::unistd::Pid::from_raw(command.try_into()?);
        nix::sys::signal::kill(command_pid, Signal::SIGSTOP)?;
        // As a stop, which ends with SIGCONT; not as one for a tracer.
        wait_until("it is stopped", || Ok(state_of(command) == Some('T')))?;
        nix::sys::signal::kill(command_pid, Signal::SIGCONT)?;
        wait_until("it goes on", || Ok(state_of(command) == Some('S')))?;
        shell.signal(Signal::SIGTERM)?;
        assert_eq!(shell.next_line()?, "got it", "{traced}");
        assert_eq!(shell.wait_for_code()?, 7, "{traced}");
        remains::ensure_none(fence.name())?;
    }
    Ok(())
}
