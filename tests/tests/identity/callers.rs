//! What the command has from its caller.

use std::{collections::BTreeSet, fs, process::Command};

use anyhow::Result;
use tests::{
    fence::Fence,
    run::{fenced, to_end, to_end_with_input, without_sudo},
};

use super::ROOT_WARNING;

#[test]
fn input_output_and_working_directory_are_the_callers() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let fence = Fence::new("streams")?;
    let mut command = fenced(&fence, &["sh", "-c", "pwd -P; cat; echo to stderr >&2"]);
    command.current_dir(dir.path());
    // More than a pipe holds.
    let input = "0123456789abcdef".repeat(20_000);
    let ended = to_end_with_input(command, input.as_bytes())?;
    let expected = format!("{}\n{input}", fs::canonicalize(dir.path())?.display());
    assert!(ended.stdout == expected, "{} bytes", ended.stdout.len());
    assert_eq!(ended.stderr, format!("{ROOT_WARNING}to stderr\n"));
    Ok(())
}

/// What `words` print when a caller runs them, without and with a fence, after `preparation`.
fn without_and_with(preparation: &str, options: &[&str], words: &[&str]) -> Result<[String; 2]> {
    let run = |launcher: &[String]| -> Result<String> {
        let mut command = Command::new("bash");
        command.args(["-c", &format!("{preparation}; exec \"$@\""), "bash"]);
        command
            .args(launcher)
            .args(words)
            .env("QFENCE_TEST", "a\nb = c");
        without_sudo(&mut command);
        let ended = to_end(command)?;
        assert_eq!(ended.code(), Some(0), "{ended:?}");
        Ok(ended.stdout)
    };
    let fence = Fence::new("same")?.with(options);
    Ok([run(&[])?, run(&fence.launcher())?])
}

#[test]
fn the_environment_is_the_callers() -> Result<()> {
    let words = ["sh", "-c", "tr '\\0' '\\n' < /proc/$$/environ"];
    let [outside, inside] = without_and_with("true", &[], &words)?;
    assert!(outside.contains("QFENCE_TEST=a\nb = c\n"), "{outside}");
    assert_eq!(outside, inside);

    // As another user, all but the five that say who and where that is.
    let as_set = |text: String| -> BTreeSet<String> { text.lines().map(str::to_owned).collect() };
    let [outside, inside] = without_and_with(
        "export XDG_RUNTIME_DIR=/run/user/0 SHELL=/bin/odd USER=root LOGNAME=root HOME=/root",
        &["--user", "nobody"],
        &words,
    )?;
    let (outside, inside) = (as_set(outside), as_set(inside));
    let gone: Vec<_> = outside.difference(&inside).collect();
    assert_eq!(
        gone,
        [
            "HOME=/root",
            "LOGNAME=root",
            "SHELL=/bin/odd",
            "USER=root",
            "XDG_RUNTIME_DIR=/run/user/0"
        ]
    );
    let come: Vec<_> = inside.difference(&outside).collect();
    assert_eq!(come.len(), 4, "{come:?}");
    Ok(())
}

#[test]
fn limits_mask_and_priority_are_the_callers() -> Result<()> {
    let script = "cat /proc/self/limits; umask; nice; cat /proc/self/oom_score_adj; \
                  cut -d' ' -f 6-7 /proc/self/stat";
    let words = ["sh", "-c", script];
    let odd = "ulimit -S -l 64; ulimit -H -l 100; ulimit -S -n 500; ulimit -c 0; ulimit -u 4000; \
               umask 0123; renice -n 3 $$ >&2; echo 200 > /proc/self/oom_score_adj";
    for preparation in ["true", odd] {
        for options in [&[][..], &["--user", "nobody"]] {
            let [outside, inside] = without_and_with(preparation, options, &words)?;
            assert_eq!(outside, inside);
        }
    }
    Ok(())
}
