//! Containers of containerd: those of Kubernetes, nerdctl and `ctr`. They have ids, and names only in its database.

use std::path::Path;

use anyhow::Result;

use super::{super::files, Container, Engine, docker, first::First, runtime};

/// A directory NAMESPACE/ID for each container that has been started.
const TASKS: &str = "run/containerd/io.containerd.runtime.v2.task";

/// The states of runc or crun, by namespace.
const RUNTIME: &str = "run/containerd/runc";

/// All containers that have been started, without Docker's.
pub(super) fn containers(root: &Path) -> Result<Vec<Container>> {
    let mut all = Vec::new();
    let tasks = root.join(TASKS);
    for namespace in files::directories(&tasks)? {
        if namespace == docker::NAMESPACE {
            continue;
        }
        for id in files::directories(&tasks.join(&namespace))? {
            all.push(Container {
                engine: Engine::Containerd,
                namespace: Some(namespace.clone()),
                id,
                names: Vec::new(),
            });
        }
    }
    Ok(all)
}

/// The first process of a container; `None` if it does not run.
pub(super) fn first(root: &Path, namespace: &str, id: &str) -> Result<Option<First>> {
    if let Some(first) = runtime::first(&root.join(RUNTIME).join(namespace), id)? {
        return Ok(Some(first));
    }
    let task = root.join(TASKS).join(namespace).join(id);
    let pid = files::pid(&task.join("init.pid"))?;
    Ok(pid.map(|pid| First {
        pid,
        started: None,
        cgroup: None,
    }))
}
