//! The closures that programs enforce: names of Unix sockets, local ports, devices. Each refusal has a control: the same attempt
//! without the fence is done.

mod scene;

use std::{fs, path::Path, process::Command};

use anyhow::{Result, ensure};
use qfence_user::base::exit::FAILED;
use scene::{ATTEMPT, BUS, NOTIFY, PYTHON, SCRATCH, Scene, WAYLAND};
use tests::{
    fence::Fence,
    run::{fenced, to_end, wait_until, without_sudo},
    shell::Shell,
};

const REFUSED: &str = "ECONNREFUSED";
const DONE: &str = "done";

#[test]
fn a_manager_is_refused_by_its_name_and_is_on_record() -> Result<()> {
    let scene = Scene::new()?;
    let fence = scene.expect(
        &[],
        &[
            ("unix stream /run/user/65534/bus", REFUSED),
            ("unix stream /var/run/docker.sock", REFUSED),
            ("ring /run/docker.sock", REFUSED),
            ("compat /run/user/65534/bus", REFUSED),
            ("unix send /run/user/65534/systemd/notify", REFUSED),
            ("unix stream @/tmp/dbus-outside", REFUSED),
            ("unix stream @/containerd-shim/one", REFUSED),
            // The rest works as before.
            ("unix stream /run/user/65534/wayland-0", DONE),
            ("unix stream @/tmp/.X11-unix/X9", DONE),
            ("unix stream @other", DONE),
            ("relative stream /run/user/65534/wayland-0", DONE),
            ("own /run/scratch/own", DONE),
            ("own @/tmp/dbus-inside", DONE),
            ("pair", DONE),
        ],
    )?;
    let found: Vec<_> = fence
        .refusals()?
        .into_iter()
        .map(|one| (one.unix, one.manager, one.hook, one.rule, one.count))
        .collect();
    let named = |name: &str, manager: &str, hook: &str| {
        let manager = Some(manager.to_owned());
        (
            name.to_owned(),
            manager,
            hook.to_owned(),
            "deny-manager".to_owned(),
            1,
        )
    };
    assert_eq!(
        found,
        [
            named(BUS, "D-Bus", "connect_unix"),
            named("/var/run/docker.sock", "Docker", "connect_unix"),
            named("/run/docker.sock", "Docker", "connect_unix"),
            // The second attempt of a key.
            named(NOTIFY, "systemd", "sendmsg_unix"),
            named("@/tmp/dbus-outside", "D-Bus", "connect_unix"),
            named("@/containerd-shim/one", "containerd", "connect_unix"),
            named(BUS, "D-Bus", "connect_unix"),
        ]
    );
    Ok(())
}

#[test]
fn a_name_that_is_allowed_is_not_refused() -> Result<()> {
    let scene = Scene::new()?;
    let options = ["--allow-unix", BUS, "--allow-unix", "@/containerd-shim/one"];
    let fence = scene.expect(
        &options,
        &[
            ("unix stream /run/user/65534/bus", DONE),
            ("unix stream @/containerd-shim/one", DONE),
            ("unix stream @/tmp/dbus-outside", REFUSED),
            ("unix stream /run/docker.sock", REFUSED),
        ],
    )?;
    assert_eq!(fence.refusals()?.len(), 2);
    let fence = scene.expect(
        &["--allow-bus"],
        &[
            ("unix stream /run/user/65534/bus", DONE),
            ("unix stream @/tmp/dbus-outside", DONE),
        ],
    )?;
    assert_eq!(fence.refusals()?, []);
    Ok(())
}

