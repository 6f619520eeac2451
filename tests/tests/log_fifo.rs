//! FIFOs as logs: who reads a line takes it away, so nobody in the fence may be able to.

use std::{
    fs::{self, File},
    io::Read as _,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context as _, Result};
use nix::{
    sys::{signal::Signal, stat::Mode},
    unistd::mkfifo,
};
use tests::{
    fence::{qfence, unique_name},
    namespace::{NOBODY, Namespace},
    run::{Ended, to_end, wait_until, without_sudo},
    shell::Shell,
    workspace,
};

fn fifo(directory: &Path, name: &str, mode: u32) -> Result<PathBuf> {
    let path = directory.join(name);
    mkfifo(&path, Mode::S_IRWXU)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    Ok(path)
}

/// Opens it for both, so that nobody waits for anybody.
fn hold(fifo: &Path) -> Result<File> {
    Ok(File::options().read(true).write(true).open(fifo)?)
}

fn run(log: &Path, user: &str, script: &str) -> Result<Ended> {
    let host = Namespace::new()?;
    let mut command = host.command(qfence()?);
    command.args([
        "exec",
        "--name",
        &unique_name("fifo"),
        "--user",
        user,
        "--log",
    ]);
    command.arg(log).args(["--", "bash", "-c", script]);
    to_end({
        without_sudo(&mut command);
        command
    })
}

#[test]
fn one_that_a_process_in_the_fence_may_read_is_refused() -> Result<()> {
    let dir = tempfile::tempdir()?;
    workspace::make_readable(dir.path())?;
    let public = fifo(dir.path(), "public", 0o644)?;
    let theirs = fifo(dir.path(), "theirs", 0o600)?;
    chown(&theirs, Some(NOBODY.uid), Some(NOBODY.gid))?;
    let own = fifo(dir.path(), "own", 0o600)?;
    let held: Vec<File> = [&public, &theirs, &own]
        .into_iter()
        .map(|fifo| hold(fifo))
        .collect::<Result<_>>()?;
    for (log, why) in [
        (&public, "others than its owner may read"),
        (&theirs, "of the user that the command runs as"),
    ] {
        // Its command could take lines out of it.
        let ended = run(log, "nobody", &format!("exec 3<{}", log.display()))?;
        assert_eq!(ended.code(), Some(125), "{ended:?}");
        assert!(ended.stderr.contains(why), "{ended:?}");
    }
    // The controls: root's own, which the command cannot open; and that user's, where the command is another's.
    let open = format!("exec 3<{}; echo $?", own.display());
    let ended = run(&own, "nobody", &format!("({open})"))?;
    assert!(ended.stderr.contains("Permission denied"), "{ended:?}");
    let ended = run(&theirs, "daemon", "exit 7")?;
    assert_eq!(ended.code(), Some(7), "{ended:?}");
    drop(held);
    Ok(())
}

#[test]
fn at_a_signal_the_log_that_is_open_is_kept_if_the_new_one_is_refused() -> Result<()> {
    let dir = tempfile::tempdir()?;
    workspace::make_readable(dir.path())?;
    let log = fifo(dir.path(), "log", 0o600)?;
    let mut old = hold(&log)?;
    let host = Namespace::new()?;
    let mut command = host.command(qfence()?);
    command.args(["exec", "--name", &unique_name("reopen"), "--user", "nobody"]);
    command.arg("--log").arg(&log).args(["--", "bash"]);
    without_sudo(&mut command);
    let mut shell = Shell::start(command)?;
    fs::rename(&log, dir.path().join("log.1"))?;
    let public = fifo(dir.path(), "log", 0o644)?;
    let _held = hold(&public)?;
    shell.signal(Signal::SIGUSR1)?;
    wait_until("it is refused", || {
        let said = shell.stderr();
        Ok(said.contains("others than its owner may read") && said.contains("remains in use"))
    })?;
    shell.ask("echo 2>/dev/null >/dev/udp/127.0.0.1/9")?;
    let reading = thread::spawn(move || {
        let mut line = vec![0; 4096];
        old.read(&mut line).map(|count| {
            line.truncate(count);
            String::from_utf8_lossy(&line).into_owned()
        })
    });
    wait_until("the old one gets it", || Ok(reading.is_finished()))?;
    let line = reading.join().ok().context("a thread has failed")??;
    assert!(line.contains("denied udp 127.0.0.1:9"), "{line}");
    // Where it may be taken, it is.
    fs::set_permissions(&public, fs::Permissions::from_mode(0o600))?;
    let mut new = hold(&public)?;
    shell.signal(Signal::SIGUSR1)?;
    // The word and the next line come in order.
    thread::sleep(std::time::Duration::from_millis(500));
    shell.ask("echo 2>/dev/null >/dev/udp/127.0.0.1/10")?;
    let mut line = vec![0; 4096];
    let reading = thread::spawn(move || new.read(&mut line).map(|count| line[..count].to_vec()));
    wait_until("the new one gets it", || Ok(reading.is_finished()))?;
    let line = reading.join().ok().context("a thread has failed")??;
    let line = String::from_utf8_lossy(&line);
    assert!(line.contains("denied udp 127.0.0.1:10"), "{line}");
    shell.tell("exit")?;
    assert_eq!(shell.wait_for_code()?, 0);
    Ok(())
}
