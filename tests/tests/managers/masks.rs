//! The masks over the paths of managers.

use std::{fs, os::unix::fs::symlink, path::Path};

use anyhow::{Result, ensure};
use qfence_user::base::exit::FAILED;
use tests::{
    fence::Fence,
    namespace::Namespace,
    run::{to_end, wait_until, without_sudo},
    shell::Shell,
};

use super::{CONNECT, Host, PYTHON, listen};

#[test]
fn a_socket_that_its_manager_makes_anew_is_masked_again() -> Result<()> {
    let mut host = Host::new()?;
    let fence = host.fence(&[])?;
    let mut shell = Shell::start(fence.command(&host.namespace, "sh"))?;
    let connect = |shell: &mut Shell, path: &str| shell.ask(&format!("{PYTHON} {CONNECT} {path}"));
    assert_eq!(connect(&mut shell, "/run/docker.sock")?, ["refused"]);
    // Docker restarts; snapd and a libvirt of the user's start only now.
    let late = [
        "/run/docker.sock",
        "/run/snapd.socket",
        "/run/user/65534/libvirt/libvirt-sock",
    ];
    host.listeners.push(host.namespace.run(|| {
        fs::remove_file("/run/docker.sock")?;
        listen(Path::new(late[0]), false)
    })?);
    for path in &late[1..] {
        host.listeners.push(
            host.namespace
                .run(|| listen(Path::new(path), path.contains("user")))?,
        );
    }
    for path in late {
        wait_until(&format!("{path} is masked"), || {
            Ok(connect(&mut shell, path)? == ["refused"])
        })?;
        wait_until("it is reported", || {
            let said = shell.stderr();
            Ok(
                said.contains(&format!("made {path} while the command was running"))
                    || said.contains(&format!("made {} while", path.rsplit_once('/').unwrap().0)),
            )
        })?;
    }
    Ok(())
}

#[test]
fn a_masked_working_directory_is_the_mask() -> Result<()> {
    let host = Host::new()?;
    let fence = host.fence(&[])?;
    let mut command = fence.command(&host.namespace, "sh");
    command.args(["-c", "pwd; ls"]);
    // The working directory is entered in the host's mounts.
    let mut wrapped = host.namespace.command("sh");
    wrapped.args(["-c", "cd /run/user/65534/systemd && exec \"$@\"", "sh"]);
    wrapped.arg(command.get_program()).args(command.get_args());
    without_sudo(&mut wrapped);
    let ended = to_end(wrapped)?;
    assert_eq!(ended.stdout, "/run/user/65534/systemd\n", "{ended:?}");
    Ok(())
}

#[test]
fn a_socket_whose_path_is_not_plain_is_refused() -> Result<()> {
    for path in ["bus", "/run/../run/docker.sock", ""] {
        let fence = Fence::new("managers")?.with(&["--allow-unix", path]);
        let mut command = fence.command(&Namespace::new()?, "true");
        without_sudo(&mut command);
        let ended = to_end(command)?;
        ensure!(ended.code() == Some(i32::from(FAILED)), "{ended:?}");
        assert!(ended.stderr.contains("is absolute"), "{ended:?}");
        assert!(!fence.is_pinned());
    }
    Ok(())
}

#[test]
fn what_is_required_to_be_closed_is_closed_or_nothing_starts() -> Result<()> {
    let run = |options: &[&str]| -> Result<(Option<i32>, String)> {
        let fence = Fence::new("required")?.with(options);
        let mut command = fence.command(&Namespace::new()?, "true");
        without_sudo(&mut command);
        let ended = to_end(command)?;
        assert!(!fence.is_pinned());
        Ok((ended.code(), ended.stderr))
    };
    let both = ["--user", "nobody", "--require", "managers,processes"];
    let (code, said) = run(&both)?;
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("warning"), "{said}");
    for (options, reason) in [
        (
            &["--allow-bus"][..],
            "--require managers: it is not closed for the command: --allow-bus is given",
        ),
        (
            &["--allow-foreign-netns"],
            "--require processes: it is not closed for the command: --allow-foreign-netns is given",
        ),
        (
            &["--user", "root"],
            "--require managers: it is not closed for the command: the command runs as root",
        ),
    ] {
        let (code, said) = run(&[&both, options].concat())?;
        assert_eq!(code, Some(i32::from(FAILED)), "{said}");
        assert!(said.contains(reason), "{said}");
    }
    Ok(())
}

#[test]
fn a_link_of_roots_is_followed_and_one_of_the_users_is_an_error() -> Result<()> {
    let host = Host::new()?;
    let connect = |path: &str| host.run(&[], &[PYTHON, CONNECT, path]);
    let link = |path: &'static str, target: &'static str| {
        host.namespace.run(move || {
            fs::rename(path, target)?;
            Ok(symlink(target, path)?)
        })
    };
    link("/run/docker.sock", "/run/engine.sock")?;
    for path in ["/run/docker.sock", "/run/engine.sock"] {
        let ended = connect(path)?;
        assert_eq!(ended.code(), Some(0), "{path}: {ended:?}");
        assert_eq!(ended.stdout, "refused\n", "{path}");
    }
    link("/run/user/65534/bus", "/run/user/65534/other")?;
    let ended = connect("/run/user/65534/bus")?;
    assert_eq!(ended.code(), Some(i32::from(FAILED)), "{ended:?}");
    let reason = "/run/user/65534/bus (D-Bus) is a symbolic link";
    assert!(ended.stderr.contains(reason), "{ended:?}");
    Ok(())
}