/// A container in the fence may have a bus of its own at the usual path. Abstract names are the host's all the same.
#[test]
fn a_name_in_other_mounts_is_another_socket() -> Result<()> {
    let scene = Scene::new()?;
    let fence = Fence::new("closures")?.with(&["--user", "nobody"]);
    let script = format!(
        "mount -t tmpfs none /run/user/65534 && exec {PYTHON} {ATTEMPT} 'own {BUS}' 'unix stream @/tmp/dbus-outside'"
    );
    let mut command = fence.command(&scene.host, "unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script]);
    without_sudo(&mut command);
    let ended = to_end(command)?;
    assert_eq!(
        ended.stdout,
        format!("own {BUS}: done\nunix stream @/tmp/dbus-outside: ECONNREFUSED\n"),
        "{ended:?}"
    );
    let names: Vec<_> = fence.refusals()?.into_iter().map(|one| one.unix).collect();
    assert_eq!(names, ["@/tmp/dbus-outside"]);
    Ok(())
}

#[test]
fn strict_allows_no_other_socket() -> Result<()> {
    let scene = Scene::new()?;
    let options = [
        "--strict=sockets",
        "--allow-unix",
        WAYLAND,
        "--allow-unix",
        "@other",
    ];
    let link = format!("link stream {WAYLAND} {SCRATCH}/link");
    let fence = scene.expect(
        &options,
        &[
            ("unix stream /run/user/65534/wayland-0", DONE),
            ("unix stream @other", DONE),
            ("pair", DONE),
            ("unix stream /run/user/65534/bus", REFUSED),
            ("unix send /run/user/65534/systemd/notify", REFUSED),
            ("unix stream @/tmp/.X11-unix/X9", REFUSED),
            ("relative stream /run/user/65534/wayland-0", REFUSED),
            ("unix stream /run/user/65534/../65534/wayland-0", REFUSED),
            ("own @mine", REFUSED),
        ],
    )?;
    let refusals = fence.refusals()?;
    let rule_of = |name: &str| {
        let of = refusals.iter().find(|one| one.unix == name);
        of.map(|one| (one.rule.as_str(), one.manager.as_deref()))
    };
    assert_eq!(
        rule_of(BUS),
        Some(("deny-manager", Some("D-Bus"))),
        "{refusals:?}"
    );
    assert_eq!(
        rule_of("wayland-0"),
        Some(("deny-unix", None)),
        "{refusals:?}"
    );
    // A link is another name.
    let outcomes = scene.outside(&[&link])?;
    assert_eq!(outcomes[&link], DONE);
    let fence = Fence::new("closures")?
        .with(&["--user", "nobody"])
        .with(&options)
        .with(&["--allow-write", SCRATCH, "--allow-read", ATTEMPT]);
    assert_ne!(scene.inside(&fence, &[&link])?[&link], DONE);
    // Without an abstract name to allow, a Landlock domain tells the command's own ones from others.
    let others = [
        ("own @mine", DONE),
        ("unix stream @other", "EPERM"),
        ("unix stream @/tmp/.X11-unix/X9", REFUSED),
    ];
    scene.expect(&["--strict=sockets"], &others)?;
    Ok(())
}

#[test]
fn a_name_that_the_command_could_redirect_is_an_error() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let dir = dir.path().display().to_string();
    let socket = format!("{dir}/socket");
    let fence = Fence::new("closures")?.with(&["--strict=sockets", "--user", "nobody"]);
    let fence = fence.with(&["--allow-unix", &socket, "--allow-write", &dir]);
    let ended = to_end(fenced(&fence, &["true"]))?;
    assert_eq!(ended.code(), Some(i32::from(FAILED)), "{ended:?}");
    let said = format!("--allow-unix {socket}: the command can change {dir}");
    assert!(ended.stderr.contains(&said), "{ended:?}");
    Ok(())
}

#[test]
fn strict_allows_only_named_ports() -> Result<()> {
    let scene = Scene::new()?;
    let options = ["--strict=listeners", "--allow-listen", "tcp:8000-8001"];
    let fence = scene.expect(
        &options,
        &[
            ("bind tcp 127.0.0.1 8000", DONE),
            ("bind tcp ::1 8001", DONE),
            ("bind mptcp 127.0.0.1 8000", DONE),
            ("bind tcp 127.0.0.1 0", DONE),
            ("bind udp ::1 0", DONE),
            ("bind udp 127.0.0.1 8000", "EACCES"),
            ("bind tcp 127.0.0.1 8002", "EACCES"),
            ("bind tcp ::1 7999", "EACCES"),
            ("bind mptcp ::1 8002", "EACCES"),
            ("bind udp ::ffff:127.0.0.1 8000", "EACCES"),
            // Such a socket can get the port of a service that shares it.
            ("bind tcp+addr 127.0.0.1 0", DONE),
            ("bind udp+addr 127.0.0.1 0", "EACCES"),
            ("bind udp+port ::1 0", "EACCES"),
            ("bind tcp+port 127.0.0.1 0", "EACCES"),
            ("bind tcp+port 127.0.0.1 8000", DONE),
        ],
    )?;
    let found: Vec<_> = fence
        .refusals()?
        .into_iter()
        .map(|one| {
            format!(
                "{} {} {} {}",
                one.hook, one.protocol, one.local, one.local_port
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            "bind4 udp 127.0.0.1 8000",
            "bind4 tcp 127.0.0.1 8002",
            "bind6 tcp ::1 7999",
            "bind6 tcp ::1 8002",
            "bind6 udp 127.0.0.1 8000",
            "bind4 udp 127.0.0.1 0",
            "bind6 udp ::1 0",
            "bind4 tcp 127.0.0.1 0",
        ]
    );
    scene.expect(&[], &[("bind udp 127.0.0.1 8000", DONE)])?;
    Ok(())
}

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

/// The hooks of closures are parts of the fence like the others, and a fence has only those that it needs.
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
        for optional in ["connect_unix", "sendmsg_unix", "bind4", "bind6"] {
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
