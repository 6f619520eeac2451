//! Keys: the kernel starts no process outside the fence to find one.

use anyhow::Result;
use tests::{probe, run::to_end};

use super::Scene;

#[test]
fn the_kernel_calls_nobody_out_for_a_key() -> Result<()> {
    let scene = Scene::new(&[])?;
    let call_out: [String; 2] =
        ["native", "compat"].map(|manner| format!("keys/{manner}/call-out"));
    for outcome in scene.outside(&call_out)? {
        // The latter says that there is no /sbin/request-key on this machine, which was to be run.
        let has_called = outcome.failed_with("ENOKEY") || outcome.failed_with("ENOENT");
        assert!(has_called, "control: {outcome:?}");
    }
    for outcome in scene.inside(&call_out)? {
        assert!(outcome.failed_with("EPERM"), "{outcome:?}");
    }
    // Keys are there all the same.
    let rest = ["add", "search", "control"].map(|what| format!("keys/native/{what}"));
    for outcome in scene.inside(&rest)? {
        assert!(outcome.is_reached(), "{outcome:?}");
    }
    Ok(())
}

#[test]
fn who_is_strict_has_no_keys() -> Result<()> {
    let scene = Scene::new(&["--strict=syscalls"])?;
    let what = ["call-out", "add", "search", "control"];
    let [native, compat] =
        ["native", "compat"].map(|manner| what.map(|what| format!("keys/{manner}/{what}")));
    for outcome in scene.outside(&[native.clone(), compat.clone()].concat())? {
        assert!(!outcome.failed_with("EPERM"), "control: {outcome:?}");
    }
    for outcome in scene.inside(&native)? {
        assert!(outcome.failed_with("EPERM"), "{outcome:?}");
    }
    // The process is killed by its first 32-bit call.
    for attempt in compat {
        let mut command = scene.fence.command(&scene.world.host, probe::program()?);
        command.args(["--timeout-ms", "500", &attempt]);
        let ended = to_end(command)?;
        assert_eq!(ended.code(), Some(128 + 31), "{ended:?}");
    }
    Ok(())
}
