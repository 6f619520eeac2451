//! The resolv.conf of a container that is being started: the engine has it mounted, or else it is the image's.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::super::files;
use crate::base::files::in_root;

/// The most bytes of the configuration of a bundle, and of a resolv.conf.
const CONFIGURATION: u64 = 16 << 20;
const LONGEST: u64 = 64 << 10;

/// Where it is in the container.
const PLACE: &str = "/etc/resolv.conf";

/// The parts of the configuration that name it.
#[derive(Deserialize)]
struct Configuration {
    root: Root,
    #[serde(default)]
    mounts: Vec<Mount>,
}

#[derive(Deserialize)]
struct Root {
    path: PathBuf,
}

#[derive(Deserialize)]
struct Mount {
    destination: PathBuf,
    #[serde(default)]
    source: PathBuf,
}

/// Reads it; `None` if there is none. Nothing of the image runs yet. A file of the engine is the container's to write from
/// then on, and may have been in an earlier run.
///
/// # Errors
/// If the bundle cannot be read, or the file exists and cannot.
pub fn read(bundle: &Path) -> Result<Option<Vec<u8>>> {
    let path = bundle.join("config.json");
    let configuration: Option<Configuration> = files::json(&path, CONFIGURATION)?;
    let configuration = configuration.with_context(|| format!("there is no {}", path.display()))?;
    let is_place = |mount: &&Mount| mount.destination == Path::new(PLACE);
    // The last one is on top.
    if let Some(mount) = configuration.mounts.iter().rev().find(is_place) {
        return files::bytes(&bundle.join(&mount.source), LONGEST);
    }
    let root = bundle.join(configuration.root.path);
    match in_root::read(&root, Path::new(PLACE), LONGEST) {
        Ok(found) => Ok(Some(found.bytes)),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => {
            Err(error).with_context(|| format!("cannot read {PLACE} in {}", root.display()))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    #[test]
    fn the_file_is_that_of_the_engine_or_else_of_the_image() {
        let bundle = tempfile::tempdir().unwrap();
        let of = |mounts: serde_json::Value| {
            let configuration = json!({ "root": { "path": "rootfs" }, "mounts": mounts });
            fs::write(bundle.path().join("config.json"), configuration.to_string()).unwrap();
            read(bundle.path())
        };
        assert!(read(bundle.path()).is_err());
        fs::create_dir_all(bundle.path().join("rootfs/etc")).unwrap();
        assert_eq!(of(json!([])).unwrap(), None);
        fs::write(bundle.path().join("rootfs/etc/resolv.conf"), "image").unwrap();
        assert_eq!(of(json!([])).unwrap().unwrap(), b"image");
        let engine = bundle.path().join("engine");
        fs::write(&engine, "engine").unwrap();
        let mounts = json!([
            { "destination": "/proc", "type": "proc" },
            { "destination": PLACE, "source": "/nowhere" },
            { "destination": PLACE, "source": engine },
        ]);
        assert_eq!(of(mounts).unwrap().unwrap(), b"engine");
        assert!(of(json!([{ "destination": PLACE, "source": bundle.path() }])).is_err());
    }
}
