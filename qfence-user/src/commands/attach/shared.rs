//! Cgroups that must not or should not be fenced, because others depend on them.

use std::{
    ffi::OsStr,
    path::{Component, Path},
};

use crate::fence::hierarchy::PARENT;

/// What is known of a cgroup that is to be fenced.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts<'a> {
    /// Its path below the mount of cgroup2.
    pub(super) path: &'a Path,
    /// The cgroup of this process, if it is visible.
    pub(super) own: Option<&'a Path>,
    /// Whether the user has named the cgroup itself.
    pub(super) is_named: bool,
    /// Processes in it that do not belong to the target.
    pub(super) strangers: &'a [i32],
}

/// Why a cgroup is not fenced.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// It never is.
    #[error("the cgroup {path:?} cannot be fenced: {why}")]
    Never { path: String, why: String },
    /// Only if the user insists.
    #[error("the cgroup {path:?} is shared: {why}; --whole-cgroup fences all of it")]
    Shared { path: String, why: String },
}

/// Units of which other units and guests depend, and in whose cgroups processes of theirs are.
const ENGINES: [&str; 9] = [
    "docker.service",
    "containerd.service",
    "crio.service",
    "podman.service",
    "kubelet.service",
    "libvirtd.service",
    "virtqemud.service",
    "lxc.service",
    "lxd.service",
];

/// The most processes that are named.
const NAMED: usize = 8;

/// Why a cgroup is not fenced, if there is a reason.
pub(super) fn refusal(facts: &Facts<'_>) -> Option<Refusal> {
    let path = facts.path.to_string_lossy().into_owned();
    if let Some(why) = never(facts) {
        return Some(Refusal::Never { path, why });
    }
    shared(facts).map(|why| Refusal::Shared { path, why })
}

fn never(facts: &Facts<'_>) -> Option<String> {
    let Some(first) = facts.path.components().next() else {
        return Some(
            "it is the root, which has every process of this host; put the target in a cgroup of its own (a systemd unit or \
             slice), or start it with `qfence-user exec`"
                .into(),
        );
    };
    if first == Component::Normal(OsStr::new(PARENT)) {
        return Some(
            "it belongs to a fence that `exec` made; change that with `qfence-user set`".into(),
        );
    }
    if first == Component::Normal(OsStr::new("init.scope")) {
        return Some("it is the service manager's; name the cgroup of the unit".into());
    }
    if facts.own.is_some_and(|own| own.starts_with(facts.path)) {
        return Some(
            "it contains this process, and so what administers this host; give the target a cgroup of its own, such as a \
             systemd unit or scope (`systemd-run --scope`), or run qfence from elsewhere"
                .into(),
        );
    }
    None
}

fn shared(facts: &Facts<'_>) -> Option<String> {
    let name = facts.path.file_name()?.to_str().unwrap_or_default();
    let between = |begin: &str, end: &str| name.starts_with(begin) && name.ends_with(end);
    if ENGINES.contains(&name) {
        return Some(format!(
            "{name} runs what other programs ask for; fence the cgroup of the container or guest"
        ));
    }
    if between("session-", ".scope") || between("user@", ".service") || between("user-", ".slice") {
        return Some(
            "it has all programs of a user's session; start the target as a unit of its own (`systemd-run`)"
                .into(),
        );
    }
    if matches!(
        name,
        "system.slice" | "user.slice" | "machine.slice" | "app.slice"
    ) {
        return Some(
            "all units of a kind are below it; give the targets a slice of their own (Slice=)"
                .into(),
        );
    }
    if name.ends_with(".slice") && !facts.is_named {
        return Some(
            "it is a slice, which is made for several units; name it with --cgroup".into(),
        );
    }
    let (named, more) = facts.strangers.split_at(NAMED.min(facts.strangers.len()));
    if named.is_empty() {
        return None;
    }
    let mut words: Vec<String> = named.iter().map(ToString::to_string).collect();
    if !more.is_empty() {
        words.push(format!("{} more", more.len()));
    }
    Some(format!(
        "it has processes that do not descend from the target: {}",
        words.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &str, own: &str, is_named: bool, strangers: &[i32]) -> Option<Refusal> {
        refusal(&Facts {
            path: Path::new(path),
            own: Some(Path::new(own)),
            is_named,
            strangers,
        })
    }

    #[test]
    fn what_the_host_depends_on_is_never_fenced() {
        for path in [
            "",
            "init.scope",
            "qfence",
            "qfence/vm1",
            "a.slice",
            "a.slice/b.scope",
        ] {
            let refusal = of(path, "a.slice/b.scope", true, &[]);
            assert!(
                matches!(refusal, Some(Refusal::Never { .. })),
                "{path}: {refusal:?}"
            );
        }
        assert_eq!(
            of("a.slice/other.scope", "a.slice/b.scope", true, &[]),
            None
        );
        // A cgroup below that of this process does not contain it.
        assert_eq!(
            of("a.slice/b.scope/below", "a.slice/b.scope", true, &[]),
            None
        );
        assert_eq!(of("a", "ab", true, &[]), None);
    }

    #[test]
    fn what_many_share_needs_the_user_to_insist() {
        for (path, is_named) in [
            ("system.slice", true),
            ("system.slice/docker.service", true),
            ("user.slice/user-1000.slice", true),
            ("user.slice/user-1000.slice/session-3.scope", true),
            ("user.slice/user-1000.slice/user@1000.service", false),
            ("vms.slice", false),
        ] {
            let refusal = of(path, "system.slice/sshd.service", is_named, &[]);
            let refusal = match path {
                // It contains this process.
                "system.slice" => of(path, "user.slice/x.scope", is_named, &[]),
                _ => refusal,
            };
            assert!(
                matches!(refusal, Some(Refusal::Shared { .. })),
                "{path}: {refusal:?}"
            );
        }
        for path in ["vms.slice", "system.slice/nginx.service", "docker/0123"] {
            assert_eq!(of(path, "x", true, &[]), None, "{path}");
        }
    }

    #[test]
    fn processes_of_others_are_named() {
        let all: Vec<i32> = (1..=20).collect();
        let Some(Refusal::Shared { why, .. }) = of("x.scope", "y", false, &all) else {
            panic!("not refused");
        };
        assert!(why.ends_with("7, 8, 12 more"), "{why}");
    }
}
