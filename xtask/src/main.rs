//! The project's tasks, as `cargo xtask TASK`: set up the machine, build, ebpf, run, install, package, release, test, fuzz,
//! bench, book, demo, session, vm.

mod apt;
mod arch;
mod bench;
mod book;
mod build;
mod commit;
mod cross;
mod demo;
mod ebpf;
mod fuzz;
mod install;
mod installed;
mod linker;
mod package;
mod packages;
mod prepare;
mod release;
mod remap;
mod report;
mod session;
mod setup;
mod shell;
mod stack;
mod strip;
mod test;
mod toolchain;
mod tools;
mod vm;
mod workspace;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use anyhow::Result;
use arch::Arch;
use build::Profile;
use clap::{Parser, Subcommand};

/// The tasks of the qfence project.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what is missing to build, test and demonstrate qfence.
    Setup,
    /// Build the eBPF object, then qfence-user and qfence-verify.
    Build(BuildArgs),
    /// Build only the eBPF objects.
    Ebpf,
    /// Build, then run qfence-user as root with the arguments given.
    Run {
        /// Arguments for qfence-user, after `--`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Build, then install all that packages have: programs, man pages, completions, units.
    Install(InstallArgs),
    /// Remove what `install` has installed.
    Uninstall {
        #[command(flatten)]
        place: Place,
    },
    /// Set up, build, and make a Debian package, an RPM and an archive in target/dist.
    Package {
        /// Build quickly, without optimisations: to try the packages.
        #[arg(long)]
        quick: bool,
        /// Make them in another checkout too, and compare the bytes.
        #[arg(long)]
        check: bool,
    },
    /// Check that this checkout is a version, and make its packages; nothing is published.
    Release {
        /// The version, like 0.2.0.
        version: String,
    },
    /// Set up, then check the format, the dependencies and the documents, lint, and run the unit tests, the fuzzers, the
    /// end-to-end tests, and the tests in a Debian machine.
    Test {
        /// Run only this stage.
        #[arg(long, value_enum)]
        only: Option<test::Stage>,
        /// Test the release build, with the optimisations of what is installed; it takes minutes more.
        #[arg(long)]
        release: bool,
        /// Test everything, without sampling: a start is killed at each of its system calls.
        #[arg(long)]
        whole: bool,
        /// Run only the tests whose names contain this text.
        filter: Option<String>,
    },
    /// Set up, then run the fuzzers of the code that reads bytes from an attacker, each for some seconds.
    Fuzz {
        /// The time for each target, in seconds.
        #[arg(long, default_value_t = 60)]
        seconds: u32,
        /// Run only this target.
        target: Option<String>,
    },
    /// Set up, build, and measure the cost of a fence as root; figures and a plot are written to target/bench.
    Bench {
        /// Measure for seconds, not for minutes.
        #[arg(long)]
        quick: bool,
        /// Measure another build of qfence-user beside it: traffic, starts and memory, in turns.
        #[arg(long, value_name = "PROGRAM")]
        against: Option<PathBuf>,
        /// Run only this benchmark, for example `traffic`.
        #[arg(long, value_name = "BENCHMARK")]
        only: Option<String>,
        /// Write the plot to docs/bench.svg too.
        #[arg(long, conflicts_with_all = ["quick", "only"])]
        write_plot: bool,
    },
    /// Build README and docs/ as a book, in target/book; a broken link is an error.
    Book,
    /// Set up, build, and compare the destinations that a guest reaches without and with a fence.
    Demo,
    /// Set up, build, and draw docs/session.svg and docs/top.svg from real terminals.
    Session,
    /// Set up, build, and test qfence as root in an emulated Debian 12 machine.
    Vm {
        /// Build quickly, without link-time optimisation.
        #[arg(long)]
        quick: bool,
        /// Boot this kernel of Debian's. On x86_64, write what holds on it to docs/kernels.md.
        #[arg(long, value_enum)]
        kernel: Option<vm::Choice>,
        /// Emulate this processor. qfence is built for it with Debian's cross compiler.
        #[arg(long, value_enum, default_value = "x86_64")]
        arch: Arch,
        /// A command to run there instead of the tests, after `--`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
}

/// Where qfence is installed.
#[derive(clap::Args)]
struct Place {
    /// The directory whose bin/ gets the programs.
    #[arg(long, default_value = "/usr/local")]
    prefix: PathBuf,
    /// A directory that stands for the root directory.
    #[arg(long, env = "DESTDIR")]
    destdir: Option<PathBuf>,
}

#[derive(clap::Args)]
struct InstallArgs {
    #[command(flatten)]
    place: Place,
    /// Build quickly, without optimisations.
    #[arg(long)]
    quick: bool,
}

/// The profile of what is installed.
fn packaged(quick: bool) -> Profile {
    if quick {
        Profile::Quick
    } else {
        Profile::Package
    }
}

#[derive(clap::Args)]
struct BuildArgs {
    /// Build with optimisations (the default).
    #[arg(long, conflicts_with = "debug")]
    release: bool,
    /// Build qfence-user without optimisations; the eBPF object always has them.
    #[arg(long)]
    debug: bool,
    /// Build as for a package: with optimisations, and the same bytes from each checkout of a commit.
    #[arg(long, conflicts_with_all = ["release", "debug"])]
    packaged: bool,
}

impl BuildArgs {
    fn profile(&self) -> Profile {
        if self.packaged {
            Profile::Package
        } else if self.debug {
            Profile::Debug
        } else {
            Profile::Release
        }
    }
}

fn main() -> ExitCode {
    match dispatch(Cli::parse().task) {
        Ok(status) => status,
        Err(error) => {
            report::note(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn dispatch(task: Task) -> Result<ExitCode> {
    match task {
        Task::Vm {
            quick,
            kernel,
            arch,
            command,
        } => {
            let profile = if quick {
                Profile::Quick
            } else {
                Profile::Release
            };
            return vm::run(arch, kernel, command, profile).map(ExitCode::from);
        }
        Task::Setup => setup::setup(),
        Task::Build(args) => build::build(args.profile()).map(drop),
        Task::Ebpf => ebpf::build(),
        Task::Run { args } => build::run(&args),
        Task::Install(InstallArgs { place, quick }) => {
            install::install(&place.prefix, place.destdir.as_deref(), packaged(quick))
        }
        Task::Uninstall { place } => install::uninstall(&place.prefix, place.destdir.as_deref()),
        Task::Package { quick, check: true } => package::check::check(packaged(quick)),
        Task::Package { quick, .. } => package::package(packaged(quick)).map(drop),
        Task::Release { version } => {
            release::check(&version).and_then(|()| release::release(&version, Profile::Package))
        }
        Task::Test {
            only,
            release,
            whole,
            filter,
        } => {
            let program = if release {
                Profile::Release
            } else {
                Profile::Quick
            };
            test::test(&test::Plan {
                only,
                filter: filter.as_deref(),
                program,
                whole,
            })
        }
        Task::Fuzz { seconds, target } => {
            setup::setup()?;
            ebpf::build()?;
            fuzz::fuzz(target.as_deref(), seconds)
        }
        Task::Bench {
            quick,
            against,
            only,
            write_plot,
        } => bench::bench(quick, against.as_deref(), only.as_deref(), write_plot),
        Task::Book => book::book(),
        Task::Demo => demo::demo(),
        Task::Session => session::session(),
    }
    .map(|()| ExitCode::SUCCESS)
}
