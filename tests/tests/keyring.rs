//! The keys of who calls qfence are not those of a command that runs as another user.

use std::{fs, process::Command};

use anyhow::{Context as _, Result, ensure};
use tests::{
    fence::Fence,
    namespace::NOBODY,
    run::{fenced, to_end, without_sudo},
    workspace,
};

/// Makes a session keyring of a user's with a key in it, and runs a command with itself as the arguments that read it.
const PROGRAM: &str = r#"
import ctypes, os, platform, sys
libc = ctypes.CDLL(None, use_errno=True)
ADD_KEY, KEYCTL = {"x86_64": (248, 250), "aarch64": (217, 219)}[platform.machine()]
JOIN, READ, SESSION = 1, 11, -3

def said(result):
    if result < 0:
        sys.exit(os.strerror(ctypes.get_errno()))
    return result

if sys.argv[1] == "read":
    into = ctypes.create_string_buffer(64)
    said(libc.syscall(KEYCTL, READ, int(sys.argv[2]), into, 64, 0))
    print(into.value.decode())
elif sys.argv[1] == "fill":
    said(libc.syscall(KEYCTL, JOIN, None))
    owner = int(sys.argv[2])
    os.setresuid(owner, owner, 0)
    most = int(open("/proc/sys/kernel/keys/maxkeys").read())
    made = [libc.syscall(ADD_KEY, b"user", b"%d" % number, b"1", 1, SESSION) for number in range(most + 1)]
    if min(made) >= 0:
        sys.exit("the user may have any number of keys")
    os.setresuid(0, 0, 0)
    os.execvp(sys.argv[3], sys.argv[3:] + ["/bin/echo", "started"])
else:
    owner = int(sys.argv[2])
    os.setresuid(owner, owner, 0)
    said(libc.syscall(KEYCTL, JOIN, None))
    key = said(libc.syscall(ADD_KEY, b"user", b"qfence-test", b"secret", 6, SESSION))
    os.setresuid(0, 0, 0)
    reader = ["/usr/bin/python3", os.path.abspath(__file__), "read", str(key)]
    os.execvp(sys.argv[3], sys.argv[3:] + reader)
"#;

/// Runs a launcher with a key in the session keyring that `owner` has made; what the program that it starts reads of it.
fn read(owner: u32, launcher: &[String]) -> Result<tests::run::Ended> {
    run("make", owner, launcher)
}

/// Runs a launcher after the program has done something with the keys of `owner`.
fn run(what: &str, owner: u32, launcher: &[String]) -> Result<tests::run::Ended> {
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), PROGRAM)?;
    workspace::make_readable(file.path())?;
    let mut command = Command::new("/usr/bin/python3");
    command.arg(file.path()).args([what, &owner.to_string()]);
    command.args(launcher);
    without_sudo(&mut command);
    to_end(command)
}

/// The words that run a command as nobody, and nothing else.
fn as_nobody() -> Vec<String> {
    let id = NOBODY.uid.to_string();
    let words = ["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"];
    words.map(str::to_owned).to_vec()
}

fn ensure_read(ended: &tests::run::Ended) -> Result<()> {
    ensure!(
        ended.code() == Some(0) && ended.stdout == "secret\n",
        "{ended:?}"
    );
    Ok(())
}

#[test]
fn a_key_of_roots_session_is_not_read_by_another_user() -> Result<()> {
    ensure_read(&read(0, &as_nobody()).context("the control")?)?;
    for options in [&[][..], &["--allow-new-privs"]] {
        let fence = Fence::new("key")?.with(&["--user", "nobody"]).with(options);
        let ended = read(0, &fence.launcher())?;
        assert_eq!(ended.code(), Some(1), "{ended:?}");
        assert_eq!(ended.stdout, "", "{ended:?}");
        assert!(ended.stderr.contains("Permission denied"), "{ended:?}");
    }
    Ok(())
}

/// As before: who called sudo finds the keys of the own session.
#[test]
fn a_key_of_the_users_own_session_is_read() -> Result<()> {
    ensure_read(&read(NOBODY.uid, &as_nobody()).context("the control")?)?;
    let fence = Fence::new("own-key")?.with(&["--user", "nobody"]);
    ensure_read(&read(NOBODY.uid, &fence.launcher())?)?;
    // The caller's are root's.
    let fence = Fence::new("roots-key")?.with(&["--user", "root"]);
    ensure_read(&read(0, &fence.launcher())?)
}

#[test]
fn a_command_starts_that_may_make_no_calls_for_keys() -> Result<()> {
    let fence = Fence::new("strict-key")?.with(&["--user", "nobody", "--strict"]);
    let fence = fence.with(&["--allow-new-privs"]);
    let ended = to_end(fenced(&fence, &["echo", "ran"]))?;
    assert_eq!(ended.stdout, "ran\n", "{ended:?}");
    Ok(())
}

/// An earlier command can have made as many keys as its user may have.
#[test]
fn a_user_who_has_all_keys_that_may_be_can_start_a_command() -> Result<()> {
    // One whom nothing else runs as.
    const OWNER: u32 = 31_447;
    let user = format!("{OWNER}:{OWNER}");
    let fence = Fence::new("quota")?.with(&["--user", &user]);
    let ended = run("fill", OWNER, &fence.launcher())?;
    assert_eq!(
        (ended.code(), &*ended.stdout),
        (Some(0), "started\n"),
        "{ended:?}"
    );
    Ok(())
}
