//! What the command is told to use and cannot reach is reported before it starts, with the rule that allows it.

mod unspecified;

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::Result;
use tests::{
    fence::{qfence, unique_name},
    listener::Listeners,
    run::{Ended, to_end_with_input, wait_until},
    workspace,
    world::{HOST_V4, SERVER_V4, World},
};

const PORT: u16 = 8080;
const QEMU: &str = "qemu-system-x86_64";

/// Runs a command in a fence, with variables.
fn run(
    world: &World,
    options: &[&str],
    variables: &[(&str, &str)],
    words: &[&str],
) -> Result<Ended> {
    let mut command = world.host.command(qfence()?);
    command.args(["exec", "--name", &unique_name("hint")]);
    command.args(options).arg("--").args(words);
    for name in [
        "DISPLAY",
        "http_proxy",
        "https_proxy",
        "PULSE_SERVER",
        "DOCKER_HOST",
    ] {
        command.env_remove(name);
    }
    command.envs(variables.iter().copied());
    // For a QEMU with a monitor.
    to_end_with_input(command, b"quit\n")
}

/// The lines that begin with these words.
fn lines<'a>(ended: &'a Ended, start: &str) -> Vec<&'a str> {
    let lines = ended.stderr.lines();
    lines
        .filter_map(|line| line.strip_prefix("qfence: "))
        .filter(|line| line.starts_with(start))
        .collect()
}

#[test]
fn variables_that_lead_to_the_host_get_a_hint() -> Result<()> {
    let world = World::new()?;
    let user = &["--user", "nobody"][..];
    for (variables, names, target) in [
        (
            &[("DISPLAY", "localhost:10.0")][..],
            "DISPLAY leads",
            "127.0.0.1:6010",
        ),
        (
            &[("http_proxy", "http://127.0.0.1:3128")],
            "http_proxy leads",
            "127.0.0.1:3128",
        ),
        (
            &[
                ("http_proxy", "localhost:3128"),
                ("https_proxy", "http://localhost:3128/"),
            ],
            "http_proxy, https_proxy lead",
            "127.0.0.1:3128",
        ),
        (
            &[("PULSE_SERVER", "tcp:[::1]")],
            "PULSE_SERVER leads",
            "[::1]:4713",
        ),
        (
            &[("DOCKER_HOST", "tcp://192.0.2.10:2375")],
            "DOCKER_HOST leads",
            "192.0.2.10:2375",
        ),
    ] {
        let ended = run(&world, user, variables, &["true"])?;
        let rule = format!("tcp:{target}");
        let hint =
            format!("hint: {names} to {target}, which is refused; give --allow {rule} to allow it");
        assert_eq!(lines(&ended, "hint: "), [hint], "{ended:?}");
        assert_eq!(ended.code(), Some(0), "{ended:?}");
        let allowed = [user, &["--allow", &rule]].concat();
        let ended = run(&world, &allowed, variables, &["true"])?;
        assert_eq!(lines(&ended, "hint: "), [""; 0], "{ended:?}");
    }
    // The set `self` allows it if the command listens there.
    let own = &[user, &["--allow", "self"]].concat();
    let ended = run(
        &world,
        own,
        &[("http_proxy", "http://127.0.0.1:3128")],
        &["true"],
    )?;
    let hint = "hint: http_proxy leads to 127.0.0.1:3128, which is refused unless the command itself starts the listener; \
        give --allow tcp:127.0.0.1:3128 if another process does";
    assert_eq!(lines(&ended, "hint: "), [hint], "{ended:?}");
    // Elsewhere, files, and variables that the command does not get.
    let proxy = format!("http://{SERVER_V4}:3128");
    for (options, name, value) in [
        (&[][..], "http_proxy", proxy.as_str()),
        (&[], "DISPLAY", ":0"),
        (&[], "PULSE_SERVER", "unix:/run/pulse"),
        (&["--monitor"], "DISPLAY", "localhost:10"),
        (&["--strict"], "http_proxy", "http://localhost:3128"),
    ] {
        let ended = run(
            &world,
            &[user, options].concat(),
            &[(name, value)],
            &["true"],
        )?;
        assert_eq!(
            lines(&ended, "hint: "),
            [""; 0],
            "{name}={value}: {ended:?}"
        );
    }
    Ok(())
}

