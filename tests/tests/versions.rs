//! A program that meets a fence of another version says so and how to end it, and changes nothing. The other version is
//! a copy of the program with another number in it.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use qfence_common::abi::VERSION;
use qfence_user::kernel::pins::of_maps;
use serde_json::Value;
use tempfile::TempDir;
use tests::{
    fence::{qfence, unique_name},
    private::Private,
    process::Process,
    run::{Ended, HANG, to_end, wait_until, without_sudo},
    workspace::make_readable,
};

/// What goes before the number in the file of the program (`base/version.rs`).
const MARK: &[u8] = b"qfence ABI is -\n";

pub(crate) const OTHER: u32 = VERSION + 1;

/// The bytes of a program, as [`OTHER`] version.
pub(crate) fn of_another_version(program: &Path) -> Result<Vec<u8>> {
    let mut bytes = fs::read(program)?;
    let found: Vec<_> = (0..bytes.len() - MARK.len())
        .filter(|at| bytes[*at..].starts_with(MARK))
        .collect();
    ensure!(found.len() == 1, "the mark is there {} times", found.len());
    let number = found[0] + MARK.len();
    let number = &mut bytes[number..number + 4];
    ensure!(number == VERSION.to_le_bytes());
    number.copy_from_slice(&OTHER.to_le_bytes());
    Ok(bytes)
}

/// The program, and one of another version, on a host of their own.
struct Programs {
    host: Private,
    own: PathBuf,
    other: PathBuf,
    _directory: TempDir,
}

impl Programs {
    fn new() -> Result<Self> {
        let own = qfence()?;
        let bytes = of_another_version(&own)?;
        let directory = tempfile::tempdir()?;
        make_readable(directory.path())?;
        let other = directory.path().join("qfence-user");
        fs::write(&other, bytes)?;
        fs::set_permissions(&other, fs::Permissions::from_mode(0o755))?;
        Ok(Self {
            host: Private::new()?,
            own,
            other,
            _directory: directory,
        })
    }

    fn run(&self, program: &Path, arguments: &[&str]) -> Result<Ended> {
        let mut command = self.host.namespace().command(program);
        command.args(arguments);
        without_sudo(&mut command);
        to_end(command)
    }
}

/// A fence, which a program of some version has made.
struct Made<'a> {
    programs: &'a Programs,
    maker: PathBuf,
    name: String,
    supervisor: Process,
}

impl<'a> Made<'a> {
    fn new(programs: &'a Programs, maker: &Path) -> Result<Self> {
        let name = unique_name("version");
        let mut command = programs.host.namespace().command(maker);
        command.args([
            "exec", "--log", "none", "--user", "nobody", "--name", &name, "--",
        ]);
        // Not of the group that ends with the supervisor.
        command.args(["sh", "-c", "setsid sleep 1000 & wait"]);
        without_sudo(&mut command);
        let made = Self {
            programs,
            maker: maker.to_owned(),
            supervisor: Process::spawn(command)?,
            name,
        };
        wait_until("the command runs", || {
            let row = made.row(&made.maker)?;
            let pids = row.as_ref().and_then(|row| row["pids"].as_array());
            let is_sleep = |pid: &Value| {
                let comm = fs::read_to_string(format!("/proc/{pid}/comm"));
                comm.is_ok_and(|comm| comm == "sleep\n")
            };
            Ok(pids.is_some_and(|pids| pids.iter().any(is_sleep)))
        })?;
        Ok(made)
    }

    fn pins(&self) -> PathBuf {
        Path::new("/sys/fs/bpf/qfence").join(&self.name)
    }

    /// Its line in the list of a program.
    fn row(&self, program: &Path) -> Result<Option<Value>> {
        let listed = self.programs.run(program, &["ps", "--json"])?;
        let rows: Vec<Value> =
            serde_json::from_str(&listed.stdout).with_context(|| format!("{listed:?}"))?;
        Ok(rows
            .into_iter()
            .find(|row| row["name"] == self.name.as_str()))
    }

