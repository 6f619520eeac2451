//! Sockets of systemd are for the command if it gets them, and are not announced otherwise.

use std::process::Command;

use anyhow::Result;
use tests::{
    fence::Fence,
    run::{Ended, to_end},
};

const SCRIPT: &str = "test \"$LISTEN_PID\" = $$ && echo own; test \"$WATCHDOG_PID\" = $$ && echo own watchdog; \
     echo ${LISTEN_PID+set} ${LISTEN_FDS-none} ${LISTEN_FDNAMES-none} ${LISTEN_PIDFDID-none}; \
     test -e /proc/self/fd/3 && echo open";

/// Runs the script as systemd would for a unit with a socket, if `owner` is `$$`.
fn run(options: &[&str], owner: &str) -> Result<Ended> {
    let fence = Fence::new("activation")?
        .with(&["--user", "nobody"])
        .with(options);
    let mut command = Command::new("sh");
    let variables = format!(
        "export LISTEN_PID={owner} WATCHDOG_PID={owner} LISTEN_FDS=1 LISTEN_FDNAMES=web LISTEN_PIDFDID=5"
    );
    command.args([
        "-c",
        &format!("{variables}; exec 3<>/dev/null; exec \"$@\""),
        "sh",
    ]);
    command.args(fence.launcher()).args(["sh", "-c", SCRIPT]);
    tests::run::without_sudo(&mut command);
    to_end(command)
}

#[test]
fn sockets_that_are_passed_on_are_the_commands() -> Result<()> {
    for options in [&[][..], &["--keep"], &["--strict=rights"]] {
        let options = [&["--preserve-fds", "1"], options].concat();
        let ended = run(&options, "$$")?;
        assert!(ended.stdout.starts_with("own\n"), "{options:?}: {ended:?}");
        assert!(
            ended.stdout.ends_with("set 1 web none\nopen\n"),
            "{options:?}: {ended:?}"
        );
        assert!(!ended.stderr.contains("hint"), "{ended:?}");
    }
    let ended = run(&["--preserve-fds", "1"], "$$")?;
    assert!(ended.stdout.contains("own watchdog\n"), "{ended:?}");
    Ok(())
}

#[test]
fn sockets_that_are_closed_are_not_announced() -> Result<()> {
    let ended = run(&[], "$$")?;
    assert_eq!(ended.stdout, "own watchdog\nnone none none\n", "{ended:?}");
    let hint = "(LISTEN_FDS=1), which are not fenced; --preserve-fds 1 passes them on\n";
    assert!(ended.stderr.contains(hint), "{ended:?}");
    // The control: what is meant for another process is as before.
    let ended = run(&[], "1")?;
    assert_eq!(ended.stdout, "set 1 web 5\n", "{ended:?}");
    assert_eq!(ended.stderr, "");
    Ok(())
}
