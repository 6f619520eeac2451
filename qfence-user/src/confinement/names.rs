//! The rules for names of Unix sockets, by which the programs at `connect_unix` and `sendmsg_unix` judge.
//!
//! The programs see the name that a process gives, not the socket that it leads to. So in a fence without the closure of
//! sockets the names of managers are refused for the record, and their masks are the barrier. With the closure only
//! names are allowed that the command cannot redirect.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use qfence_common::unix::{ALLOW, AT_HOME, NO_PARENTS, NameRule};

use super::{UnixName, managers};

/// The begin of the abstract names of X11's displays.
const X11: &[u8] = b"\0/tmp/.X11-unix/";

/// A link of the system to /run, as an older name of the directory.
const VAR_RUN: &str = "/var/run";

/// The socket of a manager, or a directory of such sockets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ManagerPath {
    /// The [number](managers::number) of the manager.
    pub manager: u16,
    /// Its path.
    pub path: PathBuf,
}

/// How abstract names are closed with the closure of sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbstractNames {
    /// All but the allowed ones are refused by name, those of sockets made in the fence too.
    ByName,
    /// A Landlock domain of abstract scope refuses those of sockets made outside (Linux 6.12). The name of an X11 display
    /// is refused before it, because libxcb goes on to the display's path only after ECONNREFUSED, and not after
    /// Landlock's EPERM.
    Scoped,
}

/// The rules for names: by the bytes that a name begins with, the rule for the longest such begin. A path of which these
/// bytes are all of it ends with a zero byte here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameRules(BTreeMap<Vec<u8>, NameRule>);

impl NameRules {
    /// The rules without the closure of sockets: all names are allowed except those of managers. `buses` are the abstract
    /// names of buses that exist now, without the zero byte.
    #[must_use]
    pub fn of_managers(
        paths: &[ManagerPath],
        buses: &BTreeSet<Vec<u8>>,
        allowed: &BTreeSet<UnixName>,
    ) -> Self {
        let mut rules = Self::default();
        rules.add(Vec::new(), ALLOW, 0);
        rules.refuse_managers(paths, buses, AT_HOME);
        rules.allow(allowed);
        rules
    }

    /// The rules of the closure of sockets: all names are refused except `allowed` ones, and paths below the directories
    /// `own`. In these the command can make sockets, and no symbolic links, which would lead anywhere. A relative path
    /// is refused: the programs do not see the directory in which it is resolved.
    #[must_use]
    pub fn closed(
        paths: &[ManagerPath],
        allowed: &BTreeSet<UnixName>,
        own: &BTreeSet<PathBuf>,
        abstract_names: AbstractNames,
    ) -> Self {
        let mut rules = Self::default();
        rules.add(Vec::new(), 0, 0);
        if abstract_names == AbstractNames::Scoped {
            rules.add(vec![0], ALLOW, 0);
            rules.add(X11.to_vec(), 0, 0);
        }
        for directory in own {
            rules.add(below(directory), ALLOW | NO_PARENTS, 0);
        }
        // Last, since managers are refused in such a directory too, and allowed names everywhere.
        rules.refuse_managers(paths, &BTreeSet::new(), 0);
        rules.allow(allowed);
        rules
    }

    /// The rules, by the begin of the names to which they apply.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], NameRule)> {
        self.0.iter().map(|(begin, rule)| (begin.as_slice(), *rule))
    }

    fn refuse_managers(&mut self, paths: &[ManagerPath], buses: &BTreeSet<Vec<u8>>, flags: u32) {
        for ManagerPath { manager, path } in paths {
            for path in spellings(path) {
                self.add(whole(path.as_os_str()), flags, *manager);
                self.add(below(&path), flags, *manager);
            }
        }
        for (manager, begin) in managers::ABSTRACT {
            let number = managers::number(manager).unwrap_or_default();
            self.add([&[0], begin].concat(), flags, number);
        }
        let bus = managers::number("D-Bus").unwrap_or_default();
        for name in buses {
            self.add([&[0], name.as_slice(), &[0]].concat(), flags, bus);
        }
    }

    fn allow(&mut self, names: &BTreeSet<UnixName>) {
        for name in names {
            match name {
                UnixName::Path(path) => {
                    for path in spellings(path) {
                        self.add(whole(path.as_os_str()), ALLOW, 0);
                    }
                }
                UnixName::Abstract(bytes) => {
                    let key = [&[0], bytes.as_slice(), &[0]].concat();
                    self.add(key, ALLOW, 0);
                    if let Some(rule) = self.0.get_mut(&[&[0], bytes.as_slice(), &[0]].concat()) {
                        // Shorter than 108 bytes.
                        rule.length = u16::try_from(bytes.len() + 1).unwrap_or_default();
                    }
                }
            }
        }
    }

    fn add(&mut self, begin: Vec<u8>, flags: u32, manager: u16) {
        let rule = NameRule {
            flags,
            manager,
            length: 0,
        };
        self.0.insert(begin, rule);
    }
}

