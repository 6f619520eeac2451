//! The command runs as who it should, and otherwise as if there were no qfence.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    os::{
        fd::AsRawFd as _,
        unix::fs::{PermissionsExt as _, chown},
    },
    process::Command,
};

use anyhow::{Context as _, Result};
use nix::mount::{MsFlags, mount};
use tests::{
    fence::{Fence, qfence, unique_name},
    remains,
    run::{fenced, to_end, to_end_with_input, without_sudo},
    workspace,
    world::World,
};

const SCRIPT: &str = "echo uid $(id -u) gid $(id -g) groups $(id -G); \
     echo \"$HOME $USER $LOGNAME $SHELL ${XDG_RUNTIME_DIR-none}\"";

const ROOT_WARNING: &str = "qfence: warning: the command runs as root, and root can leave its \
     fence; give --user, or call with sudo\n";

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
fn a_user_has_no_capability_and_gains_none() -> Result<()> {
    let dir = tempfile::tempdir()?;
    workspace::make_readable(dir.path())?;
    let id = dir.path().join("id");
    fs::copy("/usr/bin/id", &id)?;
    fs::set_permissions(&id, fs::Permissions::from_mode(0o4755))?;
    let script = format!(
        "grep -E '^(CapEff|CapPrm|CapAmb|NoNewPrivs)' /proc/self/status; {} -u",
        id.display()
    );
    let zero = "0000000000000000";
    let capabilities = format!("CapPrm:\t{zero}\nCapEff:\t{zero}\nCapAmb:\t{zero}\n");
    for (options, last_lines) in [
        (&["--user", "nobody"][..], "NoNewPrivs:\t1\n65534\n"),
        (
            &["--user", "nobody", "--allow-new-privs"],
            "NoNewPrivs:\t0\n0\n",
        ),
    ] {
        let fence = Fence::new("privileges")?.with(options);
        let ended = to_end(fenced(&fence, &["sh", "-c", &script]))?;
        assert_eq!(ended.stdout, format!("{capabilities}{last_lines}"));
    }
    Ok(())
}

/// A caller can arrange that a change of user leaves capabilities: by securebits, which last across exec.
#[test]
fn no_capability_comes_from_the_caller() -> Result<()> {
    let script = "grep -E '^Cap(Inh|Prm|Eff|Amb)' /proc/self/status; \
                  setpriv --dump | grep -E '^Securebits'";
    let kept = [
        "--securebits=+no_setuid_fixup",
        "--inh-caps=+net_admin,+net_raw",
        "--ambient-caps=+net_admin,+net_raw",
    ];
    let locked = ["--securebits=+no_setuid_fixup,+no_setuid_fixup_locked"];
    let run = |arrangement: &[&str], words: &[String]| {
        let mut command = Command::new("setpriv");
        command.args(arrangement).args(words);
        command.args(["sh", "-c", script]);
        without_sudo(&mut command);
        to_end(command)
    };
    let control = ["setpriv", "--reuid=65534", "--clear-groups"].map(str::to_owned);
    let control = run(&kept, &control)?;
    assert!(
        control.stdout.contains("CapEff:\t0000000000003000\n"),
        "control: {control:?}"
    );

    let none = ["Inh", "Prm", "Eff", "Amb"].map(|set| format!("Cap{set}:\t{:016x}\n", 0));
    let none = none.concat();
    let fence = |options: &[&str]| -> Result<Fence> {
        Ok(Fence::new("caller")?
            .with(&["--user", "nobody"])
            .with(options))
    };
    for arrangement in [&kept[..], &kept[1..2], &kept[..2]] {
        for options in [&[][..], &["--allow-new-privs"]] {
            let inside = run(arrangement, &fence(options)?.launcher())?;
            assert_eq!(inside.code(), Some(0), "{inside:?}");
            assert!(inside.stdout.starts_with(&none), "{inside:?}");
            if options.contains(&"--allow-new-privs") {
                assert!(inside.stdout.contains("Securebits: [none]"), "{inside:?}");
            }
        }
    }
    // It matters where there is a way back to root, and only there.
    let inside = run(&locked, &fence(&[])?.launcher())?;
    assert!(inside.stdout.starts_with(&none), "{inside:?}");
    let inside = run(&locked, &fence(&["--allow-new-privs"])?.launcher())?;
    assert_eq!((inside.code(), inside.stdout.as_str()), (Some(125), ""));
    assert_eq!(
        inside.stderr,
        "qfence: error: cannot clear the securebits that keep capabilities for the command: \
         Operation not permitted (os error 1)\n"
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
