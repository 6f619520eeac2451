//! Names of Unix sockets.

use anyhow::Result;
use qfence_user::base::exit::FAILED;
use tests::{
    fence::Fence,
    run::{fenced, to_end, without_sudo},
};

use super::{
    DONE,
    scene::{ATTEMPT, BUS, NOTIFY, PYTHON, SCRATCH, Scene, WAYLAND},
};

const REFUSED: &str = "ECONNREFUSED";

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
