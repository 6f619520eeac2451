//! Processes of the same user outside of the fence can be neither signalled nor traced from within, those inside can, and
//! `--allow-foreign-netns` lifts that. It takes Linux 6.12 with Landlock.

use std::process::Command;

use anyhow::{Context as _, Result};
use tests::{
    fence::Fence,
    namespace::NOBODY,
    process::Process,
    run::{fenced, to_end},
};

/// Signals and traces a process, by number or a child of its own, and says what came of each.
const SCRIPT: &str = r#"
import ctypes, errno, os, signal, subprocess, sys
child = None
if sys.argv[1] == "child":
    child = subprocess.Popen(["sleep", "1000"])
pid = child.pid if child else int(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
SEIZE, DETACH = 0x4206, 17
try:
    os.kill(pid, signal.SIGCONT)
    print("signalled")
except OSError as error:
    print(errno.errorcode[error.errno])
ctypes.set_errno(0)
print("traced" if libc.ptrace(SEIZE, pid, 0, 0) == 0 else errno.errorcode[ctypes.get_errno()])
if child:
    child.kill()
"#;

/// A process of nobody's, outside of any fence.
fn outside() -> Result<Process> {
    let mut command = as_nobody("sleep");
    command.arg("1000");
    Process::spawn(command).context("start a process")
}

fn as_nobody(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    let id = NOBODY.uid.to_string();
    command.args(["--reuid", &id, "--regid", &id, "--clear-groups", program]);
    command
}

/// What comes of signalling and tracing, in a fence with these options or without one.
fn tried(options: Option<&[&str]>, whom: &str) -> Result<String> {
    let words = ["/usr/bin/python3", "-c", SCRIPT, whom];
    let fence = Fence::new("domain")?.with(&["--user", "nobody"]);
    let ended = match options {
        None => {
            let mut command = as_nobody(words[0]);
            command.args(&words[1..]);
            to_end(command)?
        }
        Some(options) => {
            let fence = fence.with(options);
            to_end(fenced(&fence, &words))?
        }
    };
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    Ok(ended.stdout)
}

#[test]
fn processes_outside_are_out_of_reach_unless_foreign_namespaces_are_allowed() -> Result<()> {
    let process = outside()?;
    let pid = process.id().to_string();
    const BOTH: &str = "signalled\ntraced\n";
    assert_eq!(tried(None, &pid)?, BOTH, "control: without a fence");
    assert_eq!(tried(Some(&[]), &pid)?, "EPERM\nEPERM\n");
    assert_eq!(tried(Some(&["--allow-foreign-netns"]), &pid)?, BOTH);
    // Within the fence all is as it was.
    assert_eq!(tried(Some(&[]), "child")?, BOTH);
    Ok(())
}
