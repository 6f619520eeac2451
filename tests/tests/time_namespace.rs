//! In a time namespace, whose boot clock is another, qfence and its programs agree about times.

use std::process::Command;

use anyhow::{Context as _, Result};
use jiff::{SignedDuration, Timestamp};
use tests::{
    fence::Fence,
    run::{to_end, without_sudo},
};

/// The time on record of an attempt of a fence that a launcher starts, and its process.
fn recorded(launcher: &[&str]) -> Result<(Timestamp, u32)> {
    let fence = Fence::new("clock")?.with(&["--user", "nobody"]);
    let mut command = Command::new(launcher[0]);
    command.args(&launcher[1..]).args(fence.launcher());
    let connect = "exec 3<>/dev/tcp/127.0.0.1/9; sleep 1.5";
    command.args(["bash", "-c", connect]);
    without_sudo(&mut command);
    let ended = to_end(command)?;
    let refusal = fence.await_refusal(|refusal| refusal.port == 9);
    let refusal = refusal.with_context(|| format!("{ended:?}"))?;
    assert_eq!(refusal.command, "bash", "{refusal:?}");
    Ok((refusal.time.parse()?, refusal.pid))
}

#[test]
fn an_attempt_has_the_time_of_the_wall_clock() -> Result<()> {
    for offset in ["0", "86400", "-3600"] {
        let unshare = ["unshare", "--time", "--boottime", offset, "--fork"];
        let (time, pid) = recorded(&unshare)?;
        let off = Timestamp::now().duration_since(time).abs();
        assert!(off < SignedDuration::from_mins(5), "{offset}: {time}");
        assert_ne!(pid, 0, "{offset}");
    }
    Ok(())
}
