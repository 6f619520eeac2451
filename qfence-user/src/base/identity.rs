//! The user a command runs as.

use std::{
    ffi::{CString, OsString},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    errno::Errno,
    unistd::{Gid, Group, Uid, User, getgrouplist},
};

/// Where user managers put the runtime directories (pam_systemd(8)).
const RUNTIME_DIRS: &str = "/run/user";

/// A user, as the kernel and as programs know one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user id.
    pub uid: Uid,
    /// The primary group id.
    pub gid: Gid,
    /// The supplementary groups.
    pub groups: Vec<Gid>,
    /// What the environment says of the user: (name, value), `None` to unset.
    pub environment: Vec<(&'static str, Option<OsString>)>,
}

/// Variables by which sudo says who called it.
#[derive(Clone, Debug, Default)]
pub struct Sudo {
    /// `SUDO_UID`.
    pub uid: Option<String>,
    /// `SUDO_GID`.
    pub gid: Option<String>,
}

impl Sudo {
    /// Reads them from the environment.
    #[must_use]
    pub fn from_env() -> Self {
        Self {
            uid: std::env::var("SUDO_UID").ok(),
            gid: std::env::var("SUDO_GID").ok(),
        }
    }
}

/// The identity to change to; `None` to stay root, with root's groups and environment as they are.
///
/// `user` is what `--user` says; otherwise it is whoever called sudo.
///
/// # Errors
/// If there is no such user or group.
pub fn resolve(user: Option<&str>, sudo: &Sudo) -> Result<Option<Identity>> {
    let has_group = user.is_some_and(|spec| spec.contains(':'));
    let identity = match (user, &sudo.uid) {
        (Some(spec), _) => parse(spec)?,
        (None, None) => return Ok(None),
        (None, Some(uid)) => {
            let uid = uid.parse().map(Uid::from_raw);
            let uid = uid.with_context(|| format!("SUDO_UID is no user id: {:?}", sudo.uid))?;
            let gid = sudo.gid.as_deref().map(str::parse).transpose();
            let gid = gid.with_context(|| format!("SUDO_GID is no group id: {:?}", sudo.gid))?;
            match (found(User::from_uid(uid))?, gid) {
                (Some(user), _) => of_user(&user)?,
                (None, Some(gid)) => bare(uid, Gid::from_raw(gid)),
                (None, None) => bail!("the user with id {uid}, who called sudo, is unknown"),
            }
        }
    };
    // setresuid(2) and setresgid(2) take it for "as it is", which is root.
    let is_none = |id: u32| id == u32::MAX;
    ensure!(
        !is_none(identity.uid.as_raw()) && !is_none(identity.gid.as_raw()),
        "{} is no id of a user or a group",
        u32::MAX
    );
    Ok((has_group || !identity.uid.is_root()).then_some(identity))
}

/// `NAME`, `UID`, `NAME:GROUP` or `UID:GID`. A group that is given is the only one, as for podman.
fn parse(spec: &str) -> Result<Identity> {
    let (user, group) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (spec, None),
    };
    let gid = group.map(group_id).transpose()?;
    let known = match user.parse() {
        Ok(uid) => found(User::from_uid(Uid::from_raw(uid)))?,
        Err(_) => found(User::from_name(user))?,
    };
    match (known, user.parse().map(Uid::from_raw), gid) {
        (Some(user), _, None) => of_user(&user),
        (Some(user), _, Some(gid)) => {
            let environment = environment(&user.name, &user.dir, &user.shell, user.uid);
            Ok(Identity {
                uid: user.uid,
                gid,
                groups: vec![gid],
                environment,
            })
        }
        (None, Ok(uid), Some(gid)) => Ok(bare(uid, gid)),
        (None, Ok(uid), None) => {
            bail!("user id {uid} is unknown, so its group is too: give --user {uid}:GID")
        }
        (None, Err(_), _) => bail!("there is no user {user:?}"),
    }
}

fn group_id(group: &str) -> Result<Gid> {
    if let Ok(gid) = group.parse() {
        return Ok(Gid::from_raw(gid));
    }
    match found(Group::from_name(group))? {
        Some(group) => Ok(group.gid),
        None => bail!("there is no group {group:?}"),
    }
}

/// A system without a database of users, as a minimal container is, knows nobody: the errors that
/// getpwnam(3) lists for "not found" are no errors.
fn found<T>(entry: nix::Result<Option<T>>) -> Result<Option<T>> {
    match entry {
        Err(Errno::ENOENT | Errno::ESRCH | Errno::EBADF | Errno::EPERM) => Ok(None),
        other => other.context("cannot look up users and groups"),
    }
}

