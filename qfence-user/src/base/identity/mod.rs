//! The user a command runs as.

use std::{
    ffi::{CString, OsString},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    unistd::{Gid, Group, Uid, User, getgrouplist},
};

/// Where user managers put the runtime directories (pam_systemd(8)).
const RUNTIME_DIRS: &str = "/run/user";

/// A user: ids and environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user id.
    pub uid: Uid,
    /// The primary group id.
    pub gid: Gid,
    /// The supplementary groups.
    pub groups: Vec<Gid>,
    /// The variables that depend on the user: name and value; `None` to unset.
    pub environment: Vec<(&'static str, Option<OsString>)>,
}

/// The variables in which sudo, doas and pkexec name their caller. run0 has those of sudo.
#[derive(Clone, Debug, Default)]
pub struct Callers {
    /// `SUDO_UID`.
    pub uid: Option<String>,
    /// `SUDO_GID`.
    pub gid: Option<String>,
    /// `DOAS_USER`, a name.
    pub doas: Option<String>,
    /// `PKEXEC_UID`.
    pub pkexec: Option<String>,
}

/// A caller: id, and the group if it was named.
type Caller = (Uid, Option<Gid>);

impl Callers {
    /// The variables that name a caller.
    pub const VARIABLES: [&str; 6] = [
        "SUDO_UID",
        "SUDO_GID",
        "SUDO_USER",
        "SUDO_COMMAND",
        "DOAS_USER",
        "PKEXEC_UID",
    ];

    /// Reads them from the environment.
    #[must_use]
    pub fn from_env() -> Self {
        let variable = |name| std::env::var(name).ok();
        Self {
            uid: variable("SUDO_UID"),
            gid: variable("SUDO_GID"),
            doas: variable("DOAS_USER"),
            pkexec: variable("PKEXEC_UID"),
        }
    }

    /// The caller, if there is one and it is not ambiguous.
    #[must_use]
    pub fn user(&self) -> Option<Uid> {
        self.caller().ok().flatten().map(|(uid, _)| uid)
    }

    /// The caller. One of these programs can call another, and leave its variables: root's calls do not count beside those
    /// of another user.
    fn caller(&self) -> Result<Option<Caller>, IdentityError> {
        let mut named: Vec<Caller> = Vec::new();
        if let Some(uid) = &self.uid {
            let gid = |gid: &String| gid.parse().map_err(|_| IdentityError::SudoGid(gid.clone()));
            let gid = self.gid.as_ref().map(gid).transpose()?;
            let uid = uid
                .parse()
                .map_err(|_| IdentityError::SudoUid(uid.clone()))?;
            named.push((Uid::from_raw(uid), gid.map(Gid::from_raw)));
        }
        if let Some(name) = &self.doas {
            let user = found(User::from_name(name))?;
            let user = user.ok_or_else(|| IdentityError::NoUser(name.clone()))?;
            named.push((user.uid, Some(user.gid)));
        }
        if let Some(uid) = &self.pkexec {
            let uid = uid
                .parse()
                .map_err(|_| IdentityError::PkexecUid(uid.clone()))?;
            named.push((Uid::from_raw(uid), None));
        }
        let mut users = named.iter().filter(|(uid, _)| !uid.is_root());
        let Some(first) = users.next() else {
            return Ok(named.first().copied());
        };
        match users.find(|other| other.0 != first.0) {
            None => Ok(Some(*first)),
            Some(other) => Err(IdentityError::TwoCallers(first.0, other.0)),
        }
    }
}

