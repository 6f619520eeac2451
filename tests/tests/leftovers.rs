//! What dead fences leave is cleared by the next command, which says so; others are left alone.
//!
//! Each test has a cgroup hierarchy, a bpffs and a /run of its own: tests beside it would clear its
//! leftovers before it can look.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use nix::mount::{MsFlags, mount};
use tests::{
    fence::{qfence, unique_name},
    namespace::Namespace,
    remains,
    run::{Ended, to_end, wait_until, without_sudo},
    shell::Shell,
};

/// A host that shares no fence with the machine's.
struct Apart {
    host: Namespace,
    cgroup: PathBuf,
}

impl Apart {
    fn new() -> Result<Self> {
        const NONE: Option<&str> = None;
        let hierarchy = remains::cgroup2_mount()?;
        let cgroup = hierarchy.join(unique_name("apart"));
        fs::create_dir(&cgroup)?;
        let host = Namespace::with_mounts(|| {
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(NONE, "/", NONE, private, NONE).context("make all mounts private")?;
            mount(Some(&cgroup), &hierarchy, NONE, MsFlags::MS_BIND, NONE)?;
            for (fs_type, point) in [("bpf", "/sys/fs/bpf"), ("tmpfs", "/run")] {
                mount(
                    Some(fs_type),
                    point,
                    Some(fs_type),
                    MsFlags::empty(),
                    Some("mode=755"),
                )?;
            }
            Ok(())
        });
        // From here on, it is removed.
        let apart = |host| Self { host, cgroup };
        Ok(apart(host?))
    }

    fn qfence(&self, words: &[&str]) -> Result<Ended> {
        let mut command = self.host.command(qfence()?);
        without_sudo(command.args(words));
        to_end(command)
    }

    /// A shell in the fence `name`.
    fn shell(&self, name: &str) -> Result<Shell> {
        let mut command = self.host.command(qfence()?);
        command.args(["exec", "--name", name, "--user", "nobody", "--", "sh"]);
        Shell::start(command)
    }

    /// The names of all directories and files of fences, in cgroups, bpffs and /run.
    fn all(&self) -> Result<Vec<String>> {
        // Inside, this directory is the root of the hierarchy; here its path is another.
        let mut all = names_in(&self.cgroup.join("qfence"), true)?;
        all.extend(self.host.run(|| {
            let mut inside = names_in(Path::new("/sys/fs/bpf/qfence"), true)?;
            inside.extend(names_in(Path::new("/run/qfence"), false)?);
            // What is known of the kernel is of no fence.
            inside.retain(|name| name != "kernel-offsets");
            Ok(inside)
        })?);
        Ok(all)
    }

    /// Leaves what a supervisor and its command leave that are killed at once.
    fn leave_dead(&self, name: &str) -> Result<()> {
        let shell = self.shell(name)?;
        shell.kill_supervisor()?;
        drop(shell);
        wait_until("the fence is empty", || {
            let events = self.cgroup.join("qfence").join(name).join("cgroup.events");
            Ok(fs::read_to_string(events)?.contains("populated 0"))
        })
    }
}

/// The names in a directory, of directories or of files; a cgroup's files are the kernel's.
fn names_in(directory: &Path, directories: bool) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() == directories {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

impl Drop for Apart {
    fn drop(&mut self) {
        let fences = self.cgroup.join("qfence");
        for directory in fs::read_dir(&fences).into_iter().flatten().flatten() {
            let _ = fs::write(directory.path().join("cgroup.kill"), "1");
            let _ = wait_until("it is removed", || {
                Ok(!directory.path().is_dir() || fs::remove_dir(directory.path()).is_ok())
            });
        }
        let _ = fs::remove_dir(&fences);
        let _ = fs::remove_dir(&self.cgroup);
    }
}

const CLEARING: &str = "qfence: clearing the remains of the fence dead\n";
const NOTHING: [&str; 0] = [];

#[test]
fn ps_clears_a_dead_fence_and_says_so() -> Result<()> {
    let apart = Apart::new()?;
    apart.leave_dead("dead")?;
    assert_eq!(
        apart.all()?,
        ["dead", "dead", "dead.log", "dead.policy", "dead.json"]
    );
    let ended = apart.qfence(&["ps", "--json"])?;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert_eq!(
        (ended.stdout.as_str(), ended.stderr.as_str()),
        ("[]\n", CLEARING)
    );
    assert_eq!(apart.all()?, NOTHING);
    assert_eq!(apart.qfence(&["ps"])?.stderr, "");
    Ok(())
}

#[test]
fn the_name_of_a_dead_fence_is_free() -> Result<()> {
    let apart = Apart::new()?;
    apart.leave_dead("dead")?;
    let words = [
        "exec", "--name", "dead", "--user", "nobody", "--", "echo", "ran",
    ];
    let ended = apart.qfence(&words)?;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert_eq!(
        (ended.stdout.as_str(), ended.stderr.as_str()),
        ("ran\n", CLEARING)
    );
    assert_eq!(apart.all()?, NOTHING);
    Ok(())
}

#[test]
fn rm_of_a_dead_fence_clears_it() -> Result<()> {
    let apart = Apart::new()?;
    apart.leave_dead("dead")?;
    let ended = apart.qfence(&["rm", "dead"])?;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert_eq!(apart.all()?, NOTHING);
    Ok(())
}

#[test]
fn the_living_are_left_alone() -> Result<()> {
    let apart = Apart::new()?;
    let mut running = apart.shell("running")?;
    let mut orphan = apart.shell("orphan")?;
    orphan.kill_supervisor()?;
    apart.leave_dead("dead")?;
    let ended = apart.qfence(&["ps", "--json"])?;
    assert_eq!(ended.stderr, CLEARING);
    let found: serde_json::Value = serde_json::from_str(&ended.stdout)?;
    let state = |name: &str| {
        let mut all = found.as_array().into_iter().flatten();
        let fence = all.find(|fence| fence["name"] == name);
        fence.map(|fence| fence["state"].clone())
    };
    assert_eq!(state("running"), Some("running".into()), "{ended:?}");
    assert_eq!(state("orphan"), Some("orphaned".into()), "{ended:?}");
    running.ask("true")?;
    orphan.ask("true")?;
    assert_eq!(apart.all()?.len(), 10);
    assert_eq!(apart.qfence(&["rm", "orphan", "running"])?.code(), Some(0));
    assert_eq!(running.wait_for_code()?, 143);
    assert_eq!(apart.all()?, NOTHING);
    Ok(())
}

#[test]
fn a_fence_without_its_links_is_called_unfenced() -> Result<()> {
    let apart = Apart::new()?;
    let shell = apart.shell("open")?;
    shell.kill_supervisor()?;
    apart
        .host
        .run(|| Ok(fs::remove_file("/sys/fs/bpf/qfence/open/connect4")?))?;
    let table = apart.qfence(&["ps"])?.stdout;
    assert!(
        table.contains("open") && table.contains("UNFENCED"),
        "{table}"
    );
    assert_eq!(apart.qfence(&["rm", "open"])?.code(), Some(0));
    assert_eq!(apart.all()?, NOTHING);
    Ok(())
}
