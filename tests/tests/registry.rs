//! The registry of fences is /run/qfence, and not the cgroups: a description that its supervisor marks, and the lock on the
//! directory. Whoever asks changes nothing.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    fcntl::{Flock, FlockArg},
    sys::{
        signal::Signal,
        stat::{major, minor},
    },
};
use tests::{
    mounts::mount_new,
    namespace::Namespace,
    private::Private,
    process::Process,
    run::{Ended, to_end, wait_until, without_sudo},
    shell::Shell,
};

const RUN: &str = "/run/qfence";

/// How long a process may take to end.
const HANG: Duration = Duration::from_secs(30);

fn qfence(host: &Private, words: &[&str]) -> Result<Ended> {
    let mut command = host.qfence()?;
    without_sudo(command.args(words));
    to_end(command)
}

fn shell(host: &Private, name: &str) -> Result<Shell> {
    let mut command = host.qfence()?;
    command.args(["exec", "--name", name, "--user", "nobody", "--log", "none"]);
    without_sudo(command.args(["--", "sh"]));
    Shell::start(command)
}

/// A shell in a fence whose supervisor was killed.
fn orphan(host: &Private, name: &str) -> Result<Shell> {
    let mut shell = shell(host, name)?;
    shell.ask("true")?;
    shell.kill_supervisor()?;
    Ok(shell)
}

/// What `ps` says of the state of each fence.
fn states(host: &Private) -> Result<Vec<(String, String)>> {
    let ps = qfence(host, &["ps", "--json"])?;
    ensure!(ps.code() == Some(0), "{ps:?}");
    let rows: Vec<serde_json::Value> = serde_json::from_str(&ps.stdout)?;
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    Ok(rows
        .iter()
        .map(|row| (text(&row["name"]), text(&row["state"])))
        .collect())
}

fn of(name: &str, state: &str) -> (String, String) {
    (name.to_owned(), state.to_owned())
}

/// The files of fences in the host's /run/qfence.
fn described(host: &Private) -> Result<Vec<String>> {
    host.namespace().run(|| {
        let entries = fs::read_dir(RUN).context(RUN)?;
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let mut names: Vec<String> = names.collect::<Result<_>>()?;
        names.retain(|name| {
            [".json", ".policy", ".log"]
                .iter()
                .any(|end| name.ends_with(end))
        });
        names.sort();
        Ok(names)
    })
}

fn lock(directory: &Path) -> Result<Flock<File>> {
    let lock = Flock::lock(File::open(directory)?, FlockArg::LockExclusiveNonblock);
    lock.map_err(|(_, errno)| errno)
        .with_context(|| format!("lock {}", directory.display()))
}

#[test]
fn a_supervisor_marks_the_description_of_its_fence_as_long_as_it_lives() -> Result<()> {
    let host = Private::new()?;
    let mut shell = shell(&host, "vm")?;
    shell.ask("true")?;
    let file = host
        .namespace()
        .run(|| Ok(fs::metadata(format!("{RUN}/vm.json"))?))?;
    let (major, minor) = (major(file.dev()), minor(file.dev()));
    let file = format!(" {major:02x}:{minor:02x}:{} ", file.ino());
    let is_marked = || -> Result<bool> {
        let locks = fs::read_to_string("/proc/locks")?;
        let mut marks = locks.lines().filter(|line| line.contains("OFDLCK"));
        Ok(marks.any(|line| line.contains(&file)))
    };
    assert!(is_marked()?, "{}", fs::read_to_string("/proc/locks")?);
    assert_eq!(states(&host)?, [of("vm", "running")]);
    shell.kill_supervisor()?;
    assert!(!is_marked()?);
    assert_eq!(states(&host)?, [of("vm", "orphaned")]);
    assert_eq!(qfence(&host, &["rm", "-t", "0", "vm"])?.code(), Some(0));
    assert_eq!(described(&host)?, [""; 0]);
    Ok(())
}