/// Why there is no such identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// `SUDO_UID` is no number.
    #[error("SUDO_UID is no user id: {0:?}")]
    SudoUid(String),
    /// `SUDO_GID` is no number.
    #[error("SUDO_GID is no group id: {0:?}")]
    SudoGid(String),
    /// `PKEXEC_UID` is no number.
    #[error("PKEXEC_UID is no user id: {0:?}")]
    PkexecUid(String),
    /// The variables of sudo, doas and pkexec name different users.
    #[error("sudo, doas and pkexec name two callers, the users with ids {0} and {1}: give --user")]
    TwoCallers(Uid, Uid),
    /// The user who called sudo is in no database, and `SUDO_GID` is not set.
    #[error("the user with id {0}, who called sudo, is unknown")]
    UnknownCaller(Uid),
    /// The number means "unchanged" to the kernel.
    #[error("{} is no id of a user or a group", u32::MAX)]
    NoId,
    /// No user has the id, so the group is not known either.
    #[error("user id {0} is unknown, so its group is too: give --user {0}:GID")]
    UnknownId(Uid),
    /// No user has the name.
    #[error("there is no user {0:?}")]
    NoUser(String),
    /// No group has the name.
    #[error("there is no group {0:?}")]
    NoGroup(String),
    /// A name in the database has a NUL.
    #[error("the name of the user with id {0} has a NUL")]
    Nul(Uid),
    /// The database cannot be read.
    #[error("cannot look up users and groups")]
    LookUp(#[source] Errno),
    /// The groups of a user cannot be read.
    #[error("cannot list the groups of {user}")]
    Groups {
        /// The user's name.
        user: String,
        /// Why.
        source: Errno,
    },
}

/// The identity for the command. `None` if it stays root, with root's groups and environment.
///
/// `user` is the value of `--user`. Without it the user who called sudo, doas or pkexec is taken.
///
/// # Errors
/// If there is no such user or group.
pub fn resolve(user: Option<&str>, callers: &Callers) -> Result<Option<Identity>, IdentityError> {
    let has_group = user.is_some_and(|spec| spec.contains(':'));
    let identity = match user {
        Some(spec) => parse(spec)?,
        None => {
            let Some((uid, gid)) = callers.caller()? else {
                return Ok(None);
            };
            match (found(User::from_uid(uid))?, gid) {
                (Some(user), _) => of_user(&user)?,
                (None, Some(gid)) => bare(uid, gid),
                (None, None) => return Err(IdentityError::UnknownCaller(uid)),
            }
        }
    };
    // For setresuid(2) and setresgid(2) this number means "unchanged", which would be root.
    let is_none = |id: u32| id == u32::MAX;
    if is_none(identity.uid.as_raw()) || is_none(identity.gid.as_raw()) {
        return Err(IdentityError::NoId);
    }
    Ok((has_group || !identity.uid.is_root()).then_some(identity))
}

/// Parses `NAME`, `UID`, `NAME:GROUP` or `UID:GID`. A given group is the only one, as in podman.
fn parse(spec: &str) -> Result<Identity, IdentityError> {
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
        (None, Ok(uid), None) => Err(IdentityError::UnknownId(uid)),
        (None, Err(_), _) => Err(IdentityError::NoUser(user.to_owned())),
    }
}

fn group_id(group: &str) -> Result<Gid, IdentityError> {
    if let Ok(gid) = group.parse() {
        return Ok(Gid::from_raw(gid));
    }
    match found(Group::from_name(group))? {
        Some(group) => Ok(group.gid),
        None => Err(IdentityError::NoGroup(group.to_owned())),
    }
}

/// A system without a user database, such as a minimal container, knows no names. The errors that getpwnam(3) lists
/// for "not found" count as "not found".
fn found<T>(entry: nix::Result<Option<T>>) -> Result<Option<T>, IdentityError> {
    match entry {
        Err(Errno::ENOENT | Errno::ESRCH | Errno::EBADF | Errno::EPERM) => Ok(None),
        other => other.map_err(IdentityError::LookUp),
    }
}

/// A user from the database, with all groups: these give access to /dev/kvm and the like.
fn of_user(user: &User) -> Result<Identity, IdentityError> {
    let name = CString::new(user.name.clone()).map_err(|_| IdentityError::Nul(user.uid))?;
    let groups = getgrouplist(&name, user.gid).map_err(|source| IdentityError::Groups {
        user: user.name.clone(),
        source,
    })?;
    let environment = environment(&user.name, &user.dir, &user.shell, user.uid);
    Ok(Identity {
        uid: user.uid,
        gid: user.gid,
        groups,
        environment,
    })
}

/// A user that is in no database: only ids.
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
    // Root's runtime directory would be wrong, and a missing one is of no use.
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
mod tests;
