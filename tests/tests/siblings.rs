//! Children that a process in the fence gives to the supervisor (CLONE_PARENT) do not stay as zombies.

use std::{fs, process::Command};

use anyhow::{Context as _, Result};
use tests::{
    fence::Fence,
    remains,
    run::{fenced, wait_until},
    shell::Shell,
    workspace,
};

/// Makes children of its parent: one in two ends by a real-time signal.
const PROGRAM: &str = r#"
import ctypes, os, platform, sys
libc = ctypes.CDLL(None)
CLONE_PARENT, SIGCHLD = 0x8000, 17
arguments = [CLONE_PARENT | SIGCHLD, 0, 0, 0, 0]
made = 0
for number in range(int(sys.argv[1])):
    pid = libc.syscall({"x86_64": 56, "aarch64": 220}[platform.machine()], *arguments)
    if pid == 0:
        if number % 2:
            libc.syscall({"x86_64": 62, "aarch64": 129}[platform.machine()], libc.getpid(), 40)
        libc._exit(0)
    made += pid > 0
print(made, flush=True)
os._exit(int(sys.stdin.readline() or 0))
"#;

const COUNT: usize = 300;

/// The zombies among the children of a process.
fn zombies(parent: u32) -> Result<usize> {
    let mut found = 0;
    for entry in fs::read_dir("/proc")? {
        // It may be gone by now.
        let stat = fs::read_to_string(entry?.path().join("stat")).unwrap_or_default();
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        found += usize::from(after_name.starts_with(&format!(" Z {parent} ")));
    }
    Ok(found)
}

#[test]
fn children_that_are_given_to_the_supervisor_are_reaped() -> Result<()> {
    let script = tempfile::NamedTempFile::new()?;
    fs::write(script.path(), PROGRAM)?;
    workspace::make_readable(script.path())?;
    let path = script.path().display().to_string();
    let fence = Fence::new("siblings")?.with(&["--user", "nobody"]);
    let mut shell = Shell::start(fenced(&fence, &["sh"]))?;
    shell.tell(&format!("exec /usr/bin/python3 {path} {COUNT}"))?;
    let made = shell.next_line()?;
    assert_eq!(made.parse::<usize>()?, COUNT);
    wait_until("no child is left", || Ok(zombies(shell.started())? == 0))
        .with_context(|| format!("{:?}", zombies(shell.started())))?;
    shell.tell("4")?;
    assert_eq!(shell.wait_for_code()?, 4, "{}", shell.stderr());
    remains::ensure_none(fence.name())?;

    // The control: they are there where nobody asks for them.
    let mut control = Shell::start(Command::new("sh"))?;
    control.tell(&format!(
        "/usr/bin/python3 {path} {COUNT} </dev/null & exec sleep 300"
    ))?;
    wait_until("children are left", || {
        Ok(zombies(control.started())? > COUNT)
    })?;
    control.kill_supervisor()
}