    /// All that there is of it: paths, and what files of /run hold.
    fn all(&self) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
        self.programs.host.namespace().run(|| self.all_there())
    }

    fn all_there(&self) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
        let mut all = BTreeMap::new();
        for place in [self.pins(), "/run/qfence".into()] {
            let Ok(entries) = fs::read_dir(&place) else {
                continue;
            };
            for entry in entries {
                let path = entry?.path();
                if place == self.pins() {
                    all.insert(path.clone(), Vec::new());
                    let within = fs::read_dir(&path).into_iter().flatten();
                    all.extend(within.flatten().map(|pin| (pin.path(), Vec::new())));
                } else if path
                    .display()
                    .to_string()
                    .contains(&format!("/{}.", self.name))
                {
                    let text = fs::read(&path)?;
                    all.insert(path, text);
                }
            }
        }
        Ok(all)
    }

    /// Another version's program does nothing about it, and says so, whatever it is asked for.
    fn assert_left_alone(&self, by: &Path, versions: (u32, u32)) -> Result<()> {
        let name = self.name.as_str();
        let before = self.all()?;
        assert!(!before.is_empty());
        let (made, this) = versions;
        let says = |ended: &Ended| {
            let words = format!(
                "the fence {name:?} was made by another version of qfence (ABI {made}, and this is ABI {this}): it \
                 is not read or changed."
            );
            assert!(ended.stderr.contains(&words), "{ended:?}");
            assert!(ended.stderr.contains("`qfence-user rm`"), "{ended:?}");
        };
        let verbs: [&[&str]; 8] = [
            &["logs", name],
            &["logs", "--json", name],
            &["set", name, "--allow", "host"],
            &["policy", "show", name],
            &["policy", "suggest", name],
            &["explain", "--fence", name, "tcp:127.0.0.1:80"],
            &["rm", name],
            &["exec", "--log", "none", "--name", name, "--", "true"],
        ];
        for verb in verbs {
            let ended = self.programs.run(by, verb)?;
            assert_eq!(
                (ended.code(), ended.stdout.as_str()),
                (Some(125), ""),
                "{verb:?}: {ended:?}"
            );
            says(&ended);
            assert!(self.all()? == before, "{verb:?}: {:?}", self.all()?.keys());
        }
        let listed = self.programs.run(by, &["ps"])?;
        let row = listed
            .stdout
            .lines()
            .find(|line| line.contains(name))
            .context("no row")?;
        let state = format!(" incompatible (ABI {made}) ");
        assert!(row.contains(&state), "{row}");
        assert_eq!(listed.code(), Some(0));
        says(&listed);
        let row = self.row(by)?.context("it is not listed")?;
        assert_eq!(
            (&row["state"], &row["abi"], &row["attempts"]),
            (&"incompatible".into(), &made.into(), &Value::Null)
        );
        // One of another name is made as ever.
        let other = unique_name("version");
        let ended = self.programs.run(
            by,
            &["exec", "--log", "none", "--name", &other, "--", "true"],
        )?;
        assert_eq!(ended.code(), Some(0), "{ended:?}");
        assert!(self.all()? == before);
        Ok(())
    }

    fn supervisor(&mut self) -> Pid {
        Pid::from_raw(self.supervisor.child().id().cast_signed())
    }

    fn remove(&self) -> Result<()> {
        let ended = self.programs.run(&self.maker, &["rm", &self.name])?;
        assert_eq!(ended.code(), Some(0), "{ended:?}");
        assert_eq!(self.all()?, BTreeMap::new());
        Ok(())
    }
}

impl Drop for Made<'_> {
    fn drop(&mut self) {
        // A destructor has nobody to tell.
        let _ = self.programs.run(&self.maker, &["rm", &self.name]);
    }
}

/// Both ways round: the program is the newer one, and the older.
fn both_ways(programs: &Programs) -> [(PathBuf, PathBuf, (u32, u32)); 2] {
    let (own, other) = (programs.own.clone(), programs.other.clone());
    [
        (own.clone(), other.clone(), (VERSION, OTHER)),
        (other, own, (OTHER, VERSION)),
    ]
}

#[test]
fn a_fence_of_another_version_is_left_alone_by_every_verb() -> Result<()> {
    let programs = Programs::new()?;
    for (maker, by, versions) in both_ways(&programs) {
        let mut made = Made::new(&programs, &maker)?;
        made.assert_left_alone(&by, versions)?;
        // With its supervisor gone it is no less another's.
        kill(made.supervisor(), Signal::SIGKILL)?;
        made.supervisor.wait(HANG)?;
        made.assert_left_alone(&by, versions)?;
        let row = made.row(&maker)?.context("its own version lists it")?;
        assert_eq!(row["state"], "orphaned");
        made.remove()?;
    }
    Ok(())
}

