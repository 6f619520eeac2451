//! Devices.

use std::{path::Path, process::Command};

use anyhow::{Result, ensure};
use tests::{
    fence::Fence,
    run::{fenced, to_end},
};

use super::scene::PYTHON;

/// The outcomes of attempts of root's, outside if there are no options.
fn as_root(options: Option<&[&str]>, attempts: &[&str]) -> Result<Vec<String>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/closures/attempt.py");
    let script = script.display().to_string();
    let words = [&[PYTHON, &script], attempts].concat();
    let fence = Fence::new("closures")?.with(&["--user", "root"]);
    let fence = fence.with(options.unwrap_or_default());
    let command = match options {
        Some(_) => fenced(&fence, &words),
        None => {
            let mut command = Command::new(words[0]);
            command.args(&words[1..]);
            command
        }
    };
    let ended = to_end(command)?;
    ensure!(ended.code() == Some(0), "{ended:?}");
    Ok(ended.stdout.lines().map(str::to_owned).collect())
}

#[test]
fn strict_allows_only_harmless_and_named_devices() -> Result<()> {
    let attempts = [
        "device /dev/null rw",
        "device /dev/urandom r",
        "device /dev/kmsg r",
        "device /dev/loop0 r",
        "device /dev/loop0 rw",
        "terminal",
    ];
    let done = |refused: &[usize]| -> Vec<String> {
        let outcome = |(place, attempt): (usize, &&str)| match refused.contains(&place) {
            true => format!("{attempt}: EPERM"),
            false => format!("{attempt}: done"),
        };
        attempts.iter().enumerate().map(outcome).collect()
    };
    assert_eq!(as_root(None, &attempts)?, done(&[]), "control");
    assert_eq!(as_root(Some(&[]), &attempts)?, done(&[]));
    assert_eq!(
        as_root(Some(&["--strict=devices"]), &attempts)?,
        done(&[2, 3, 4, 5])
    );
    let named = [
        "--strict=devices",
        "--allow-read",
        "/dev/loop0",
        "--allow-write",
        "/dev/ptmx",
        "--allow-write",
        "/dev/pts",
    ];
    assert_eq!(as_root(Some(&named), &attempts)?, done(&[2, 4]));
    Ok(())
}

#[test]
fn a_refused_device_is_on_record_also_with_monitor() -> Result<()> {
    let fence = Fence::new("closures")?.with(&["--user", "root", "--strict=devices", "--monitor"]);
    let ended = to_end(fenced(&fence, &["head", "-c1", "/dev/loop0", "/dev/kmsg"]))?;
    assert_ne!(ended.code(), Some(0), "{ended:?}");
    let found: Vec<_> = fence
        .refusals()?
        .into_iter()
        .map(|one| (one.device, one.verdict, one.rule))
        .collect();
    let denied = |device: &str| {
        (
            device.to_owned(),
            "denied".to_owned(),
            "deny-device".to_owned(),
        )
    };
    assert_eq!(found, [denied("block 7:0"), denied("1:11")]);
    Ok(())
}
