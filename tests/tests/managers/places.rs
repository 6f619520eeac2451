//! Managers at places that qfence finds: buses of a session in /tmp, and servers that variables name.

use std::{fs, path::Path};

use anyhow::{Result, ensure};
use tests::run::{to_end, without_sudo};

use super::{CONNECT, Host, PYTHON, SCRATCH, listen};

/// Connects as nobody, in a fence with these options or without one. Returns what it says.
fn connect(
    host: &Host,
    options: Option<&[&str]>,
    path: &str,
    variable: (&str, &str),
) -> Result<String> {
    let fence = host.fence(options.unwrap_or_default())?;
    let mut command = match options {
        Some(_) => fence.command(&host.namespace, PYTHON),
        None => host.namespace.command_as(super::NOBODY, PYTHON),
    };
    command.args([CONNECT, path]).env(variable.0, variable.1);
    without_sudo(&mut command);
    let ended = to_end(command)?;
    ensure!(ended.code() == Some(0), "{ended:?}");
    Ok(ended.stdout)
}

#[test]
fn buses_in_tmp_and_servers_that_variables_name_are_masked() -> Result<()> {
    let host = Host::new()?;
    // dbus-run-session makes such a path; a directory of the test's own is removed with it.
    let dir = tempfile::Builder::new()
        .prefix("dbus-")
        .tempdir_in("/tmp")?;
    let in_tmp = dir.path().join("bus");
    let named = Path::new(SCRATCH).join("session/bus");
    let other = Path::new(SCRATCH).join("other/socket");
    let _listeners = host.namespace.run(|| {
        let listeners = [
            listen(&in_tmp, true)?,
            listen(&named, true)?,
            listen(&other, true)?,
        ];
        fs::symlink_metadata(&named)?;
        Ok(listeners)
    })?;
    let address = format!("unix:path={},guid=0123456789abcdef", named.display());
    for (path, is_manager) in [(&in_tmp, true), (&named, true), (&other, false)] {
        let path = path.display().to_string();
        let variable = ("DBUS_SESSION_BUS_ADDRESS", address.as_str());
        let said = |options: Option<&[&str]>| connect(&host, options, &path, variable);
        assert_eq!(said(None)?, "connected\n", "control: {path}");
        let expected = if is_manager {
            "refused\n"
        } else {
            "connected\n"
        };
        assert_eq!(said(Some(&[]))?, expected, "{path}");
        assert_eq!(said(Some(&["--allow-bus"]))?, "connected\n", "{path}");
        assert_eq!(
            said(Some(&["--allow-unix", &path]))?,
            "connected\n",
            "{path}"
        );
    }
    Ok(())
}

/// Managers that execute what their client tells them: by their path, by the begin of their socket's name, and by a variable.
#[test]
fn servers_that_execute_commands_are_masked_wherever_clients_find_them() -> Result<()> {
    let host = Host::new()?;
    let runtime = Path::new("/run/user/65534");
    let managers = [
        Path::new("/run/supervisor.sock").to_owned(),
        runtime.join("pueue_nobody.socket"),
        runtime.join("emacs/server"),
        runtime.join("sway-ipc.65534.77.sock"),
        runtime.join("nvim.77.0"),
        Path::new(SCRATCH).join("sway/socket"),
    ];
    let other = runtime.join("nvimrc");
    let _listeners = host.namespace.run(|| {
        let of_user = |path: &Path| listen(path, !path.ends_with("supervisor.sock"));
        let listeners = managers.iter().chain([&other]).map(|path| of_user(path));
        listeners.collect::<Result<Vec<_>>>()
    })?;
    let variable = managers[5].display().to_string();
    for (path, expected) in managers
        .iter()
        .map(|path| (path, "refused\n"))
        .chain([(&other, "connected\n")])
    {
        let path = path.display().to_string();
        let variable = ("SWAYSOCK", variable.as_str());
        let said = |options: Option<&[&str]>| connect(&host, options, &path, variable);
        assert_eq!(said(None)?, "connected\n", "control: {path}");
        assert_eq!(said(Some(&[]))?, expected, "{path}");
        let allowed = ["--allow-unix", &path];
        assert_eq!(said(Some(&allowed))?, "connected\n", "{path}");
    }
    Ok(())
}
