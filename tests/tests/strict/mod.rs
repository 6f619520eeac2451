//! `--strict`: each closure closes its own ways out and no other's, and what the command was granted works.

mod grants;
mod guest;
mod jobs;
mod start;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result};
use tempfile::TempDir;
use tests::{
    fence::Fence,
    namespace::NOBODY,
    process::Process,
    run::{Ended, fenced, to_end, wait_until},
};

const PYTHON: &str = "/usr/bin/python3";

/// Another process of the user, and a directory that stands for its home.
struct Scene {
    home: TempDir,
    /// Ends when its input closes.
    victim: Process,
    key: u32,
}

/// What an attempt is to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Done,
    Refused,
}

impl Scene {
    fn new() -> Result<Self> {
        let home = tempfile::Builder::new()
            .prefix("qfence-home-")
            .tempdir_in("/var/tmp")?;
        let mut scene = Self {
            home,
            key: unique_key(),
            victim: Process::spawn(Command::new("true"))?,
        };
        for name in ["attempts.py", "victim.py"] {
            let text = match name {
                "attempts.py" => include_str!("attempts.py"),
                _ => include_str!("victim.py"),
            };
            fs::write(scene.script(name), text)?;
        }
        scene.furnish()?;
        let mut command = as_nobody(&[
            PYTHON,
            &text(&scene.script("victim.py"))?,
            &scene.key.to_string(),
        ])?;
        let ready = tempfile::NamedTempFile::new()?;
        command.stdin(Stdio::piped()).stdout(ready.reopen()?);
        scene.victim = Process::spawn(command)?;
        wait_until("the other process is ready", || {
            Ok(fs::read_to_string(ready.path())?.contains("ready"))
        })?;
        Ok(scene)
    }

    /// Puts the files of the home into their first state.
    fn furnish(&self) -> Result<()> {
        let home = self.home();
        let _ = fs::remove_dir_all(&home);
        fs::create_dir(&home)?;
        for name in ["secret", "dotfile"] {
            fs::write(home.join(name), "content")?;
            chown(home.join(name), Some(NOBODY.uid), Some(NOBODY.gid))?;
        }
        chown(&home, Some(NOBODY.uid), Some(NOBODY.gid))?;
        // For everybody, so that the scripts in it can be read.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        Ok(fs::set_permissions(self.home.path(), mode)?)
    }

    fn home(&self) -> PathBuf {
        self.home.path().join("home")
    }

    fn script(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// The outcome of each attempt, in a fence with these options or without one.
    fn outcomes(&self, options: Option<&[&str]>) -> Result<BTreeMap<(String, String), String>> {
        self.furnish()?;
        let words = [
            PYTHON.to_owned(),
            text(&self.script("attempts.py"))?,
            self.victim.id().to_string(),
            self.key.to_string(),
            text(&self.home())?,
        ];
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let fence;
        let mut command = match options {
            None => as_nobody(&words)?,
            Some(options) => {
                let script = text(&self.script("attempts.py"))?;
                let read = match options.iter().any(|option| option.starts_with("--strict")) {
                    true => &["--allow-read", &script][..],
                    false => &[],
                };
                let named = Fence::new("strict")?.with(&["--user", "nobody"]);
                fence = named.with(options).with(read);
                fenced(&fence, &words)
            }
        };
        command.env("QFENCE_SECRET", "x");
        // Without this a system may have no core dumps.
        allow_cores(&mut command);
        let ended = to_end(command)?;
        assert_eq!(ended.code(), Some(0), "{ended:?}");
        let line = |line: &str| {
            let mut words = line.split(' ').map(str::to_owned);
            let mut next = || {
                words
                    .next()
                    .context("a closure, an attempt and its outcome")
            };
            Ok(((next()?, next()?), next()?))
        };
        ended.stdout.lines().map(line).collect()
    }
}

/// A key of shared memory that no test at the same time uses.
fn unique_key() -> u32 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed) & 0xff;
    0x5000_0000 | ((std::process::id() & 0xf_ffff) << 8) | number
}

fn text(path: &Path) -> Result<String> {
    Ok(path.to_str().context("a path in UTF-8")?.to_owned())
}

fn as_nobody(words: &[&str]) -> Result<Command> {
    let mut command = Command::new("setpriv");
    let (uid, gid) = (NOBODY.uid.to_string(), NOBODY.gid.to_string());
    command
        .args(["--reuid", &uid, "--regid", &gid, "--clear-groups", "--"])
        .args(words);
    Ok(command)
}

fn allow_cores(command: &mut Command) {
    use std::os::unix::process::CommandExt as _;
    let raise = || {
        let all = nix::libc::RLIM_INFINITY;
        nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, all, all)?;
        Ok(())
    };
    // SAFETY: it makes one system call.
    unsafe { command.pre_exec(raise) };
}

/// Checks the attempts of each closure.
fn check(
    outcomes: &BTreeMap<(String, String), String>,
    expected: impl Fn(&str) -> Expected,
) -> Result<()> {
    let wrong: Vec<_> = outcomes
        .iter()
        .filter(|((closure, _), outcome)| {
            (*outcome == "done") != (expected(closure) == Expected::Done)
        })
        .collect();
    anyhow::ensure!(wrong.is_empty(), "{wrong:?}");
    Ok(())
}

