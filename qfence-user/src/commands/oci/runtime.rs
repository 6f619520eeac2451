//! `oci-runtime`: adds the hook of qfence to a bundle, and becomes the real runtime. For engines that have runtimes and no
//! hooks.

use std::{
    convert::Infallible,
    env, fs,
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde_json::json;

use super::super::require_root;
use crate::{
    base::files::{PRIVATE_FILE, bounded, staged},
    cli::OciRuntime,
    workload::oci::bundle::{self, with_hooks},
};

/// The most bytes of the configuration of a bundle.
const CONFIGURATION: u64 = 16 << 20;

/// Options of runc and crun before the command that have a value.
const WITH_VALUE: [&str; 6] = [
    "--root",
    "--log",
    "--log-format",
    "--criu",
    "--rootless",
    "--cgroup-manager",
];

/// Runs `oci-runtime`. It returns only if it fails.
///
/// # Errors
/// If the hook cannot be added, or the runtime cannot be executed.
pub(in crate::commands) fn run(options: &OciRuntime) -> Result<Infallible> {
    let (ours, arguments) = split(&options.words);
    let call = Call::parse(arguments);
    let prepared = prepare(&call, ours);
    if let Err(error) = &prepared {
        // The engine shows the last line of this file, and not standard error.
        call.log(&format!("qfence: {error:#}"));
    }
    prepared?;
    let error = Command::new(&options.runtime).args(arguments).exec();
    Err(error).with_context(|| format!("cannot execute {}", options.runtime.display()))
}

/// Adds the hook if a container is made.
fn prepare(call: &Call<'_>, options: &[String]) -> Result<()> {
    if !call.makes_container {
        return Ok(());
    }
    require_root()?;
    let program = env::current_exe().context("cannot find the path of this program")?;
    let program = program
        .to_str()
        .context("the path of this program is no text")?;
    let path = call.bundle.join("config.json");
    let context = || format!("cannot add the hook to {}", path.display());
    let config = bounded::read(&path, CONFIGURATION).with_context(context)?;
    let command = bundle::Command {
        path: program,
        arguments: &["oci-hook"],
        options,
    };
    let config = with_hooks(&config, &command).with_context(context)?;
    staged::replace(&path, &config, PRIVATE_FILE).with_context(context)
}

/// The words before `--`, and those after it.
fn split(words: &[String]) -> (&[String], &[String]) {
    match words.iter().position(|word| word == "--") {
        Some(at) => (&words[..at], &words[at + 1..]),
        None => (words, &[]),
    }
}

/// What the engine asks the runtime for.
#[derive(Debug, PartialEq, Eq)]
struct Call<'a> {
    makes_container: bool,
    bundle: PathBuf,
    log: Option<&'a str>,
    is_json: bool,
}

impl<'a> Call<'a> {
    fn parse(words: &'a [String]) -> Self {
        let mut call = Self {
            makes_container: false,
            bundle: ".".into(),
            log: None,
            is_json: false,
        };
        let mut words = words.iter().map(String::as_str);
        let mut is_global = true;
        while let Some(word) = words.next() {
            let (key, value) = match word.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (word, None),
            };
            if is_global && !key.starts_with('-') {
                call.makes_container = matches!(key, "create" | "run" | "restore");
                is_global = false;
            } else if is_global && WITH_VALUE.contains(&key) {
                let value = value.or_else(|| words.next());
                match key {
                    "--log" => call.log = value,
                    "--log-format" => call.is_json = value == Some("json"),
                    _ => {}
                }
            } else if matches!(key, "--bundle" | "-b")
                && let Some(bundle) = value.or_else(|| words.next())
            {
                call.bundle = bundle.into();
            }
        }
        call
    }

    /// Writes a message to the runtime's log. The caller reports the error too.
    fn log(&self, message: &str) {
        let Some(path) = self.log.map(Path::new) else {
            return;
        };
        let time = Timestamp::now().to_string();
        let line = match self.is_json {
            true => json!({ "level": "error", "msg": message, "time": time }).to_string(),
            false => format!("time={time:?} level=error msg={message:?}"),
        };
        let file = fs::File::options().append(true).create(true).open(path);
        if let Ok(mut file) = file {
            // There is no other place for an error of this.
            let _ = writeln!(file, "{line}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn containerd_calls_the_runtime_like_this() {
        let words = words(
            "--profile=internet-only -- --root /run/docker/runtime-qfence/moby --log /run/log.json --log-format json \
             --systemd-cgroup create --bundle /run/bundle --pid-file /run/init.pid ab12",
        );
        let (ours, runtimes) = split(&words);
        assert_eq!(ours, ["--profile=internet-only"]);
        let call = Call::parse(runtimes);
        assert_eq!(
            call,
            Call {
                makes_container: true,
                bundle: "/run/bundle".into(),
                log: Some("/run/log.json"),
                is_json: true,
            }
        );
    }

    #[test]
    fn only_what_makes_a_container_changes_its_bundle() {
        for (text, makes, bundle) in [
            ("--root /create start ab", false, "."),
            ("--root=/x delete --force ab", false, "."),
            ("--version", false, "."),
            ("run -b /b ab", true, "/b"),
            ("--debug create --bundle=/b ab", true, "/b"),
            ("create ab", true, "."),
            ("exec --process create ab", false, "."),
        ] {
            let words = words(text);
            let call = Call::parse(&words);
            assert_eq!(call.makes_container, makes, "{text}");
            assert_eq!(call.bundle, Path::new(bundle), "{text}");
        }
    }
}
