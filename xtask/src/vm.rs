//! `vm`: boots an emulated Debian 12 machine and runs qfence in it as root: with another kernel, another systemd, and
//! cgroup v2 alone, and perhaps with another processor. The machine has no network.

mod clock;
mod image;
mod kernel;
mod machine;
mod matrix;
mod payload;
mod sources;

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
pub(crate) use kernel::Choice;
use kernel::Kernel;
use machine::Machine;
use payload::Contents;
use tempfile::TempDir;

use crate::{
    arch::Arch, build::Profile, cross, package, packages, report, report::Seconds, setup, workspace,
};

/// The commands to run if none is given. They are on the machine's PATH. `tap` and `package` are not among them: each takes
/// minutes, and several times as long on a busy machine.
const COMMANDS: [&[&str]; 7] = [
    &["smoke"],
    &["names"],
    &["device"],
    &["sinks"],
    &["managers"],
    &["qfence-user", "doctor"],
    &["qfence-user", "verify"],
];

/// The command that tries the Debian package.
const PACKAGE: &str = "package";

/// The limit for booting, which takes about 15 seconds.
const BOOT: Duration = Duration::from_secs(600);
/// How long a command may print nothing. Programs for another processor are translated, which takes three times as long.
const SILENCE: Duration = Duration::from_secs(600);
/// The limit for switching the machine off.
const END: Duration = Duration::from_secs(60);

/// The command of [`COMMANDS`] that the tests run on the kernel whose turn it is, in place of that of Debian 12. So they take
/// no longer.
const ELSEWHERE: &[&str] = &["smoke"];

/// The commands to run on the kernel whose turn it is in the tests.
const COMMANDS_OF_TURN: [&[&str]; 3] = [
    ELSEWHERE,
    &["qfence-user", "doctor"],
    &["qfence-user", "verify", "--short"],
];

/// The commands to run on aarch64 if none is given. Each instruction is translated, so they are the short ones.
const COMMANDS_OF_AARCH64: [&[&str]; 6] = [
    &["smoke"],
    &["compat"],
    &["names"],
    &["device"],
    &["qfence-user", "doctor"],
    &["qfence-user", "verify", "--short"],
];

/// Builds qfence in a profile, boots the machine, and runs `command` in it. If it is empty, the tests run: [`COMMANDS`], or
/// those of another processor. Returns the status of the first command that fails, or 0.
///
/// With `kernel`, the machine boots each kernel that it names. Then the page of kernels is written, if `command` is empty and
/// the processor is that of the page.
pub(crate) fn run(
    arch: Arch,
    kernel: Option<Choice>,
    command: Vec<OsString>,
    profile: Profile,
) -> Result<u8> {
    let program = set_up(arch, profile)?;
    let commands = match (arch, kernel, command.is_empty()) {
        (Arch::X86_64, Some(choice), true) => return page(choice, &program),
        (Arch::X86_64, None, true) => words(&COMMANDS),
        (Arch::Aarch64, _, true) => words(&COMMANDS_OF_AARCH64),
        (_, _, false) => vec![command],
    };
    let package = package(arch, profile, &commands)?;
    let mut first_failure = 0;
    for kernel in kernel.map_or(vec![usual(arch)], Choice::kernels) {
        let contents = contents(arch, &program, package.as_deref(), &commands);
        let status = boot_and_run(kernel, contents)?;
        first_failure = if first_failure == 0 {
            status
        } else {
            first_failure
        };
    }
    Ok(first_failure)
}

/// The kernel of a machine if none is chosen.
fn usual(arch: Arch) -> Kernel {
    match arch {
        Arch::X86_64 => Kernel::V6_1,
        Arch::Aarch64 => Kernel::V6_12,
    }
}

/// Builds qfence in a profile, and runs [`COMMANDS`] but [`ELSEWHERE`] on the kernel of Debian 12, and [`COMMANDS_OF_TURN`] on
/// another kernel, which changes from commit to commit. Returns the status of the first command that fails, or 0.
pub(crate) fn test(profile: Profile) -> Result<u8> {
    let turn = Kernel::of_turn()?;
    report::note(&format!(
        "beside the kernel 6.1, the kernel {} has its turn: the number of commits determines it",
        turn.name()
    ));
    let arch = Arch::X86_64;
    let program = set_up(arch, profile)?;
    let commands: Vec<_> = COMMANDS
        .into_iter()
        .filter(|one| *one != ELSEWHERE)
        .collect();
    let commands = words(&commands);
    let package = package(arch, profile, &commands)?;
    match boot_and_run(
        Kernel::V6_1,
        contents(arch, &program, package.as_deref(), &commands),
    )? {
        0 => boot_and_run(
            turn,
            contents(arch, &program, None, &words(&COMMANDS_OF_TURN)),
        ),
        status => Ok(status),
    }
}

/// Installs what is missing, and builds qfence; returns the path of qfence-user.
fn set_up(arch: Arch, profile: Profile) -> Result<PathBuf> {
    report::heading("set up");
    install(arch)?;
    cross::set_up(arch)?;
    report::heading("build");
    cross::build(arch, profile)
}