/// A known user, with all the groups that make /dev/kvm and the like accessible.
fn of_user(user: &User) -> Result<Identity> {
    let name = CString::new(user.name.clone()).context("a user name with a NUL")?;
    let groups = getgrouplist(&name, user.gid)
        .with_context(|| format!("cannot list the groups of {}", user.name))?;
    let environment = environment(&user.name, &user.dir, &user.shell, user.uid);
    Ok(Identity {
        uid: user.uid,
        gid: user.gid,
        groups,
        environment,
    })
}

/// A user that no database knows: ids alone.
fn bare(uid: Uid, gid: Gid) -> Identity {
    let environment = environment(&uid.to_string(), Path::new("/"), Path::new("/bin/sh"), uid);
    Identity {
        uid,
        gid,
        groups: vec![gid],
        environment,
    }
}

fn environment(
    name: &str,
    home: &Path,
    shell: &Path,
    uid: Uid,
) -> Vec<(&'static str, Option<OsString>)> {
    // root's runtime directory would be the wrong one, and one that is not there is no good.
    let runtime = PathBuf::from(format!("{RUNTIME_DIRS}/{uid}"));
    let usable = runtime
        .metadata()
        .is_ok_and(|metadata| metadata.uid() == uid.as_raw());
    vec![
        ("HOME", Some(home.into())),
        ("USER", Some(name.into())),
        ("LOGNAME", Some(name.into())),
        ("SHELL", Some(shell.into())),
        ("XDG_RUNTIME_DIR", usable.then(|| runtime.into())),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sudo(uid: &str, gid: &str) -> Sudo {
        Sudo {
            uid: Some(uid.into()),
            gid: Some(gid.into()),
        }
    }

    #[test]
    fn without_sudo_and_option_root_stays_root() {
        assert_eq!(resolve(None, &Sudo::default()).unwrap(), None);
        assert_eq!(
            resolve(Some("root"), &sudo("65534", "65534")).unwrap(),
            None
        );
        assert_eq!(resolve(None, &sudo("0", "0")).unwrap(), None);
    }

    #[test]
    fn root_with_a_group_is_of_that_group() {
        for spec in ["root:777", "0:777"] {
            let root = resolve(Some(spec), &Sudo::default()).unwrap().unwrap();
            assert_eq!((root.uid.as_raw(), root.gid.as_raw()), (0, 777), "{spec}");
            assert_eq!(root.groups, [root.gid]);
        }
        assert!(resolve(Some("root:no-such-group"), &Sudo::default()).is_err());
    }

    #[test]
    fn what_the_kernel_takes_for_no_change_is_nobodys_id() {
        for spec in ["4294967295:1", "1:4294967295", "nobody:4294967295"] {
            let error = resolve(Some(spec), &Sudo::default()).unwrap_err();
            assert!(error.to_string().contains("no id of a user"), "{error:#}");
        }
        assert!(resolve(None, &sudo("4294967295", "1")).is_err());
    }

    #[test]
    fn whoever_called_sudo_gets_their_own_back() {
        let nobody = resolve(None, &sudo("65534", "65534")).unwrap().unwrap();
        assert_eq!(nobody.uid.as_raw(), 65534);
        assert!(nobody.groups.contains(&nobody.gid));
        let value = |name| {
            nobody
                .environment
                .iter()
                .find(|(n, _)| *n == name)
                .and_then(|(_, value)| value.clone())
        };
        assert_eq!(value("USER"), Some("nobody".into()));
        assert_eq!(value("LOGNAME"), Some("nobody".into()));
        assert_eq!(value("HOME"), Some("/nonexistent".into()));
    }

    #[test]
    fn ids_that_nobody_has_work_with_a_group() {
        let odd = resolve(Some("4242424:777"), &Sudo::default())
            .unwrap()
            .unwrap();
        assert_eq!((odd.uid.as_raw(), odd.gid.as_raw()), (4_242_424, 777));
        assert_eq!(odd.groups, [odd.gid]);
    }

    #[test]
    fn what_is_unknown_is_an_error_that_says_so() {
        let message = |spec| {
            resolve(Some(spec), &Sudo::default())
                .unwrap_err()
                .to_string()
        };
        assert_eq!(message("no-such-user"), "there is no user \"no-such-user\"");
        assert_eq!(
            message("nobody:no-such-group"),
            "there is no group \"no-such-group\""
        );
        assert!(message("4242424").contains("give --user 4242424:GID"));
        assert_eq!(message(""), "there is no user \"\"");
        assert!(resolve(None, &sudo("x", "0")).is_err());
    }
}
