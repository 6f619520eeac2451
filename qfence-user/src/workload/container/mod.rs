//! Containers of podman, Docker and containerd, found by the files that these keep. No client is needed.
//!
//! | engine | names and ids | first process |
//! |---|---|---|
//! | podman | STORE/overlay-containers/containers.json | state of the runtime; RUN/overlay-containers/ID/userdata/pidfile |
//! | Docker | /var/lib/docker/containers/ID/config.v2.json | state of the runtime; the same file |
//! | containerd | /run/containerd/io.containerd.runtime.v2.task/NAMESPACE/ID/ | state of the runtime; init.pid in it |
//!
//! The state of the runtime (runc, crun) has the start time of the first process, so a process that has got the number
//! of one that ended is recognised.

mod containerd;
mod docker;
mod first;
mod podman;
mod reference;
mod runtime;

use std::{fmt, path::Path};

use anyhow::{Context as _, Result};
use first::First;
use reference::{NotChosen, Reference};

use super::{NotRunning, Workload, WorkloadKind};
use crate::base::{paths::Paths, process::helper::Apart};

/// A container engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Engine {
    /// podman of root.
    Podman,
    /// Docker.
    Docker,
    /// containerd, without the containers that Docker runs in it.
    Containerd,
}

impl Engine {
    const ALL: [Self; 3] = [Self::Podman, Self::Docker, Self::Containerd];

    /// The name in `--container ENGINE:NAME` and in output.
    #[must_use]
    const fn name(self) -> &'static str {
        match self {
            Self::Podman => "podman",
            Self::Docker => "docker",
            Self::Containerd => "containerd",
        }
    }

    /// Its containers, running or not.
    fn containers(self, root: &Path) -> Result<Vec<Container>> {
        match self {
            Self::Podman => podman::containers(root),
            Self::Docker => docker::containers(root),
            Self::Containerd => containerd::containers(root),
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A container on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Container {
    engine: Engine,
    /// containerd's namespace.
    namespace: Option<String>,
    id: String,
    names: Vec<String>,
}

impl Container {
    /// The first name, or the id, with the namespace of containerd.
    fn name(&self) -> String {
        let name = self.names.first().unwrap_or(&self.id);
        match &self.namespace {
            Some(namespace) => format!("{namespace}/{name}"),
            None => name.clone(),
        }
    }

    /// Its first process; `None` if it does not run.
    fn first(&self, root: &Path) -> Result<Option<First>> {
        match self.engine {
            Engine::Podman => podman::first(root, &self.id),
            Engine::Docker => docker::first(root, &self.id),
            Engine::Containerd => containerd::first(
                root,
                self.namespace.as_deref().unwrap_or_default(),
                &self.id,
            ),
        }
    }
}

impl fmt::Display for Container {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = self.id.get(..12).unwrap_or(&self.id);
        write!(formatter, "{}:{}", self.engine, self.name())?;
        if self.names.is_empty() || self.names.first() == Some(&self.id) {
            return Ok(());
        }
        write!(formatter, " ({short})")
    }
}

/// Finds a running container by `NAME`, `ID`, the beginning of an id, or one of these after `ENGINE:`. `hierarchy` is
/// the cgroup that is mounted here.
///
/// # Errors
/// If there is none or more than one, if it does not run, or if its first process cannot be identified.
pub(super) fn find(
    text: &str,
    paths: &Paths,
    hierarchy: &Path,
    apart: &mut Apart,
) -> Result<Workload> {
    let reference = Reference::parse(text)?;
    let mut all = Vec::new();
    for engine in reference.engines() {
        let containers = engine.containers(&paths.root).with_context(|| {
            let others = "name the engine of the container (--container ENGINE:NAME) to leave the others out";
            format!("cannot read the containers of {engine}; {others}")
        })?;
        all.extend(containers);
    }
    let container = reference.choose(&all).map_err(|error| match error {
        // It may be made anew.
        NotChosen::None { .. } => anyhow::Error::from(NotRunning(error.to_string())),
        other => other.into(),
    })?;
    let first = container
        .first(&paths.root)
        .with_context(|| format!("cannot find the first process of {container}"))?;
    let first = first.with_context(|| {
        NotRunning(format!(
            "the container {container} does not run: start it, and then attach"
        ))
    })?;
    let cgroup = first
        .cgroup(&container.id, paths, hierarchy, apart)
        .with_context(|| format!("cannot find the cgroup of {container}"))?;
    Ok(Workload {
        kind: WorkloadKind::Container {
            engine: container.engine.name().to_owned(),
        },
        name: container.name(),
        cgroup,
        pid: Some(first.pid()),
    })
}

#[cfg(test)]
mod tests;
