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
mod tests {
    use super::*;

    fn sudo(uid: &str, gid: &str) -> Callers {
        Callers {
            uid: Some(uid.into()),
            gid: Some(gid.into()),
            ..Callers::default()
        }
    }

    #[test]
    fn whoever_called_doas_or_pkexec_is_a_caller_and_two_are_an_error() {
        let doas = |name: &str| Callers {
            doas: Some(name.into()),
            ..Callers::default()
        };
        let pkexec = |uid: &str| Callers {
            pkexec: Some(uid.into()),
            ..Callers::default()
        };
        for callers in [
            doas("nobody"),
            pkexec("65534"),
            // The caller of sudo was root, who had been called by another.
            Callers {
                doas: Some("nobody".into()),
                ..sudo("0", "0")
            },
        ] {
            let nobody = resolve(None, &callers).unwrap().unwrap();
            assert_eq!(nobody.uid.as_raw(), 65534, "{callers:?}");
            assert_eq!(callers.user(), Some(nobody.uid));
        }
        for root in [doas("root"), pkexec("0")] {
            assert_eq!(resolve(None, &root).unwrap(), None);
        }
        let two = Callers {
            pkexec: Some("7".into()),
            ..doas("nobody")
        };
        assert!(matches!(
            resolve(None, &two),
            Err(IdentityError::TwoCallers(..))
        ));
        assert_eq!(two.user(), None);
        assert!(resolve(Some("nobody"), &two).is_ok());
        let unknown = IdentityError::NoUser("no-such-user".into());
        assert_eq!(resolve(None, &doas("no-such-user")), Err(unknown));
        let odd = IdentityError::PkexecUid("x".into());
        assert_eq!(resolve(None, &pkexec("x")), Err(odd));
    }

    #[test]
    fn without_sudo_and_option_root_stays_root() {
        assert_eq!(resolve(None, &Callers::default()).unwrap(), None);
        assert_eq!(
            resolve(Some("root"), &sudo("65534", "65534")).unwrap(),
            None
        );
        assert_eq!(resolve(None, &sudo("0", "0")).unwrap(), None);
    }

    #[test]
    fn root_with_a_group_is_of_that_group() {
        for spec in ["root:777", "0:777"] {
            let root = resolve(Some(spec), &Callers::default()).unwrap().unwrap();
            assert_eq!((root.uid.as_raw(), root.gid.as_raw()), (0, 777), "{spec}");
            assert_eq!(root.groups, [root.gid]);
        }
        assert!(resolve(Some("root:no-such-group"), &Callers::default()).is_err());
    }

    #[test]
    fn what_the_kernel_takes_for_no_change_is_nobodys_id() {
        for spec in ["4294967295:1", "1:4294967295", "nobody:4294967295"] {
            let resolved = resolve(Some(spec), &Callers::default());
            assert_eq!(resolved, Err(IdentityError::NoId));
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
        let odd = resolve(Some("4242424:777"), &Callers::default())
            .unwrap()
            .unwrap();
        assert_eq!((odd.uid.as_raw(), odd.gid.as_raw()), (4_242_424, 777));
        assert_eq!(odd.groups, [odd.gid]);
    }

    #[test]
    fn what_is_unknown_is_an_error_that_says_so() {
        let error = |spec| resolve(Some(spec), &Callers::default()).unwrap_err();
        for user in ["no-such-user", ""] {
            assert_eq!(error(user), IdentityError::NoUser(user.to_owned()));
        }
        let no_group = IdentityError::NoGroup("no-such-group".to_owned());
        assert_eq!(error("nobody:no-such-group"), no_group);
        let unknown = error("4242424");
        assert_eq!(unknown, IdentityError::UnknownId(Uid::from_raw(4_242_424)));
        assert!(unknown.to_string().ends_with("give --user 4242424:GID"));
        let odd = resolve(None, &sudo("x", "0"));
        assert_eq!(odd, Err(IdentityError::SudoUid("x".to_owned())));
    }
}
