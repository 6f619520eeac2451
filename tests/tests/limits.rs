//! Limits of the caller that a process in the fence could have the supervisor meet, and the kernel's choice of what to end
//! when memory is short: the command has them, and the supervisor is not ended by them.

use std::{fs, os::unix::process::CommandExt as _, process::Command};

use anyhow::{Context as _, Result, ensure};
use tests::{
    fence::{Fence, qfence},
    remains,
    run::to_end,
};

/// Runs a script in a fence of its own, from a shell that does `before` first.
fn fenced(fence: &Fence, before: &str, options: &str, script: &str) -> Result<Command> {
    let mut command = Command::new("bash");
    command.args([
        "-c",
        &format!(
            "{before}; exec \"$0\" exec --name {} --user nobody {options} -- bash -c \"$1\"",
            fence.name()
        ),
    ]);
    command.arg(qfence()?).arg(script);
    command.process_group(0);
    Ok(command)
}

/// Whether this process has CAP_SYS_RESOURCE, which root of a container may lack.
fn may_lift() -> Result<bool> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = u64::from_str_radix(line.context("CapEff")?.trim(), 16)?;
    Ok(effective & 1 << 24 != 0)
}

#[test]
fn a_log_that_grows_past_the_callers_limit_does_not_end_the_supervisor() -> Result<()> {
    let fence = Fence::new("fsize")?;
    let dir = tempfile::tempdir()?;
    let log = dir.path().join("log");
    let script = "trap '' XFSZ; ulimit -f; ulimit -t; for port in {1..300}; do echo x >/dev/udp/127.0.0.1/$port; \
                  done 2>/dev/null; sleep 4; for port in {301..400}; do echo x >/dev/udp/127.0.0.1/$port; \
                  done 2>/dev/null; sleep 1.5; exit 7";
    let options = format!("--log json:{}", log.display());
    // The control: it does end whoever writes that much.
    let control = to_end({
        let mut control = Command::new("bash");
        control.args(["-c", "ulimit -f 20; exec head -c 40000 /dev/zero >\"$0\""]);
        control.arg(dir.path().join("control"));
        control
    })?;
    ensure!(control.code().is_none(), "{control:?}");
    let ended = to_end(fenced(&fence, "ulimit -f 20 -t 900", &options, script)?)?;
    assert_eq!(ended.code(), Some(7), "{ended:?}");
    // The command has them.
    assert_eq!(ended.stdout, "20\n900\n");
    // And the log has it all, where root may lift a limit.
    if may_lift()? {
        ensure!(fs::metadata(&log)?.len() > 20 * 1024, "{ended:?}");
    } else {
        ensure!(ended.stderr.contains("File too large"), "{ended:?}");
    }
    remains::ensure_none(fence.name())
}

#[test]
fn the_kernel_does_not_choose_the_supervisor_when_memory_is_short() -> Result<()> {
    let fence = Fence::new("oom")?;
    // $PPID is the supervisor. Nobody in the fence may take its place.
    let script = "cat /proc/$PPID/oom_score_adj /proc/self/oom_score_adj; \
                  (echo -1000 >/proc/self/oom_score_adj) 2>/dev/null || echo refused; \
                  (echo 299 >/proc/self/oom_score_adj) 2>/dev/null || echo refused; \
                  echo 301 >/proc/self/oom_score_adj && cat /proc/self/oom_score_adj";
    let before = "echo 300 >/proc/self/oom_score_adj";
    let ended = to_end(fenced(&fence, before, "-v", script)?)?;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let said: Vec<&str> = ended.stdout.lines().collect();
    let [supervisor, command, ..] = said[..] else {
        return Err(anyhow::anyhow!("{ended:?}")).context("two lines");
    };
    assert_eq!(command, "300", "{ended:?}");
    if may_lift()? {
        assert_eq!(supervisor, "-1000", "{ended:?}");
        assert_eq!(said[2..], ["refused", "refused", "301"], "{ended:?}");
    } else {
        let word = "the kernel may end this process when memory is short";
        ensure!(ended.stderr.contains(word), "{ended:?}");
    }
    remains::ensure_none(fence.name())
}
