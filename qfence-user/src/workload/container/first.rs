//! The first process of a container, and the cgroup that it shows.

use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use nix::unistd::Pid;

use super::super::{NotRunning, living::Living};
use crate::base::{paths::Paths, process::helper::Apart};

/// The length of an id that the engines make.
const ID: usize = 64;

/// The first process of a container, as its engine or runtime wrote it down. It may have ended since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct First {
    pub(super) pid: i32,
    /// When it was started, in ticks since boot, as in /proc/PID/stat.
    pub(super) started: Option<u64>,
    /// The cgroup that the runtime made for it: below a mount of cgroup2, or in one.
    pub(super) cgroup: Option<PathBuf>,
}

impl First {
    pub(super) fn pid(&self) -> Pid {
        Pid::from_raw(self.pid)
    }

    /// The cgroup of the container, relative to the mount of cgroup2. It is not the cgroup of the process if the
    /// container has cgroups of its own: a systemd in it moves itself to init.scope.
    ///
    /// # Errors
    /// If the process has ended, if its number is that of another process now, or if its cgroup is not visible here.
    pub(super) fn cgroup(
        &self,
        id: &str,
        paths: &Paths,
        hierarchy: &Path,
        apart: &mut Apart,
    ) -> Result<PathBuf> {
        let living = Living::open(self.pid());
        let living = living.with_context(|| {
            NotRunning("it does not run any more: start it, and then attach".into())
        })?;
        let cgroup = super::super::process::cgroup_of(self.pid(), &paths.proc, hierarchy)?;
        if let Some(started) = self.started {
            let now = living.started(apart)?;
            ensure!(
                now == started,
                "the first process, {}, has ended, and another process has its number now: start the container again",
                self.pid
            );
        }
        living.ensure_lives()?;
        self.of_container(&cgroup, id).with_context(|| {
            format!(
                "the process {} is in the cgroup {}, whose name does not show that it is the container's",
                self.pid,
                cgroup.display()
            )
        })
    }

    /// The cgroup of the container among those that have its process; `None` if that cannot be told.
    fn of_container(&self, cgroup: &Path, id: &str) -> Option<PathBuf> {
        if id.len() == ID
            && let Some(own) = up_to(cgroup, id)
        {
            return Some(own);
        }
        // Without the start time only the id would show that the process is the container's.
        self.started?;
        let made = self.cgroup.as_deref()?;
        // The runtime may see cgroup2 mounted elsewhere, so the path is compared from its end.
        let made: PathBuf = made.strip_prefix("/").unwrap_or(made).into();
        let own = cgroup
            .ancestors()
            .find(|own| !own.as_os_str().is_empty() && made.ends_with(own))?;
        Some(own.to_owned())
    }
}

/// The beginning of a path, up to the first name that contains `part`.
fn up_to(path: &Path, part: &str) -> Option<PathBuf> {
    let mut own = PathBuf::new();
    for component in path.components() {
        own.push(component);
        if let Component::Normal(name) = component
            && name.to_str().is_some_and(|name| name.contains(part))
        {
            return Some(own);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(started: Option<u64>, cgroup: Option<&str>) -> First {
        First {
            pid: 1,
            started,
            cgroup: cgroup.map(Into::into),
        }
    }

    fn of(first: &First, cgroup: &str, id: &str) -> Option<String> {
        let own = first.of_container(Path::new(cgroup), id)?;
        Some(own.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_name_with_the_id_ends_the_path_whatever_the_engine_adds() {
        let id = "ab".repeat(32);
        let any = first(None, None);
        for (cgroup, own) in [
            (format!("docker/{id}"), format!("docker/{id}")),
            (
                format!("machine.slice/libpod-{id}.scope/container"),
                format!("machine.slice/libpod-{id}.scope"),
            ),
            (
                format!("system.slice/docker-{id}.scope/init.scope"),
                format!("system.slice/docker-{id}.scope"),
            ),
        ] {
            assert_eq!(of(&any, &cgroup, &id), Some(own));
        }
        assert_eq!(of(&any, "docker", &id), None);
        assert_eq!(of(&any, "", &id), None);
    }

    #[test]
    fn a_chosen_id_needs_the_state_of_the_runtime() {
        let state = first(Some(7), Some("/sys/fs/cgroup/default/web"));
        assert_eq!(of(&state, "default/web", "web"), Some("default/web".into()));
        assert_eq!(
            of(&state, "default/web/init.scope", "web"),
            Some("default/web".into())
        );
        // As crun writes it, and where another part of the tree is mounted.
        let state = first(Some(7), Some("/pods/default/web"));
        assert_eq!(
            of(&state, "default/web/a", "web"),
            Some("default/web".into())
        );
        assert_eq!(of(&state, "default/other", "web"), None);
        assert_eq!(of(&state, "", "web"), None);
        assert_eq!(of(&first(None, Some("/web")), "web", "web"), None);
        assert_eq!(of(&first(Some(7), None), "web", "web"), None);
    }
}
