//! What cannot be done is said in so many words; nothing runs, and nothing is left.

mod host;
mod options;

use std::{fs, path::Path, process::Command};

use anyhow::Result;
use tests::{
    fence::{Fence, unique_name},
    remains,
    run::{Ended, to_end, without_sudo},
};

fn refused_by(mut command: Command, options: &[&str]) -> Result<String> {
    let dir = tempfile::tempdir()?;
    fs::set_permissions(
        dir.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o777),
    )?;
    let touched = dir.path().join("touched");
    let name = unique_name("bad");
    // The last of two names counts; nobody complains of root.
    command.args(["exec", "--name", &name, "--user", "nobody"]);
    command.args(options).args(["--", "touch"]).arg(&touched);
    let Ended { status, stderr, .. } = to_end(command)?;
    assert_eq!(status.code(), Some(125), "{options:?}: {stderr}");
    assert!(!touched.exists(), "{options:?}: it ran: {stderr}");
    remains::ensure_none(&name)?;
    // What other tests killed is cleared by whoever comes next.
    let of_others = |line: &&str| !line.starts_with("qfence: clearing the remains of the fence ");
    let own = stderr.split_inclusive('\n').filter(of_others);
    Ok(own.collect())
}

#[test]
fn without_a_fault_it_runs() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let touched = dir.path().join("touched");
    let fence = Fence::new("good")?;
    let mut command = Command::new(&fence.launcher()[0]);
    command.args(&fence.launcher()[1..]).arg("touch");
    assert_eq!(to_end(without(command, &touched))?.code(), Some(0));
    assert!(touched.exists());
    remains::ensure_none(fence.name())
}

fn without(mut command: Command, touched: &Path) -> Command {
    without_sudo(command.arg(touched));
    command
}
