//! Managers at places that qfence finds: buses of a session in /tmp, and servers that variables name.

use std::{fs, path::Path};

use anyhow::Result;
use tests::run::{Ended, to_end, without_sudo};

use super::{CONNECT, Host, PYTHON, SCRATCH, listen};

/// Connects as nobody, in a fence with these options or without one.
fn connect(host: &Host, options: Option<&[&str]>, path: &str, address: &str) -> Result<Ended> {
    let fence = host.fence(options.unwrap_or_default())?;
    let mut command = match options {
        Some(_) => fence.command(&host.namespace, PYTHON),
        None => host.namespace.command_as(super::NOBODY, PYTHON),
    };
    command.args([CONNECT, path]);
    command.env("DBUS_SESSION_BUS_ADDRESS", address);
    without_sudo(&mut command);
    to_end(command)
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
        let said = |options: Option<&[&str]>| {
            Ok::<_, anyhow::Error>(connect(&host, options, &path, &address)?.stdout)
        };
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