#[test]
fn what_a_dead_fence_of_another_version_left_is_cleared_by_that_version_alone() -> Result<()> {
    let programs = Programs::new()?;
    for (maker, by, versions) in both_ways(&programs) {
        let mut made = Made::new(&programs, &maker)?;
        let pids = made.row(&maker)?.context("it is listed")?["pids"].clone();
        kill(made.supervisor(), Signal::SIGKILL)?;
        made.supervisor.wait(HANG)?;
        for pid in pids.as_array().context("a list")? {
            let pid = i32::try_from(pid.as_i64().context("a number")?)?;
            kill(Pid::from_raw(pid), Signal::SIGKILL)?;
        }
        made.assert_left_alone(&by, versions)?;
        programs.run(&maker, &["ps"])?;
        assert_eq!(made.all()?, BTreeMap::new());
    }
    Ok(())
}

#[test]
fn what_is_said_ends_a_fence_of_another_version_by_hand() -> Result<()> {
    let programs = Programs::new()?;
    for (is_supervised, (maker, by, _)) in [true, false].into_iter().zip(both_ways(&programs)) {
        let mut made = Made::new(&programs, &maker)?;
        if !is_supervised {
            kill(made.supervisor(), Signal::SIGKILL)?;
            made.supervisor.wait(HANG)?;
        }
        let ended = programs.run(&by, &["rm", &made.name])?;
        let said = ended
            .stderr
            .split("without that version")
            .nth(1)
            .context("no way said")?;
        let commands: Vec<&str> = said.split('`').skip(1).step_by(2).collect();
        assert_eq!(commands.len(), 2, "{said}");
        let shell = |command: &str| programs.run(Path::new("sh"), &["-c", command]);
        let first = shell(commands[0])?;
        assert_eq!(first.code(), Some(0), "{first:?}");
        if is_supervised {
            made.supervisor
                .wait(HANG)?
                .context("the supervisor stays")?;
        } else {
            wait_until("its processes have ended", || {
                Ok(shell(commands[1])?.code() == Some(0))
            })?;
        }
        assert_eq!(made.all()?, BTreeMap::new());
    }
    Ok(())
}

#[test]
fn what_is_said_detaches_an_attached_fence_of_another_version_and_ends_no_process() -> Result<()> {
    let programs = Programs::new()?;
    let cgroup = programs.host.cgroup().join("workload");
    fs::create_dir(&cgroup)?;
    let mut sleeps = Command::new("sh");
    sleeps.args(["-c", "echo 0 >\"$0\" && exec sleep 1000"]);
    let mut workload = Process::spawn({
        sleeps.arg(cgroup.join("cgroup.procs"));
        sleeps
    })?;
    for (maker, by, _) in both_ways(&programs) {
        let name = unique_name("version");
        let mut command = programs.host.namespace().command(&maker);
        command.args([
            "attach", "--log", "none", "--name", &name, "--cgroup", "workload",
        ]);
        without_sudo(&mut command);
        let mut made = Made {
            programs: &programs,
            maker: maker.clone(),
            supervisor: Process::spawn(command)?,
            name: name.clone(),
        };
        wait_until("it is attached", || {
            let row = made.row(&maker)?;
            Ok(row.is_some_and(|row| row["state"] == "running" && !row["attempts"].is_null()))
        })?;
        let ended = programs.run(&by, &["rm", &name])?;
        let said = ended.stderr.split("without that version").nth(1);
        let commands: Vec<&str> = said.context("no way")?.split('`').collect();
        // Text, a command, text.
        assert_eq!(commands.len(), 3, "{commands:?}");
        let removed = programs.run(Path::new("sh"), &["-c", commands[1]])?;
        assert_eq!(removed.code(), Some(0), "{removed:?}");
        made.supervisor
            .wait(HANG)?
            .context("the supervisor stays")?;
        assert_eq!(made.all()?, BTreeMap::new());
        assert!(workload.wait(Duration::ZERO)?.is_none(), "it was ended");
    }
    Ok(())
}

#[test]
fn a_fence_from_before_there_were_versions_is_another_ones() -> Result<()> {
    let programs = Programs::new()?;
    let made = Made::new(&programs, &programs.own)?;
    let (maps, before) = (of_maps(&made.pins()), made.pins().join("maps"));
    let inside = programs.host.namespace();
    inside.run(|| Ok(fs::rename(&maps, &before)?))?;
    made.assert_left_alone(&made.maker, (0, VERSION))?;
    inside.run(|| Ok(fs::rename(&before, &maps)?))?;
    made.remove()
}
