//! `metrics` prints, writes or serves all fences, and collecting changes nothing.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result};
use nix::{
    fcntl::{Flock, FlockArg},
    sys::signal::Signal,
};
use tests::{
    fence::{Fence, qfence},
    private::Private,
    probe,
    process::Process,
    run::{to_end, wait_until},
    shell::Shell,
    world::World,
};

#[test]
fn all_fences_are_in_one_exposition_printed_written_or_served() -> Result<()> {
    let world = World::new()?;
    let fence = Fence::new("all")?.with(&["--user", "nobody"]);
    let _shell = Shell::start(fence.command(&world.host, "sh"))?;
    let expected = format!(
        "qfence_attempts_total{{fence=\"{}\",verdict=\"denied\"}} 0",
        fence.name()
    );

    let printed = probe::output(Command::new(qfence()?).arg("metrics"))?;
    assert!(printed.contains(&expected), "{printed}");
    assert!(printed.ends_with("# EOF\n"), "{printed}");

    let directory = tempfile::tempdir()?;
    let file = directory.path().join("qfence.prom");
    probe::output(
        Command::new(qfence()?)
            .args(["metrics", "--textfile"])
            .arg(&file),
    )?;
    assert!(fs::read_to_string(&file)?.contains(&expected));

    let socket = directory.path().join("socket");
    let mut command = Command::new(qfence()?);
    command.args(["metrics", "--listen", &format!("unix:{}", socket.display())]);
    let mut server = Process::spawn(command)?;
    wait_until("it listens", || Ok(UnixStream::connect(&socket).is_ok()))?;
    let mut stream = UnixStream::connect(&socket)?;
    write!(stream, "GET /metrics HTTP/1.0\r\n\r\n")?;
    let mut served = String::new();
    stream.read_to_string(&mut served)?;
    assert!(served.contains(&expected), "{served}");
    server.signal(Signal::SIGTERM)?;
    assert!(server.wait(tests::run::HANG)?.context("it ends")?.success());
    assert!(!socket.exists());
    Ok(())
}

#[test]
fn to_collect_changes_nothing_and_waits_for_nobody() -> Result<()> {
    let host = Private::new()?;
    let metrics = || {
        let mut command = host.qfence()?;
        command.arg("metrics");
        let ended = to_end(command)?;
        assert_eq!(ended.code(), Some(0), "{ended:?}");
        assert_eq!(ended.stderr, "");
        Ok::<_, anyhow::Error>(ended.stdout)
    };
    let parent = host.cgroup().join("qfence");
    assert!(!metrics()?.contains("fence=\""));
    assert!(!parent.exists(), "a cgroup was made");
    host.namespace().run(|| {
        assert!(!Path::new("/run/qfence").exists());
        assert!(!Path::new("/sys/fs/bpf/qfence").exists());
        Ok(())
    })?;

    let mut command = host.qfence()?;
    command.args(["exec", "--name", "vm1", "--user", "nobody", "--", "sh"]);
    let mut shell = Shell::start(command)?;
    // What a dead fence left is not theirs to clear.
    fs::create_dir(parent.join("dead"))?;
    let description = Path::new("/run/qfence/dead.json");
    host.namespace().run(|| Ok(fs::write(description, "{}")?))?;
    // Somebody makes or removes a fence, and does not come to an end of it.
    let lock = Flock::lock(fs::File::open(&parent)?, FlockArg::LockExclusive);
    let lock = lock.map_err(|(_, errno)| errno)?;
    let text = metrics()?;
    assert!(text.contains("fence=\"vm1\""), "{text}");
    assert!(!text.contains("dead"), "{text}");
    assert!(parent.join("dead").exists());
    host.namespace().run(|| {
        assert!(description.exists());
        Ok(())
    })?;
    drop(lock);
    // The control: `ps` clears it.
    let mut command = host.qfence()?;
    command.arg("ps");
    let ended = to_end(command)?;
    assert!(
        ended
            .stderr
            .contains("clearing the remains of the fence dead"),
        "{ended:?}"
    );
    assert!(!parent.join("dead").exists());
    shell.close_input();
    assert_eq!(shell.wait_for_code()?, 0);
    Ok(())
}
