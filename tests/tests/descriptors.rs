//! The command has the descriptors it should have, and the supervisor keeps none of them open.

use std::{
    net::UdpSocket,
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};
use tests::{
    fence::Fence,
    process::Process,
    remains,
    run::{Ended, HANG, read_all, to_end, to_end_with, without_sudo},
};

/// Which of the first 200 descriptors are open, found without opening one.
const LIST: [&str; 3] = [
    "sh",
    "-c",
    "fd=0; while [ $fd -lt 200 ]; do [ -e /proc/$$/fd/$fd ] && echo $fd; fd=$((fd + 1)); done",
];

const ROOT_WARNING: &str = "qfence: warning: the command runs as root, and root can leave its \
     fence; give --user, or call with sudo\n";

/// A caller that arranges its descriptors with `redirections` and becomes the words that follow.
fn caller(redirections: &str, words: impl IntoIterator<Item = impl Into<String>>) -> Command {
    let mut caller = Command::new("bash");
    // What the test itself was started with is not to be counted: cargo hands descriptors down.
    let close = "for fd in {3..200}; do eval \"exec $fd>&-\"; done";
    let script = format!("{close}; exec {redirections}; exec \"$@\"");
    caller.args(["-c", &script, "bash"]);
    caller.args(words.into_iter().map(Into::into));
    without_sudo(&mut caller);
    caller
}

fn in_fence(fence: &Fence, redirections: &str, words: &[&str]) -> Command {
    let words = words.iter().map(|word| (*word).to_owned());
    caller(redirections, fence.launcher().into_iter().chain(words))
}

fn open_ones(ended: &Ended) -> Vec<&str> {
    ended.stdout.lines().collect()
}

const OPENED: &str = "3</dev/null 5>/dev/null 9</dev/zero 100</dev/null";

#[test]
fn inherited_descriptors_are_closed() -> Result<()> {
    let outside = to_end(caller(OPENED, LIST))?;
    assert_eq!(open_ones(&outside), ["0", "1", "2", "3", "5", "9", "100"]);
    let fence = Fence::new("closed")?;
    let inside = to_end(in_fence(&fence, OPENED, &LIST))?;
    assert_eq!(open_ones(&inside), ["0", "1", "2"]);
    remains::ensure_none(fence.name())
}

#[test]
fn as_many_as_asked_for_are_kept() -> Result<()> {
    let opened = format!("{OPENED} 4</dev/null");
    for (count, expected) in [
        ("0", &["0", "1", "2"][..]),
        ("1", &["0", "1", "2", "3"]),
        ("2", &["0", "1", "2", "3", "4"]),
        ("3", &["0", "1", "2", "3", "4", "5"]),
    ] {
        let fence = Fence::new("kept")?.with(&["--preserve-fds", count]);
        let inside = to_end(in_fence(&fence, &opened, &LIST))?;
        assert_eq!(open_ones(&inside), expected, "{inside:?}");
    }
    Ok(())
}

#[test]
fn one_asked_for_that_is_not_open_is_an_error() -> Result<()> {
    let fence = Fence::new("missing")?.with(&["--preserve-fds", "2"]);
    let ended = to_end(in_fence(&fence, OPENED, &LIST))?;
    assert_eq!(ended.code(), Some(125));
    assert_eq!(ended.stdout, "");
    assert_eq!(
        ended.stderr,
        "qfence: error: descriptor 4 is not open, and --preserve-fds 2 asks for it\n"
    );
    remains::ensure_none(fence.name())
}

#[test]
fn closed_standard_streams_do_no_harm() -> Result<()> {
    let fence = Fence::new("streams")?;
    let script = "echo ran >&2; exit 7";
    let ended = to_end(in_fence(&fence, "0<&- 1>&-", &["sh", "-c", script]))?;
    assert_eq!(ended.code(), Some(7), "{ended:?}");
    assert!(ended.stderr.ends_with("ran\n"), "{ended:?}");
    remains::ensure_none(fence.name())
}

#[test]
fn a_preserved_pipe_ends_when_the_command_closes_it() -> Result<()> {
    let fence = Fence::new("pipe")?.with(&["--preserve-fds", "1"]);
    let script = "echo through the pipe >&3; exec 3>&-; read line; exit 4";
    let mut command = in_fence(&fence, "3>&1 1>/dev/null", &["sh", "-c", script]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut process = Process::spawn(command)?;
    let pipe = process.child().stdout.take().context("a piped stdout")?;
    let read = read_all(pipe)
        .recv_timeout(HANG)
        .context("the pipe does not end")??;
    assert_eq!(String::from_utf8_lossy(&read), "through the pipe\n");
    // The command is there still, and waits to be told to end.
    assert_eq!(remains::pids(fence.name())?.len(), 1);
    process.child().stdin = None;
    let status = process.wait(HANG)?.context("it does not end")?;
    assert_eq!(status.code(), Some(4));
    remains::ensure_none(fence.name())
}

/// A table that grows while a supervisor has threads makes its start wait for the kernel, twice.
#[test]
fn a_supervisor_makes_its_table_large_before_it_has_threads() -> Result<()> {
    let size = "grep FDSize /proc/$PPID/status | grep -o '[0-9]*$'";
    for options in [&[][..], &["--keep"]] {
        let fence = Fence::new("table")?.with(options);
        let ended = to_end(in_fence(&fence, "2>&2", &["sh", "-c", size]))?;
        assert_eq!(open_ones(&ended), ["512"], "{ended:?}");
        remains::ensure_none(fence.name())?;
    }
    Ok(())
}

/// The warnings that a command with `stdin` gets, after its caller has made `redirections`.
fn warnings(stdin: OwnedFd, redirections: &str, count: &str) -> Result<String> {
    let fence = Fence::new("socket")?.with(&["--preserve-fds", count]);
    let command = in_fence(&fence, redirections, &["true"]);
    let ended = to_end_with(command, Stdio::from(stdin), b"")?;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let rest = ended.stderr.strip_prefix(ROOT_WARNING);
    Ok(rest.context(ended.stderr.clone())?.to_owned())
}

#[test]
fn an_internet_socket_from_outside_is_warned_of() -> Result<()> {
    let warning = |fd| {
        format!(
            "qfence: warning: descriptor {fd} is an internet socket made outside the fence: it is \
             not fenced\n"
        )
    };
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let socket = || UdpSocket::bind(address).map(OwnedFd::from);
        assert_eq!(warnings(socket()?, "2>&2", "0")?, warning(0));
        assert_eq!(warnings(socket()?, "3<&0 0</dev/null", "1")?, warning(3));
        let both = warning(0) + &warning(4);
        assert_eq!(warnings(socket()?, "3</dev/null 4<&0", "2")?, both);
        // One that is closed is no way out.
        assert_eq!(warnings(socket()?, "3<&0 0</dev/null", "0")?, "");
    }
    Ok(())
}

#[test]
fn a_unix_socket_from_outside_is_not() -> Result<()> {
    let (socket, _other) = UnixStream::pair()?;
    assert_eq!(warnings(socket.into(), "3<&0", "1")?, "");
    Ok(())
}
