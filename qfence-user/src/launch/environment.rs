//! The environment variables of the command. Pure.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt as _,
};

use super::{activation::Activation, notify};

/// The variables that every command keeps: who and where it is, its language and its terminal.
const USUAL: [&str; 15] = [
    "COLORTERM",
    "COLUMNS",
    "HOME",
    "LANG",
    "LANGUAGE",
    "LINES",
    "LOGNAME",
    "NO_COLOR",
    "PATH",
    "PWD",
    "SHELL",
    "TERM",
    "TMPDIR",
    "TZ",
    "USER",
];

/// The prefix of the variables for parts of a language.
const LOCALE: &[u8] = b"LC_";

/// A change of the caller's environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// The only other variables that are kept; `None` to keep all.
    kept: Option<BTreeSet<String>>,
    /// The variables of the user; `None` unsets one.
    of_user: Vec<(&'static str, Option<OsString>)>,
    /// The directory for temporary files, if it is the command's own.
    temporary: Option<OsString>,
    /// The variables that name this process.
    activation: Activation,
    /// The socket for notifications to systemd, if it is the command's own.
    notify: Option<OsString>,
}

impl Environment {
    /// The caller's environment with a user's variables.
    #[must_use]
    pub fn of_user(variables: Vec<(&'static str, Option<OsString>)>) -> Self {
        Self {
            of_user: variables,
            ..Self::default()
        }
    }

    /// Keeps only the usual variables, and these.
    pub fn keep_only(&mut self, names: impl IntoIterator<Item = String>) {
        self.kept = Some(names.into_iter().collect());
    }

    /// Sets the directory for temporary files.
    pub fn set_temporary(&mut self, directory: &OsStr) {
        self.temporary = Some(directory.to_owned());
    }

    /// Sets the socket for notifications to systemd.
    pub fn set_notify(&mut self, socket: &OsStr) {
        self.notify = Some(socket.to_owned());
    }

    /// Sets what becomes of the variables that name this process.
    pub fn set_activation(&mut self, activation: Activation) {
        self.activation = activation;
    }

    /// Whether a variable is to have the id of the command's process.
    #[must_use]
    pub fn names_command(&self, name: &OsStr) -> bool {
        self.activation.of_command.iter().any(|own| name == *own)
    }

    /// Whether it is the caller's environment.
    #[must_use]
    pub fn is_unchanged(&self) -> bool {
        *self == Self::default()
    }

    /// The variables of the command, given those of the caller.
    pub fn apply(
        &self,
        caller: impl Iterator<Item = (OsString, OsString)>,
    ) -> Vec<(OsString, OsString)> {
        let is_set = |name: &OsStr| {
            self.of_user.iter().any(|(set, _)| name == *set)
                || (self.temporary.is_some() && name == "TMPDIR")
                || (self.notify.is_some() && name == notify::VARIABLE)
        };
        let user = self
            .of_user
            .iter()
            .filter_map(|(name, value)| Some((OsString::from(name), value.clone()?)));
        let temporary = self.temporary.clone();
        caller
            .filter(|(name, _)| !is_set(name))
            .chain(user)
            .filter(|(name, _)| self.keeps(name))
            .chain(temporary.map(|directory| ("TMPDIR".into(), directory)))
            .chain(
                self.notify
                    .clone()
                    .map(|socket| (notify::VARIABLE.into(), socket)),
            )
            .collect()
    }

    fn keeps(&self, name: &OsStr) -> bool {
        let is_in = |names: &BTreeSet<&str>| names.iter().any(|own| name == *own);
        if is_in(&self.activation.removed) {
            return false;
        }
        let Some(kept) = &self.kept else {
            return true;
        };
        if is_in(&self.activation.kept) {
            return true;
        }
        let is_usual = USUAL.iter().any(|usual| name == *usual);
        let is_named = name.to_str().is_some_and(|name| kept.contains(name));
        is_usual || is_named || name.as_bytes().starts_with(LOCALE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(environment: &Environment, caller: &[(&str, &str)]) -> Vec<String> {
        let own = |(name, value): &(&str, &str)| ((*name).into(), (*value).into());
        let made = environment.apply(caller.iter().map(own));
        let word =
            |(name, value): (OsString, OsString)| format!("{}={}", name.display(), value.display());
        made.into_iter().map(word).collect()
    }

    const CALLER: [(&str, &str); 4] = [
        ("PATH", "/bin"),
        ("TOKEN", "x"),
        ("LC_ALL", "C"),
        ("HOME", "/root"),
    ];

    #[test]
    fn a_user_has_variables_of_its_own() {
        assert!(Environment::default().is_unchanged());
        let user = Environment::of_user(vec![("HOME", Some("/home/a".into())), ("TOKEN", None)]);
        assert!(!user.is_unchanged());
        assert_eq!(
            names(&user, &CALLER),
            ["PATH=/bin", "LC_ALL=C", "HOME=/home/a"]
        );
    }

    #[test]
    fn only_the_usual_and_named_ones_are_kept() {
        let mut environment =
            Environment::of_user(vec![("XDG_RUNTIME_DIR", Some("/run/user/1".into()))]);
        environment.keep_only([]);
        assert_eq!(
            names(&environment, &CALLER),
            ["PATH=/bin", "LC_ALL=C", "HOME=/root"]
        );
        environment.keep_only(["TOKEN".into(), "XDG_RUNTIME_DIR".into()]);
        assert!(names(&environment, &CALLER).contains(&"TOKEN=x".into()));
        assert!(names(&environment, &CALLER).contains(&"XDG_RUNTIME_DIR=/run/user/1".into()));
    }

    #[test]
    fn the_directory_for_temporary_files_is_the_given_one() {
        let mut environment = Environment::default();
        environment.set_temporary(OsStr::new("/var/tmp/x"));
        assert_eq!(
            names(&environment, &[("TMPDIR", "/y")]),
            ["TMPDIR=/var/tmp/x"]
        );
    }
}