/// The Debian package of qfence in a profile, if one of the commands is about it.
fn package(arch: Arch, profile: Profile, commands: &[Vec<OsString>]) -> Result<Option<PathBuf>> {
    let is_tried = commands.iter().flatten().any(|word| word == PACKAGE);
    ensure!(
        !is_tried || arch.is_here(),
        "packages are made for this processor only: try `package` without --arch"
    );
    is_tried.then(|| package::debian(profile)).transpose()
}

fn contents<'a>(
    arch: Arch,
    program: &'a Path,
    package: Option<&'a Path>,
    commands: &'a [Vec<OsString>],
) -> Contents<'a> {
    Contents {
        arch,
        program,
        package,
        commands,
    }
}

/// Tries the kernels of a choice, and writes the page of kernels. The status is 1 if something does not hold.
fn page(choice: Choice, program: &Path) -> Result<u8> {
    let dir = directory(Arch::X86_64)?;
    let mut holds = true;
    for kernel in choice.kernels() {
        holds &= matrix::try_on(kernel, program, &dir)?;
    }
    matrix::write_page(&dir)?;
    Ok((!holds).into())
}

fn words(commands: &[&[&str]]) -> Vec<Vec<OsString>> {
    let words = |words: &&[&str]| words.iter().map(OsString::from).collect();
    commands.iter().map(words).collect()
}

fn boot_and_run(kernel: Kernel, contents: Contents<'_>) -> Result<u8> {
    let booted = Booted::boot(kernel, contents)?;
    let silence = if contents.arch == Arch::X86_64 {
        SILENCE
    } else {
        3 * SILENCE
    };
    let status = run_all(&booted.machine, silence, contents.commands)?;
    booted.machine.await_end(END)?;
    Ok(status)
}

/// A booted machine that is about to run its commands.
pub(crate) struct Booted {
    machine: Machine,
    _files: TempDir,
}

impl Booted {
    /// Boots a machine for a single command. Missing packages are installed first.
    pub(crate) fn for_command(program: &Path, command: &str) -> Result<Self> {
        install(Arch::X86_64)?;
        let commands = [vec![command.into()]];
        let contents = contents(Arch::X86_64, program, None, &commands);
        Self::boot(Kernel::V6_1, contents)
    }

    fn boot(kernel: Kernel, contents: Contents<'_>) -> Result<Self> {
        let arch = contents.arch;
        let dir = directory(arch)?;
        let image = kernel.image(arch, image::root(arch, &dir)?, &dir)?;
        report::heading("boot");
        let files = tempfile::tempdir_in(&dir)?;
        let payload = payload::write(files.path(), contents)?;
        // The command that starts guests.
        let mut words = contents.commands.iter().flatten();
        let has_guests = words.any(|word| word == "tap");
        let console = files.path().join("console.log");
        let machine = Machine::start(arch, &image, &payload, &console, has_guests)?;
        let what = format!(
            "Debian 12 ({}) with Linux {}, emulated, without network",
            arch.debian(),
            kernel.name()
        );
        report::during(&what, || machine.await_ready(BOOT))?;
        Ok(Self {
            machine,
            _files: files,
        })
    }

    /// Waits until the single command has ended and the machine is off, and returns its output.
    ///
    /// # Errors
    /// If the command fails.
    pub(crate) fn output(self) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        let status = self.machine.run_next(SILENCE, |line| {
            lines.push(line.to_owned());
            Ok(())
        })?;
        ensure!(status == 0, "exit status {status}:\n{}", lines.join("\n"));
        self.machine.await_end(END)?;
        Ok(lines)
    }
}

/// The directory of the machine's files: `target/vm`, or one in it for another processor.
fn directory(arch: Arch) -> Result<PathBuf> {
    let mut dir = workspace::target().join("vm");
    if arch != Arch::X86_64 {
        dir.push(arch.name());
    }
    fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    Ok(dir)
}

/// Installs the packages that every task needs, and those that make the machine's disk.
fn install(arch: Arch) -> Result<()> {
    setup::setup()?;
    setup::install("for the machine", &packages::missing_for_vm(arch))
}

/// Prints the output of the commands. The machine runs them one after the other by itself.
fn run_all(machine: &Machine, silence: Duration, commands: &[Vec<OsString>]) -> Result<u8> {
    let mut first_failure = None;
    for command in commands {
        let line = describe(command);
        report::heading(&format!("in the machine: {line}"));
        let start = Instant::now();
        let status = machine
            .run_next(silence, report::result)
            .with_context(|| format!("running {line} in the machine"))?;
        report::heading(&format!(
            "{line}: exit status {status} after {}",
            Seconds(start.elapsed())
        ));
        if status != 0 {
            first_failure.get_or_insert(status);
        }
    }
    Ok(first_failure.unwrap_or(0))
}

fn describe(command: &[OsString]) -> String {
    let words: Vec<_> = command.iter().map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}
