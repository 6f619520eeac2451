//! The user and the groups that the command runs as.

use std::{
    fs::{self, File},
    os::{fd::AsRawFd as _, unix::fs::chown},
    process::Command,
};

use anyhow::{Context as _, Result};
use nix::mount::{MsFlags, mount};
use tests::{
    fence::{Fence, qfence, unique_name},
    remains,
    run::{fenced, to_end, without_sudo},
    world::World,
};

use super::ROOT_WARNING;

const SCRIPT: &str = "echo uid $(id -u) gid $(id -g) groups $(id -G); \
     echo \"$HOME $USER $LOGNAME $SHELL ${XDG_RUNTIME_DIR-none}\"";

/// A host that knows a user `tester`, 4000, of the groups 4001, 4002 and 4003, and a group `other`.
/// Its /run/user is its own.
fn world_with_tester() -> Result<World> {
    let world = World::new()?;
    // Whatever users the machine has, this host has these.
    world.write_etc(
        "passwd",
        "root:x:0:0:root:/root:/bin/bash\n\
         nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n\
         tester:x:4000:4001:A Tester:/home/tester:/bin/tester-shell\n",
    )?;
    world.write_etc(
        "group",
        "root:x:0:\nnogroup:x:65534:\ntester:x:4001:\nmachines:x:4002:tester\n\
         lab:x:4003:nobody,tester\nother:x:4004:\n",
    )?;
    world.host.run(|| {
        const NONE: Option<&str> = None;
        // The descriptions of fences stay where all look for them.
        fs::create_dir_all("/run/qfence")?;
        let descriptions = File::open("/run/qfence")?;
        let tmpfs = Some("tmpfs");
        mount(tmpfs, "/run", tmpfs, MsFlags::empty(), Some("mode=755")).context("cover /run")?;
        fs::create_dir("/run/qfence")?;
        let path = format!("/proc/thread-self/fd/{}", descriptions.as_raw_fd());
        mount(
            Some(path.as_str()),
            "/run/qfence",
            NONE,
            MsFlags::MS_BIND,
            NONE,
        )?;
        Ok(fs::create_dir("/run/user")?)
    })?;
    Ok(world)
}

/// Has sudo's variables say that `tester` calls; runs the script in a fence, and returns its lines.
fn who_runs(world: &World, by_sudo: bool, options: &[&str]) -> Result<String> {
    let fence = Fence::new("identity")?.with(options);
    let mut command = fence.command(&world.host, "sh");
    command.args(["-c", SCRIPT]);
    without_sudo(&mut command);
    for (name, value) in [("HOME", "/root"), ("USER", "root"), ("LOGNAME", "root")] {
        command.env(name, value);
    }
    command.env("SHELL", "/bin/bash");
    command.env("XDG_RUNTIME_DIR", "/run/user/0");
    if by_sudo {
        let sudo = [("UID", "4000"), ("GID", "4001"), ("USER", "tester")];
        command.envs(sudo.map(|(name, value)| (format!("SUDO_{name}"), value)));
    }
    let ended = to_end(command)?;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert_eq!(ended.stderr, "", "{ended:?}");
    remains::ensure_none(fence.name())?;
    Ok(ended.stdout)
}

const TESTER: &str = "uid 4000 gid 4001 groups 4001 4002 4003\n\
                      /home/tester tester tester /bin/tester-shell none\n";

#[test]
fn who_called_sudo_runs_the_command() -> Result<()> {
    let world = world_with_tester()?;
    assert_eq!(who_runs(&world, true, &[])?, TESTER);
    Ok(())
}

#[test]
fn the_runtime_directory_is_theirs_or_none() -> Result<()> {
    let world = world_with_tester()?;
    world.host.run(|| Ok(fs::create_dir("/run/user/4000")?))?;
    assert_eq!(who_runs(&world, true, &[])?, TESTER);
    world
        .host
        .run(|| Ok(chown("/run/user/4000", Some(4000), None)?))?;
    assert_eq!(
        who_runs(&world, true, &[])?,
        TESTER.replace("none", "/run/user/4000")
    );
    Ok(())
}

#[test]
fn a_user_and_a_group_can_be_named_or_numbered() -> Result<()> {
    let world = world_with_tester()?;
    for user in ["tester", "4000"] {
        assert_eq!(who_runs(&world, false, &["--user", user])?, TESTER);
    }
    // A group that is given is the only one.
    for user in ["tester:other", "tester:4004", "4000:other", "4000:4004"] {
        assert_eq!(
            who_runs(&world, false, &["--user", user])?,
            TESTER.replace("gid 4001 groups 4001 4002 4003", "gid 4004 groups 4004")
        );
    }
    assert_eq!(
        who_runs(&world, false, &["--user", "4242:4343"])?,
        "uid 4242 gid 4343 groups 4343\n/ 4242 4242 /bin/sh none\n"
    );
    // For root as well.
    for user in ["root:other", "0:4004"] {
        let fence = Fence::new("identity")?.with(&["--user", user]);
        let mut command = fence.command(&world.host, "sh");
        command.args(["-c", "id -u; id -g; id -G"]);
        let ended = to_end(command)?;
        assert_eq!(ended.stdout, "0\n4004\n4004\n", "{ended:?}");
        // What other tests killed is cleared by whoever comes next.
        let of_others =
            |line: &&str| !line.starts_with("qfence: clearing the remains of the fence ");
        let own: String = ended
            .stderr
            .split_inclusive('\n')
            .filter(of_others)
            .collect();
        assert_eq!(own, ROOT_WARNING);
    }
    // The option goes before sudo.
    let nobody = who_runs(&world, true, &["--user", "nobody"])?;
    assert!(
        nobody.starts_with("uid 65534 gid 65534 groups 65534 4003\n"),
        "{nobody}"
    );
    Ok(())
}

#[test]
fn staying_root_is_warned_of_once() -> Result<()> {
    for options in [&[][..], &["--user", "root"], &["--user", "0"]] {
        let fence = Fence::new("root")?.with(options);
        let ended = to_end(fenced(&fence, &["id", "-u"]))?;
        assert_eq!(
            (ended.stdout.as_str(), ended.stderr.as_str()),
            ("0\n", ROOT_WARNING)
        );
    }
    let fence = Fence::new("root")?.with(&["--user", "nobody"]);
    assert_eq!(to_end(fenced(&fence, &["id", "-u"]))?.stderr, "");
    Ok(())
}

#[test]
fn an_id_that_sudo_gives_is_taken_without_a_database() -> Result<()> {
    let name = unique_name("sudo");
    let mut command = Command::new(qfence()?);
    command.args(["exec", "--name", &name, "--", "sh", "-c", SCRIPT]);
    command.envs([("SUDO_UID", "4242"), ("SUDO_GID", "4343")]);
    assert_eq!(
        to_end(command)?.stdout,
        "uid 4242 gid 4343 groups 4343\n/ 4242 4242 /bin/sh none\n"
    );
    remains::ensure_none(&name)
}
