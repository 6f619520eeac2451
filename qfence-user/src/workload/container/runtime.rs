//! The state of a container that its runtime, runc or crun, keeps in ROOT/ID/.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::Result;
use serde::Deserialize;

use super::{super::files, first::First};

/// The part of runc's state.json that is used (libcontainer/container_linux.go, `State`).
#[derive(Debug, Deserialize)]
struct Runc {
    init_process_pid: i32,
    init_process_start: u64,
    /// Absolute paths by controller. The path in cgroup2 has an empty key, and none of v1 has it.
    #[serde(default)]
    cgroup_paths: BTreeMap<String, PathBuf>,
}

/// The part of crun's status that is used (src/libcrun/status.c).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Crun {
    pid: i32,
    process_start_time: u64,
    /// A path below the mount of cgroup2.
    cgroup_path: Option<PathBuf>,
}

/// The first process of a container; `None` if the runtime has none below `directory`.
///
/// # Errors
/// If a state is there and cannot be read.
pub(super) fn first(directory: &Path, id: &str) -> Result<Option<First>> {
    let state = directory.join(id);
    if let Some(state) = files::json::<Runc>(&state.join("state.json"), files::ONE)? {
        return Ok(Some(First {
            pid: state.init_process_pid,
            started: Some(state.init_process_start),
            cgroup: state.cgroup_paths.get("").cloned(),
        })
        .filter(|first| first.pid > 0));
    }
    let status = files::json::<Crun>(&state.join("status"), files::ONE)?;
    let first = status.map(|status| First {
        pid: status.pid,
        started: Some(status.process_start_time),
        cgroup: status.cgroup_path,
    });
    Ok(first.filter(|first| first.pid > 0))
}
