//! Runs the tests in parallel by cargo-nextest, each in a process of its own. `.config/nextest.toml` has the settings of
//! all runs.

use std::{
    env::{self, consts::ARCH},
    ffi::{OsStr, OsString},
    process::Command,
    thread::available_parallelism,
};

use anyhow::{Context as _, Result};

use crate::{build::QUICK, shell, tools, workspace};

/// All packages with tests. Each run names all of them, whichever tests it selects: cargo compiles a library once for
/// each set of features, and the set depends on the packages.
const PACKAGES: [&str; 4] = ["qfence-common", "qfence-user", "tests", "xtask"];

/// How many tests run at a time per processor: most of them wait, for guests and for time limits.
const ON_A_PROCESSOR: usize = 2;

/// The tests to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// The tests that need no privilege.
    Unit,
    /// The tests of the whole program.
    EndToEnd,
}

/// A command that builds the tests and runs the selected ones; a filter selects by name.
pub(super) fn run(which: Which, filter: Option<&str>) -> Result<Command> {
    let picked = match which {
        Which::Unit => "not (package(tests) & kind(test))",
        Which::EndToEnd => "package(tests) & kind(test)",
    };
    let mut nextest = shell::in_workspace(tools::NEXTEST.program()?);
    nextest.env("CARGO", shell::host_cargo());
    nextest.args(["nextest", "run", "--cargo-profile", QUICK]);
    nextest.args(packages());
    // Reports all failing tests, not only the first: a run takes minutes.
    nextest.args(["--no-fail-fast", "--filterset", picked]);
    if which == Which::EndToEnd {
        // Without the unit tests, whose build takes as long as that of the program.
        nextest.args(["--test", "*", "--profile", "e2e"]);
        let processors = available_parallelism().context("counting the processors")?;
        let threads = processors.get() * ON_A_PROCESSOR;
        nextest.args(["--test-threads", &threads.to_string()]);
        let mut runner = if shell::is_root() {
            Vec::new()
        } else {
            as_root()?
        };
        runner.push(workspace::target().join(QUICK).join("apart").into());
        nextest.args(runner_option(&runner));
    }
    if filter.is_some() {
        // All tests with that name may be in the other stage.
        nextest.arg("--no-tests=warn");
    }
    nextest.args(filter);
    Ok(nextest)
}

/// A command that tests the examples in the documentation, which nextest does not run.
pub(super) fn examples(filter: Option<&str>) -> Command {
    let mut cargo = shell::cargo();
    cargo.args(["test", "--quiet", "--doc", "--profile", QUICK]);
    cargo.args(packages()).args(filter);
    cargo
}

fn packages() -> impl Iterator<Item = &'static str> {
    PACKAGES.into_iter().flat_map(|name| ["--package", name])
}

/// Makes cargo build the test programs as the owner of the checkout, and start them as root with the environment of that
/// user.
pub(crate) fn run_tests_as_root(cargo: &mut Command) -> Result<()> {
    cargo.args(runner_option(&as_root()?));
    Ok(())
}

fn as_root() -> Result<Vec<OsString>> {
    let mut path = OsString::from("PATH=");
    path.push(env::var_os("PATH").context("PATH is not set")?);
    let mut words = ["sudo", "--preserve-env", "env"]
        .map(OsString::from)
        .to_vec();
    words.push(path);
    Ok(words)
}

/// The option by which cargo and nextest start their programs with a runner, given as words.
fn runner_option(words: &[OsString]) -> [String; 2] {
    let quoted =
        |word: &OsString| serde_json::Value::from(OsStr::to_string_lossy(word)).to_string();
    let words: Vec<_> = words.iter().map(quoted).collect();
    [
        "--config".to_owned(),
        format!(
            "target.{ARCH}-unknown-linux-gnu.runner=[{}]",
            words.join(",")
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_runner_may_have_spaces_and_quotes() {
        let words = ["sudo", "PATH=/a b:/\"c\""].map(OsString::from);
        let [option, setting] = runner_option(&words);
        assert_eq!(option, "--config");
        let expected = r#"-unknown-linux-gnu.runner=["sudo","PATH=/a b:/\"c\""]"#;
        assert!(setting.ends_with(expected), "{setting}");
    }
}
