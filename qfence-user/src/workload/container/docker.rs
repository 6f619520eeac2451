//! Containers of Docker.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Deserialize;

use super::{super::files, Container, Engine, first::First, runtime};

/// Docker's configuration, which may name another directory.
const CONFIGURATION: &str = "etc/docker/daemon.json";

/// Where Docker keeps a directory for the states of each runtime, `runtime-NAME`.
const RUNTIMES: &str = "run/docker";

/// containerd's namespace with Docker's containers.
pub(super) const NAMESPACE: &str = "moby";

/// The part of daemon.json that is used.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Configuration {
    data_root: Option<PathBuf>,
}

/// The part of config.v2.json that is used.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    name: String,
    state: State,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    running: bool,
    pid: i32,
}

fn directory(root: &Path) -> Result<PathBuf> {
    let configuration: Option<Configuration> = files::json(&root.join(CONFIGURATION), files::ONE)?;
    let path = configuration.unwrap_or_default().data_root;
    let path = path.unwrap_or_else(|| "/var/lib/docker".into());
    Ok(super::super::in_root(root, &path).join("containers"))
}

fn config(root: &Path, id: &str) -> Result<Option<Config>> {
    let path = directory(root)?.join(id).join("config.v2.json");
    files::json(&path, files::ONE)
}

/// All containers.
pub(super) fn containers(root: &Path) -> Result<Vec<Container>> {
    let mut all = Vec::new();
    for id in files::directories(&directory(root)?)? {
        // Docker removes a container while it is looked at, and makes the directory before the file.
        let Some(config) = config(root, &id)? else {
            continue;
        };
        let name = config.name.trim_start_matches('/').to_owned();
        all.push(Container {
            engine: Engine::Docker,
            namespace: None,
            id,
            names: vec![name],
        });
    }
    Ok(all)
}

/// The first process of a container; `None` if it does not run.
pub(super) fn first(root: &Path, id: &str) -> Result<Option<First>> {
    let Some(config) = config(root, id)?.filter(|config| config.state.running) else {
        return Ok(None);
    };
    let runtimes = root.join(RUNTIMES);
    for name in files::directories(&runtimes)? {
        if !name.starts_with("runtime-") {
            continue;
        }
        let state = runtimes.join(name).join(NAMESPACE);
        // After a restart of the machine Docker's file may still have the process of before.
        if let Some(first) = runtime::first(&state, id)? {
            return Ok(Some(first));
        }
    }
    let first = First {
        pid: config.state.pid,
        started: None,
        cgroup: None,
    };
    Ok(Some(first).filter(|first| first.pid > 0))
}