#[test]
fn what_a_qemu_connects_to_on_the_host_gets_a_hint() -> Result<()> {
    let world = World::new()?;
    let services = Listeners::everywhere(&world.host, PORT)?;
    let bare = "-nodefaults -no-user-config -display none -machine none -nic none";
    let bare: Vec<_> = bare.split(' ').collect();
    for (option, value, rule) in [
        (
            "-serial",
            format!("tcp:127.0.0.1:{PORT}"),
            format!("tcp:127.0.0.1:{PORT}"),
        ),
        (
            "-chardev",
            format!("socket,id=c,host={HOST_V4},port={PORT}"),
            format!("tcp:{HOST_V4}:{PORT}"),
        ),
        (
            "-display",
            format!("vnc=127.0.0.1:{PORT},reverse=on"),
            format!("tcp:127.0.0.1:{PORT}"),
        ),
        (
            "-object",
            format!("input-barrier,id=b,name=x,server=127.0.0.1,port={PORT}"),
            format!("tcp:127.0.0.1:{PORT}"),
        ),
        (
            "-netdev",
            format!("socket,id=n,connect=127.0.0.1:{PORT}"),
            format!("tcp:127.0.0.1:{PORT}"),
        ),
        (
            "-netdev",
            format!("socket,id=n,mcast=230.0.0.1:{PORT}"),
            format!("udp:230.0.0.1:{PORT}"),
        ),
        (
            "-drive",
            "file=nbd:127.0.0.1:10809,if=none,id=d".into(),
            "tcp:127.0.0.1:10809".into(),
        ),
    ] {
        let words = [&[QEMU][..], &bare, &[option, &value, "-version"]].concat();
        let ended = run(&world, &["--user", "nobody"], &[], &words)?;
        let target = rule.split_once(':').map_or("", |(_, target)| target);
        let hint = format!(
            "hint: QEMU connects to {target} ({option} {value}), which is refused; give --allow {rule} to allow it"
        );
        assert_eq!(lines(&ended, "hint: "), [hint], "{ended:?}");
        let ended = run(&world, &["--user", "nobody", "--allow", &rule], &[], &words)?;
        assert_eq!(lines(&ended, "hint: "), [""; 0], "{ended:?}");
    }
    // It waits for the guest's state to be sent, and does not connect.
    let incoming = format!("tcp:127.0.0.1:{}", PORT + 1);
    let words = [&[QEMU][..], &bare, &["-incoming", &incoming, "-version"]].concat();
    let ended = run(&world, &["--user", "nobody"], &[], &words)?;
    assert_eq!(lines(&ended, "hint: "), [""; 0], "{ended:?}");

    // What the hint says is what is needed.
    let value = format!("socket,id=c,host=127.0.0.1,port={PORT}");
    let monitor = "stdio";
    let words = [
        &[QEMU][..],
        &bare,
        &["-chardev", &value, "-monitor", monitor],
    ]
    .concat();
    let rule = format!("tcp:127.0.0.1:{PORT}");
    for (options, arrives) in [(&[][..], false), (&["--allow", &rule], true)] {
        let before = services.arrivals().len();
        run(
            &world,
            &[&["--user", "nobody"], options].concat(),
            &[],
            &words,
        )?;
        if arrives {
            wait_until("an arrival", || Ok(services.arrivals().len() > before))?;
        }
        assert_eq!(services.arrivals().len() > before, arrives, "{options:?}");
    }
    Ok(())
}

/// A program of this name that does nothing.
fn dummy(directory: &Path, name: &str) -> Result<String> {
    let path = directory.join(name);
    fs::write(&path, "#!/bin/sh\n")?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path.display().to_string())
}

#[test]
fn a_program_whose_server_is_outside_gets_a_warning() -> Result<()> {
    let world = World::new()?;
    let dir = tempfile::tempdir()?;
    workspace::make_readable(dir.path())?;
    let docker = dummy(dir.path(), "docker")?;
    let tmux = dummy(dir.path(), "tmux")?;
    let systemd_run = dummy(dir.path(), "systemd-run")?;
    let podman = dummy(dir.path(), "podman")?;
    let warnings = |options: &[&str], words: &[&str]| -> Result<Vec<String>> {
        let ended = run(&world, options, &[], words)?;
        assert_eq!(ended.code(), Some(0), "{ended:?}");
        let warnings = lines(&ended, "warning: ").into_iter();
        let outside = warnings.filter(|line| line.contains("what it starts is not fenced"));
        Ok(outside.map(str::to_owned).collect())
    };
    let root = &["--user", "root"][..];
    for (words, start) in [
        (
            &[docker.as_str(), "run", "alpine"][..],
            "docker has its work done by the Docker daemon",
        ),
        (
            &["nice", "-n", "5", "timeout", "60", &docker, "run", "alpine"],
            "docker has its work done by the Docker daemon",
        ),
        (
            &[&podman, "--url", "unix:///x", "run", "x"],
            "podman --remote has its work done by",
        ),
        (
            &[&podman, "--remote", "run", "x"],
            "podman --remote has its work done by",
        ),
        (
            &[&systemd_run, "sleep", "1"],
            "systemd-run has its work done by systemd",
        ),
        (&[&tmux, "new"], "tmux has its work done by a tmux server"),
    ] {
        let found = warnings(root, words)?;
        let [line] = &found[..] else {
            panic!("{words:?}: {found:?}");
        };
        assert!(line.starts_with(&format!("warning: {start}")), "{line}");
        // These users reach no server.
        assert_eq!(
            warnings(&["--user", "nobody"], words)?,
            [""; 0],
            "{words:?}"
        );
        let bus = &["--user", "nobody", "--allow-bus"];
        assert_eq!(warnings(bus, words)?.len(), 1, "{words:?}");
    }
    let socket = &["--user", "nobody", "--allow-unix", "/run/docker.sock"];
    assert_eq!(warnings(socket, &[&docker, "run", "x"])?.len(), 1);
    assert_eq!(warnings(socket, &[&systemd_run, "x"])?, [""; 0]);
    for words in [
        &[docker.as_str(), "ps"][..],
        &[&podman, "run", "x"],
        &["timeout", "60", "echo", &docker, "run"],
        &[&tmux, "-V"],
    ] {
        assert_eq!(warnings(root, words)?, [""; 0], "{words:?}");
    }
    Ok(())
}
