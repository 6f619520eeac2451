//! The hooks of closures.

use std::{fs, path::Path};

use anyhow::Result;
use qfence_common::HOOKS;
use tests::{
    fence::Fence,
    run::{fenced, wait_until},
    shell::Shell,
};

/// The integrity of a fence covers the hooks of closures too. A fence has only those that it needs.
#[test]
fn a_fence_has_the_hooks_that_it_needs_and_misses_them() -> Result<()> {
    for (options, hooks) in [
        (&["--user", "root"][..], &[][..]),
        (&["--user", "nobody"], &["connect_unix", "sendmsg_unix"]),
        (
            &["--user", "nobody", "--allow-bus", "--strict=listeners"],
            &["bind4", "bind6"],
        ),
    ] {
        let fence = Fence::new("hooks")?.with(options);
        let shell = Shell::start(fenced(&fence, &["sh"]))?;
        let pins = Path::new("/sys/fs/bpf/qfence").join(fence.name());
        for optional in HOOKS.iter().filter(|row| row.is_optional) {
            let optional = optional.name;
            let is_there = pins.join(optional).exists();
            assert_eq!(
                is_there,
                hooks.contains(&optional),
                "{optional} {options:?}"
            );
        }
        for hook in hooks {
            fs::remove_file(pins.join(hook))?;
            let said = format!("the pin of its link for {hook} was removed");
            wait_until(&said, || Ok(shell.stderr().contains(&said)))?;
        }
        assert!(!shell.stderr().contains("detached"), "{}", shell.stderr());
    }
    Ok(())
}
