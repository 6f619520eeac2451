//! Containers of root's podman, and of CRI-O, which keeps its containers in the same store.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::{super::files, Container, Engine, first::First, runtime};

/// The directories of the runtimes' states.
const RUNTIMES: [&str; 2] = ["run/runc", "run/crun"];

/// Files that name the store, the one that counts first (containers-storage.conf(5)).
const CONFIGURATION: [&str; 2] = [
    "etc/containers/storage.conf",
    "usr/share/containers/storage.conf",
];

/// The end of the names of the store's directories of containers; the driver's name is before it.
const CONTAINERS: &str = "-containers";

/// A row of containers.json.
#[derive(Debug, Deserialize)]
struct Row {
    id: String,
    #[serde(default)]
    names: Vec<String>,
}

/// The part of storage.conf that is used.
#[derive(Debug, Default, Deserialize)]
struct Configuration {
    #[serde(default)]
    storage: Storage,
}

#[derive(Debug, Default, Deserialize)]
struct Storage {
    graphroot: Option<PathBuf>,
    runroot: Option<PathBuf>,
}

impl Storage {
    fn read(root: &Path) -> Result<Self> {
        for path in CONFIGURATION {
            let path = root.join(path);
            let Some(text) = files::bytes(&path, files::ONE)? else {
                continue;
            };
            let text = String::from_utf8_lossy(&text);
            let read: Configuration = toml::from_str(&text)
                .with_context(|| format!("cannot understand {}", path.display()))?;
            return Ok(read.storage);
        }
        Ok(Self::default())
    }

    /// Where containers and their names are.
    fn store(&self, root: &Path) -> PathBuf {
        let path = self.graphroot.as_deref();
        super::super::in_root(
            root,
            path.unwrap_or(Path::new("/var/lib/containers/storage")),
        )
    }

    /// Where the process ids of running containers are.
    fn run(&self, root: &Path) -> PathBuf {
        let path = self.runroot.as_deref();
        super::super::in_root(root, path.unwrap_or(Path::new("/run/containers/storage")))
    }
}

/// The directories `DRIVER-containers` of a store.
fn of_drivers(store: &Path) -> Result<Vec<PathBuf>> {
    let names = files::directories(store)?.into_iter();
    let names = names.filter(|name| name.ends_with(CONTAINERS));
    Ok(names.map(|name| store.join(name)).collect())
}

/// All containers.
pub(super) fn containers(root: &Path) -> Result<Vec<Container>> {
    let store = Storage::read(root)?.store(root);
    let mut all = Vec::new();
    for driver in of_drivers(&store)? {
        let rows: Option<Vec<Row>> = files::json(&driver.join("containers.json"), files::ALL)?;
        let rows = rows.unwrap_or_default().into_iter();
        let rows = rows.filter(|row| files::is_file_name(&row.id));
        all.extend(rows.map(|row| Container {
            engine: Engine::Podman,
            namespace: None,
            id: row.id,
            names: row.names,
        }));
    }
    Ok(all)
}

/// The first process of a container; `None` if it does not run.
pub(super) fn first(root: &Path, id: &str) -> Result<Option<First>> {
    for runtime in RUNTIMES {
        if let Some(first) = runtime::first(&root.join(runtime), id)? {
            return Ok(Some(first));
        }
    }
    // Of another runtime there is the process id only.
    for driver in of_drivers(&Storage::read(root)?.run(root))? {
        if let Some(pid) = files::pid(&driver.join(id).join("userdata/pidfile"))? {
            return Ok(Some(First {
                pid,
                started: None,
                cgroup: None,
            }));
        }
    }
    Ok(None)
}
