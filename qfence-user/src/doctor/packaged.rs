//! Whether the programs are those that were packaged: compares them with the manifest that is installed with them.
//!
//! This finds damage, a file of another build, and a change of one file. Whoever can change the programs can also change
//! the manifest: only the checksums of a release, from elsewhere, show that.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::finding::Finding;
use crate::{
    base::{
        files::bounded::{self, BoundedError},
        paths::Paths,
        version,
    },
    kernel::digest,
};

const NAME: &str = "build";

/// The manifest, relative to the prefix in whose `bin` the programs are.
const MANIFEST: &str = "share/qfence/build.toml";

/// The longest manifest and the largest program that are read, in bytes.
const LONGEST: u64 = 64 * 1024;
const LARGEST: u64 = 1 << 30;

/// The program that is installed beside this one.
const VERIFIER: &str = "qfence-verify";

/// The manifest that `cargo xtask package` and `cargo xtask install` write.
#[derive(Clone, Debug, Deserialize)]
struct Manifest {
    commit: String,
    abi: u32,
    /// The SHA-256 of each program and object, by file name.
    sha256: BTreeMap<String, String>,
}

/// Compares this program, the objects in it, and `qfence-verify` with the manifest.
pub fn examine(paths: &Paths) -> Finding {
    let found = match fs::read_link(&paths.program) {
        Ok(program) => read(&program),
        Err(error) => return unknown(&format!("cannot find the file of this program: {error}")),
    };
    match found {
        Err(why) => unknown(&why),
        Ok(None) => Finding::ok(
            NAME,
            format!(
                "commit {}, ABI {}; not installed by a package, so there is nothing to compare it with",
                version::COMMIT,
                version::abi()
            ),
        ),
        Ok(Some((path, manifest))) => judge(&path, &manifest, &digests(paths, &path)),
    }
}

fn unknown(why: &str) -> Finding {
    Finding::degraded(
        NAME,
        why,
        "install qfence again, as docs/install.md describes",
    )
}

/// Reads the manifest of a program; `None` if it has none.
fn read(program: &Path) -> Result<Option<(PathBuf, Manifest)>, String> {
    let Some(prefix) = program.parent().and_then(Path::parent) else {
        return Ok(None);
    };
    let path = prefix.join(MANIFEST);
    let bytes = match bounded::read(&path, LONGEST) {
        Ok(bytes) => bytes,
        Err(error) if error.is_missing() => return Ok(None),
        Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
    };
    let manifest = toml::from_slice(&bytes)
        .map_err(|error| format!("{} is no manifest: {}", path.display(), error.message()))?;
    Ok(Some((path, manifest)))
}

/// The digests of what is here: by file name, or why there is none.
fn digests(paths: &Paths, manifest: &Path) -> BTreeMap<&'static str, Result<String, String>> {
    let of_file = |path: &Path| {
        let read = bounded::read(path, LARGEST).map(|bytes| digest::of(&bytes));
        read.map_err(|error: BoundedError| error.to_string())
    };
    // share/qfence/build.toml is three names below the prefix.
    let prefix = manifest.ancestors().nth(3).unwrap_or(Path::new("/"));
    let mut digests: BTreeMap<_, _> = digest::objects()
        .into_iter()
        .map(|(file, digest)| (file, Ok(digest)))
        .collect();
    digests.insert("qfence-user", of_file(&paths.program));
    digests.insert(VERIFIER, of_file(&prefix.join("bin").join(VERIFIER)));
    digests
}

fn judge(
    path: &Path,
    manifest: &Manifest,
    digests: &BTreeMap<&'static str, Result<String, String>>,
) -> Finding {
    let differing: Vec<String> = digests
        .iter()
        .filter_map(
            |(&file, digest)| match (digest, manifest.sha256.get(file)) {
                (Ok(digest), Some(packaged)) if digest == packaged => None,
                (Ok(_), Some(_)) => Some(format!("{file} is another one")),
                (Ok(_), None) => Some(format!("{file} is not listed")),
                (Err(error), _) => Some(format!("{file} cannot be read: {error}")),
            },
        )
        .collect();
    if differing.is_empty() {
        return Finding::ok(
            NAME,
            format!(
                "commit {}, ABI {}; as packaged ({})",
                manifest.commit,
                manifest.abi,
                path.display()
            ),
        );
    }
    Finding::missing(
        NAME,
        format!(
            "not as packaged, by {}: {}",
            path.display(),
            differing.join(", ")
        ),
        "the programs were changed, damaged, or installed only in part: install qfence again from a package whose \
         checksum you have compared, and find out who changed them",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::State;

    /// A prefix with a manifest that lists what is there.
    fn installed() -> (tempfile::TempDir, Paths) {
        let dir = tempfile::tempdir().unwrap();
        for directory in ["bin", "share/qfence"] {
            fs::create_dir_all(dir.path().join(directory)).unwrap();
        }
        fs::write(dir.path().join("bin/program"), "program").unwrap();
        fs::write(dir.path().join("bin/qfence-verify"), "verify").unwrap();
        let link = dir.path().join("exe");
        std::os::unix::fs::symlink(dir.path().join("bin/program"), &link).unwrap();
        let paths = Paths {
            program: link,
            ..Paths::default()
        };
        let mut text = String::from("commit = \"c0ffee\"\nabi = 7\n[sha256]\n");
        for (file, digest) in digest::objects()
            .into_iter()
            .chain([("qfence-user", digest::of(b"program"))])
            .chain([("qfence-verify", digest::of(b"verify"))])
        {
            text.push_str(&format!("\"{file}\" = \"{digest}\"\n"));
        }
        fs::write(dir.path().join(MANIFEST), text).unwrap();
        (dir, paths)
    }

    #[test]
    fn what_is_as_packaged_is_ok() {
        let (dir, paths) = installed();
        let finding = examine(&paths);
        assert_eq!(finding.state, State::Ok, "{finding:?}");
        assert!(
            finding
                .found
                .starts_with("commit c0ffee, ABI 7; as packaged")
        );
        fs::remove_file(dir.path().join(MANIFEST)).unwrap();
        let finding = examine(&paths);
        assert_eq!(finding.state, State::Ok, "{finding:?}");
        assert!(finding.found.contains("nothing to compare"), "{finding:?}");
    }

    #[test]
    fn whatever_differs_is_named() {
        for (file, change) in [
            ("bin/program", "qfence-user is another one"),
            ("bin/qfence-verify", "qfence-verify is another one"),
        ] {
            let (dir, paths) = installed();
            fs::write(dir.path().join(file), "changed").unwrap();
            let finding = examine(&paths);
            assert_eq!(finding.state, State::Missing);
            assert!(finding.found.ends_with(change), "{finding:?}");
        }
        let (dir, paths) = installed();
        fs::remove_file(dir.path().join("bin/qfence-verify")).unwrap();
        assert!(
            examine(&paths)
                .found
                .contains("qfence-verify cannot be read")
        );
    }

    #[test]
    fn another_object_is_not_the_packaged_one() {
        let (dir, paths) = installed();
        let path = dir.path().join(MANIFEST);
        let text = fs::read_to_string(&path).unwrap();
        let other = text.replace(&digest::objects()[0].1, &digest::of(b"another object"));
        fs::write(&path, other).unwrap();
        let finding = examine(&paths);
        assert_eq!(finding.state, State::Missing);
        assert!(
            finding.found.ends_with(": qfence.o is another one"),
            "{finding:?}"
        );
        fs::write(&path, "commit = 1").unwrap();
        assert_eq!(examine(&paths).state, State::Degraded);
    }
}