/// Whoever makes or removes fences waits for the lock on the registry, and a signal ends that.
#[test]
fn the_lock_on_the_registry_is_waited_for() -> Result<()> {
    let host = Private::new()?;
    let mut first = shell(&host, "first")?;
    first.ask("true")?;
    let locked = host.namespace().run(|| lock(Path::new(RUN)))?;
    let mut command = host.qfence()?;
    command.args(["exec", "--name", "second", "--user", "nobody", "--", "true"]);
    let errors = tempfile::NamedTempFile::new()?;
    without_sudo(&mut command).stderr(errors.reopen()?);
    let mut waits = Process::spawn(command)?;
    let said = || fs::read_to_string(errors.path()).unwrap_or_default();
    let holder = format!("the lock on {RUN}, which process {} (", std::process::id());
    wait_until("it is said who has the lock", || {
        Ok(said().contains(&holder))
    })
    .with_context(said)?;
    waits.signal(Signal::SIGTERM)?;
    let ended = waits.wait(HANG)?.with_context(said)?;
    assert_eq!(ended.code(), Some(143), "{}", said());
    assert!(!host.cgroup().join("qfence/second").exists());
    // Those who look need not wait.
    let metrics = qfence(&host, &["metrics"])?;
    assert!(metrics.stdout.contains(r#"fence="first""#), "{metrics:?}");
    drop(locked);
    assert_eq!(states(&host)?, [of("first", "running")]);
    first.close_input();
    assert_eq!(first.wait_for_code()?, 0);
    Ok(())
}

#[test]
fn to_look_makes_nothing_and_clears_nothing() -> Result<()> {
    let host = Private::new()?;
    let looks: [&[&str]; 8] = [
        &["logs", "dead"],
        &["policy", "show", "dead"],
        &["policy", "suggest", "dead"],
        &["explain", "dead", "192.0.2.1"],
        &["set", "dead", "--keep-established", "--allow", "host"],
        &["metrics"],
        &["doctor"],
        &["verify", "--short"],
    ];
    for words in &looks[..6] {
        let ended = qfence(&host, words)?;
        let is_there = host.namespace().run(|| Ok(Path::new(RUN).exists()))?;
        assert!(!is_there, "{words:?} {ended:?}");
        assert!(
            !host.cgroup().join("qfence").exists(),
            "{words:?} {ended:?}"
        );
    }
    // What a dead fence left, and a fence.
    let mut running = shell(&host, "running")?;
    running.ask("true")?;
    fs::create_dir(host.cgroup().join("qfence/dead"))?;
    host.namespace()
        .run(|| Ok(fs::write(format!("{RUN}/dead.json"), "{}")?))?;
    let locked = [
        host.namespace().run(|| lock(Path::new(RUN)))?,
        lock(&host.cgroup().join("qfence"))?,
    ];
    for words in &looks[..6] {
        let ended = qfence(&host, words)?;
        assert!(!ended.stderr.contains("clearing"), "{words:?} {ended:?}");
    }
    drop(locked);
    for words in &looks[6..] {
        let ended = qfence(&host, words)?;
        assert!(!ended.stderr.contains("clearing"), "{words:?} {ended:?}");
    }
    assert!(host.cgroup().join("qfence/dead").exists());
    assert!(described(&host)?.contains(&"dead.json".to_owned()));
    // The control: `ps` clears it.
    assert_eq!(states(&host)?, [of("running", "running")]);
    assert!(!host.cgroup().join("qfence/dead").exists());
    assert!(!described(&host)?.contains(&"dead.json".to_owned()));
    running.close_input();
    assert_eq!(running.wait_for_code()?, 0);
    Ok(())
}

/// As of a version with another registry, or after somebody emptied /run.
#[test]
fn a_cgroup_that_the_registry_does_not_have_is_named_and_removed() -> Result<()> {
    let host = Private::new()?;
    let mut shell = orphan(&host, "stray")?;
    host.namespace().run(|| {
        for entry in fs::read_dir(RUN)? {
            fs::remove_file(entry?.path())?;
        }
        Ok(())
    })?;
    assert_eq!(states(&host)?, [of("stray", "orphaned")]);
    let words = ["exec", "--name", "stray", "--user", "nobody", "--", "true"];
    let ended = qfence(&host, &words)?;
    assert_eq!(ended.code(), Some(125), "{ended:?}");
    assert!(ended.stderr.contains("already exists"), "{ended:?}");
    shell.ask("true")?;
    let ended = qfence(&host, &["rm", "-t", "0", "stray"])?;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert!(host.left()?.is_empty(), "{:?}", host.left()?);
    assert_eq!(described(&host)?, [""; 0]);
    Ok(())
}

/// Each half of what a crash leaves between two steps.
#[test]
fn a_cgroup_or_a_description_alone_is_cleared() -> Result<()> {
    let host = Private::new()?;
    assert_eq!(states(&host)?, []);
    fs::create_dir(host.cgroup().join("qfence/cgroup-alone"))?;
    host.namespace().run(|| {
        let description =
            r#"{"id":"1","cgroup":4503599627370495,"command":[],"supervisor":1,"started":""}"#;
        Ok(fs::write(
            format!("{RUN}/described-alone.json"),
            description,
        )?)
    })?;
    let ps = qfence(&host, &["ps"])?;
    for name in ["cgroup-alone", "described-alone"] {
        let said = format!("clearing the remains of the fence {name}\n");
        assert!(ps.stderr.contains(&said), "{ps:?}");
    }
    assert!(host.left()?.is_empty(), "{:?}", host.left()?);
    assert_eq!(described(&host)?, [""; 0]);
    Ok(())
}

/// Who sees the cgroup, and neither the registry nor the pins, does not take it for a leftover while a supervisor lives.
#[test]
fn an_empty_cgroup_of_another_registry_is_left_while_its_supervisor_lives() -> Result<()> {
    let host = Private::new()?;
    let mut shell = shell(&host, "other")?;
    let command = nix::unistd::Pid::from_raw(i32::try_from(shell.pid()?)?);
    let cgroup = host.cgroup().join("qfence/other");
    shell.signal(Signal::SIGSTOP)?;
    nix::sys::signal::kill(command, Signal::SIGKILL)?;
    wait_until("nothing runs in the fence", || {
        Ok(fs::read_to_string(cgroup.join("cgroup.events"))?.contains("populated 0"))
    })?;
    let container = host.namespace().run(|| {
        Namespace::with_mounts(|| {
            mount_new("tmpfs", "/run", None)?;
            mount_new("bpf", "/sys/fs/bpf", None)
        })
    })?;
    let ps = || -> Result<Ended> {
        let mut command = container.command(tests::fence::qfence()?);
        command.arg("ps");
        to_end(command)
    };
    let ended = ps()?;
    assert_eq!((ended.code(), &*ended.stderr), (Some(0), ""), "{ended:?}");
    assert!(cgroup.exists());
    // The control: without a supervisor it is one.
    shell.kill_supervisor()?;
    let ended = ps()?;
    assert!(
        ended
            .stderr
            .contains("clearing the remains of the fence other"),
        "{ended:?}"
    );
    assert!(!cgroup.exists());
    Ok(())
}