/// The key of a whole path.
fn whole(path: &OsStr) -> Vec<u8> {
    [path.as_bytes(), &[0]].concat()
}

/// The key of all paths below a directory.
fn below(directory: &Path) -> Vec<u8> {
    let bytes = directory.as_os_str().as_bytes();
    match bytes.last() {
        Some(b'/') => bytes.to_vec(),
        _ => [bytes, b"/"].concat(),
    }
}

/// A path in /run is also known by its older name.
fn spellings(path: &Path) -> impl Iterator<Item = PathBuf> {
    let other = match (path.strip_prefix("/run"), path.strip_prefix(VAR_RUN)) {
        (Ok(rest), _) => Some(Path::new(VAR_RUN).join(rest)),
        (_, Ok(rest)) => Some(Path::new("/run").join(rest)),
        _ => None,
    };
    [path.to_owned()].into_iter().chain(other)
}

#[cfg(test)]
mod tests {
    use qfence_common::unix::{ROOM, WORDS, has_parents};

    use super::*;

    /// The verdict as the programs reach it.
    fn judge(rules: &NameRules, name: &[u8], is_at_home: bool) -> (bool, u16) {
        let mut bytes = [0; ROOM];
        bytes[..name.len()].copy_from_slice(name);
        let begins = |begin: &[u8]| bytes.starts_with(begin);
        let (_, rule) = rules
            .iter()
            .filter(|(begin, _)| begins(begin))
            .max_by_key(|(begin, _)| begin.len())
            .unwrap();
        let length = u32::try_from(name.len()).unwrap();
        let mut words = [0; WORDS];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_ne_bytes(bytes.try_into().unwrap());
        }
        let parents = || has_parents(&words);
        (rule.allows(length, || is_at_home, parents), rule.manager)
    }

    fn bus() -> Vec<ManagerPath> {
        let of = |manager, path: &str| ManagerPath {
            manager: managers::number(manager).unwrap(),
            path: path.into(),
        };
        vec![
            of("D-Bus", "/run/dbus"),
            of("D-Bus", "/run/user/1000/bus"),
            of("Docker", "/run/docker.sock"),
        ]
    }

    fn names(names: &[&str]) -> BTreeSet<UnixName> {
        let parse = |name: &&str| UnixName::parse(name.into()).unwrap();
        names.iter().map(parse).collect()
    }

    #[test]
    fn managers_are_refused_at_home_and_others_are_not() {
        let buses = BTreeSet::from([b"/tmp/dbus-x".to_vec()]);
        let allowed = names(&["/run/docker.sock", "@/containerd-shim/mine"]);
        let rules = NameRules::of_managers(&bus(), &buses, &allowed);
        let allows = |name: &[u8]| judge(&rules, name, true).0;
        for name in [
            "/run/dbus/system_bus_socket",
            "/var/run/dbus/system_bus_socket",
            "/run/user/1000/bus",
            "\0/tmp/dbus-x",
            "\0/containerd-shim/other",
        ] {
            assert!(!allows(name.as_bytes()), "{name}");
            assert!(judge(&rules, name.as_bytes(), false).0, "{name}");
            assert_ne!(judge(&rules, name.as_bytes(), true).1, 0, "{name}");
        }
        for name in [
            "/run/docker.sock",
            "/var/run/docker.sock",
            "/run/user/1000/bus2",
            "/run/user/1000/wayland-0",
            "bus",
            "\0/tmp/dbus-y",
            "\0/containerd-shim/mine",
        ] {
            assert!(allows(name.as_bytes()), "{name}");
        }
        // Another name to the kernel.
        assert!(!allows(b"\0/containerd-shim/mine\0"));
    }

    #[test]
    fn the_closure_allows_names_and_own_directories() {
        let own = BTreeSet::from([PathBuf::from("/tmp/own")]);
        let allowed = names(&["/run/user/1000/wayland-0", "@mine"]);
        let rules = |names| NameRules::closed(&bus(), &allowed, &own, names);
        let by_name = rules(AbstractNames::ByName);
        for (name, allowed) in [
            ("/run/user/1000/wayland-0", true),
            ("/run/user/1000/wayland-1", false),
            ("/run/user/1000/bus", false),
            ("wayland-0", false),
            ("/tmp/own/x", true),
            ("/tmp/own/a/b", true),
            ("/tmp/own/../x", false),
            ("/tmp/ownx", false),
            ("\0mine", true),
            ("\0mine\0", false),
            ("\0min", false),
            ("\0other", false),
        ] {
            assert_eq!(judge(&by_name, name.as_bytes(), false).0, allowed, "{name}");
        }
        let scoped = rules(AbstractNames::Scoped);
        assert!(judge(&scoped, b"\0other", true).0);
        assert!(!judge(&scoped, b"\0/tmp/.X11-unix/X0", true).0);
        assert!(!judge(&scoped, b"/run/docker.sock", true).0);
    }
}