#[test]
fn each_closure_closes_its_own_ways_out() -> Result<()> {
    let scene = Scene::new()?;
    check(&scene.outcomes(None)?, |_| Expected::Done).context("the control, without a fence")?;
    // The Landlock domain is there by default.
    let by_default = |closure: &str| match closure {
        "domain" => Expected::Refused,
        _ => Expected::Done,
    };
    check(&scene.outcomes(Some(&[]))?, by_default).context("by default")?;
    for list in [
        "files",
        "syscalls",
        "processes",
        "rights",
        "files,rights",
        "syscalls,processes",
    ] {
        let option = format!("--strict={list}");
        let closed = |closure: &str| match list.split(',').any(|named| named == closure) {
            true => Expected::Refused,
            false => by_default(closure),
        };
        let outcomes = scene.outcomes(Some(&[&option]));
        let mut outcomes = outcomes.with_context(|| option.clone())?;
        if list.contains("files") {
            // A domain that restricts files forbids mounting too.
            outcomes.remove(&("syscalls".into(), "mount-in-namespace".into()));
        }
        check(&outcomes, closed).context(option)?;
    }
    let all = |closure: &str| match closure {
        "kept" => Expected::Done,
        _ => Expected::Refused,
    };
    check(&scene.outcomes(Some(&["--strict"]))?, all).context("--strict")
}

/// Runs a shell script in a strict fence.
fn shell(options: &[&str], script: &str) -> Result<Ended> {
    let fence = Fence::new("strict-shell")?
        .with(&["--user", "nobody"])
        .with(options);
    to_end(fenced(&fence, &["sh", "-c", script]))
}

#[test]
fn what_is_granted_can_be_read_and_changed() -> Result<()> {
    let scene = Scene::new()?;
    let home = text(&scene.home())?;
    let read = format!(
        "cat {home}/secret && ! echo x 2>/dev/null >> {home}/dotfile && ! chmod 777 {home}/dotfile"
    );
    let ended = shell(&["--strict", "--allow-read", &home], &read)?;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let change = format!(
        "cd {home} && echo x > new && chmod 700 new && mv new newer && mkdir -p a/b && mv newer a/b && touch dotfile && rm secret && rm -r a"
    );
    let ended = shell(&["--strict", "--allow-write", &home], &change)?;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let one = format!("echo x >> {home}/dotfile && ! cat {home}/new");
    fs::write(scene.home().join("new"), "content")?;
    let file = format!("{home}/dotfile");
    let ended = shell(&["--strict", "--allow-write", &file], &one)?;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    Ok(())
}

#[test]
fn temporary_files_are_gone_afterwards_and_variables_can_be_kept() -> Result<()> {
    let script = "echo $TMPDIR; mkdir -p $TMPDIR/a/b; echo x > $TMPDIR/a/b/c; test \"$KEPT\" = x && test -z \"$LOST\"";
    let fence = Fence::new("strict-temporary")?.with(&[
        "--user",
        "nobody",
        "--strict",
        "--allow-env",
        "KEPT",
    ]);
    let mut command = fenced(&fence, &["sh", "-c", script]);
    command.env("KEPT", "x").env("LOST", "y");
    let ended = to_end(command)?;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let directory = ended.stdout.trim();
    assert!(directory.starts_with("/var/tmp/qfence-"), "{ended:?}");
    assert!(!Path::new(directory).exists(), "{directory}");
    Ok(())
}

/// A directory of the user that is read-only on the host stays so, although it was granted for changes.
#[test]
fn a_mount_that_is_read_only_stays_so() -> Result<()> {
    let fence = Fence::new("strict-mount")?.with(&[
        "--user",
        "nobody",
        "--strict=files",
        "--allow-write",
        "/mnt",
    ]);
    let world = tests::mounts::host_with(|| {
        tests::mounts::mount_new("tmpfs", "/mnt", Some("mode=0777"))?;
        fs::create_dir("/mnt/closed")?;
        tests::mounts::mount_new("tmpfs", "/mnt/closed", Some("mode=0777,ro"))
    })?;
    let mut command = fence.command(&world, "sh");
    command.args(["-c", "touch /mnt/x && ! touch /mnt/closed/x"]);
    tests::run::without_sudo(&mut command);
    let ended = to_end(command)?;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert!(ended.stderr.contains("Read-only file system"), "{ended:?}");
    Ok(())
}

/// Who calls is told once for each kind of call.
#[test]
fn calls_that_nobody_makes_by_accident_are_reported_once() -> Result<()> {
    let script = "import socket\nfor family in [40, 40, 38, 40]:\n  try: socket.socket(family, 1)\n  except OSError as error: print(error.errno)\n";
    let fence = Fence::new("strict-report")?.with(&["--user", "nobody", "--strict=syscalls"]);
    let ended = to_end(fenced(&fence, &[PYTHON, "-c", script]))?;
    assert_eq!(ended.stdout, "1\n1\n1\n1\n", "{ended:?}");
    for family in [40, 38] {
        let report = format!("called socket with address family {family};");
        assert_eq!(ended.stderr.matches(&report).count(), 1, "{ended:?}");
    }
    assert!(ended.stderr.contains("python3"), "{ended:?}");
    Ok(())
}
