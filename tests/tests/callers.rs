//! doas and pkexec run qfence for a user, who is then the user of the command.

use std::{fs, os::unix::fs::PermissionsExt as _};

use anyhow::Result;
use tests::{
    fence::{Fence, qfence, unique_name},
    run::{to_end, without_sudo},
    systemd::{Machine, UID, USER},
    world::World,
};

const SCRIPT: &str = "echo $(id -u) $HOME; echo ${DOAS_USER-none} ${PKEXEC_UID-none}";

#[test]
fn whoever_called_doas_runs_the_command() -> Result<()> {
    let world = World::new()?;
    world.write_etc(
        "passwd",
        "root:x:0:0:root:/root:/bin/bash\n\
         nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n\
         tester:x:4000:4001:A Tester:/home/tester:/bin/sh\n",
    )?;
    world.write_etc("group", "root:x:0:\nnogroup:x:65534:\ntester:x:4001:\n")?;
    world.write_etc("shadow", "root:*:1::::::\ntester:*:1::::::\n")?;
    world.write_etc("doas.conf", "permit nopass tester as root\n")?;
    world.host.run(|| {
        fs::set_permissions("/etc/doas.conf", fs::Permissions::from_mode(0o600))?;
        Ok(())
    })?;
    let fence = Fence::new("doas")?;
    let mut command = world.host.command("setpriv");
    command.args([
        "--reuid",
        "4000",
        "--regid",
        "4001",
        "--clear-groups",
        "doas",
    ]);
    command.args(fence.launcher()).args(["sh", "-c", SCRIPT]);
    without_sudo(&mut command);
    let ended = to_end(command)?;
    assert_eq!(
        ended.stdout, "4000 /home/tester\ntester none\n",
        "{ended:?}"
    );
    assert!(!ended.stderr.contains("runs as root"), "{ended:?}");
    Ok(())
}

#[test]
fn whoever_called_pkexec_runs_the_command() -> Result<()> {
    let machine = Machine::boot()?;
    machine.write(
        "/etc/polkit-1/rules.d/10-tests.rules",
        &format!(
            "polkit.addRule(function(action, subject) {{ if (subject.user == \"{USER}\") return polkit.Result.YES; }});\n"
        ),
    )?;
    let name = unique_name("pkexec");
    let mut command = machine.command_as_user("sh")?;
    // pkexec asks on behalf of its parent, which is to be a process of the machine.
    command.args(["-c", "pkexec \"$@\"; exit $?", "sh"]);
    command
        .arg(qfence()?)
        .args(["exec", "--log", "none", "--name", &name]);
    command.args(["--", "sh", "-c", SCRIPT]);
    let ended = to_end(command)?;
    let expected = format!("{UID} /home/{USER}\nnone {UID}\n");
    assert_eq!(ended.stdout, expected, "{ended:?}\n{}", machine.log());
    assert!(!ended.stderr.contains("runs as root"), "{ended:?}");
    machine.end()
}
