//! `install` and `uninstall`: installs what packages have under a prefix, and removes it.

use std::{
    fs,
    io::ErrorKind,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    build::Profile,
    commit,
    installed::{self, Layout, made, stage},
    package::{self, archive},
    report,
};

/// Builds, and installs under the prefix, below `destdir` if it is given.
pub(crate) fn install(prefix: &Path, destdir: Option<&Path>, profile: Profile) -> Result<()> {
    ensure!(
        prefix.is_absolute(),
        "--prefix {}: give an absolute path",
        prefix.display()
    );
    let commit = commit::current()?;
    let work = package::work()?;
    let made = made::make(&work, profile, &commit)?;
    let rows = installed::rows(&Layout::new(prefix), &made)?;
    let rows = installed::with_list(rows);
    let target = staged(prefix, destdir);
    if let Err(error) = stage::write(&rows, &target, commit.date) {
        let is_denied = error
            .root_cause()
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == ErrorKind::PermissionDenied);
        if is_denied {
            let tree = archive::tree(&work, &made, &commit)?;
            bail!(
                "{error:#}: only root can write there; run\n    sudo {}/install.sh --prefix {}",
                tree.display(),
                target.display()
            );
        }
        return Err(error);
    }
    report::note(&format!(
        "installed {} files under {}, which are listed in {}",
        rows.len(),
        target.display(),
        target.join(installed::LIST).display()
    ));
    Ok(())
}

/// Removes what `install` has installed under the prefix, by the list that it wrote.
pub(crate) fn uninstall(prefix: &Path, destdir: Option<&Path>) -> Result<()> {
    let target = staged(prefix, destdir);
    if target == prefix {
        let fences = [Path::new("/run/qfence"), Path::new("/sys/fs/bpf/qfence")].map(fences_in);
        ensure!(
            fences.iter().all(Vec::is_empty),
            "nothing is removed, because there are fences, which would stay in force and could not be changed any more: {}\n\
             end them by `qfence-user rm NAME` first",
            fences.concat().join(", ")
        );
    }
    let list = target.join(installed::LIST);
    let text = fs::read_to_string(&list).with_context(|| {
        format!(
            "reading {}, the list of installed files: without it nothing is removed",
            list.display()
        )
    })?;
    let paths = paths_in(&text).with_context(|| format!("reading {}", list.display()))?;
    let removed = stage::remove(&paths, &target)?;
    report::note(&format!(
        "removed {} of {} files from {}",
        removed.len(),
        paths.len(),
        target.display()
    ));
    Ok(())
}

/// The fences in the directory of descriptions or of pins, by the names of the entries. Nothing is there if it cannot be listed:
/// only root can list it, and only root can have installed.
fn fences_in(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let entries = entries.flatten().filter(|entry| {
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        is_directory || entry.path().extension().is_some_and(|end| end == "json")
    });
    let names = entries.map(|entry| entry.path().with_extension(""));
    let names = names.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    names.collect()
}

fn staged(prefix: &Path, destdir: Option<&Path>) -> PathBuf {
    match destdir {
        Some(destdir) if !destdir.as_os_str().is_empty() => stage::below(destdir, prefix),
        _ => prefix.to_owned(),
    }
}

/// The paths of a list, which stay below the prefix.
fn paths_in(text: &str) -> Result<Vec<PathBuf>> {
    let paths: Vec<_> = text.lines().map(PathBuf::from).collect();
    for path in &paths {
        let is_below = path
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        ensure!(
            is_below && path.components().count() > 1,
            "{path:?} is no path below a prefix"
        );
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_staging_directory_goes_before_the_prefix() {
        let prefix = Path::new("/usr/local");
        assert_eq!(staged(prefix, None), prefix);
        assert_eq!(staged(prefix, Some(Path::new(""))), prefix);
        assert_eq!(
            staged(prefix, Some(Path::new("/tmp/stage"))),
            Path::new("/tmp/stage/usr/local")
        );
    }

    #[test]
    fn fences_are_descriptions_and_directories_of_pins() {
        let dir = tempfile::tempdir().unwrap();
        assert!(fences_in(&dir.path().join("missing")).is_empty());
        for file in ["kernel-offsets", "vm1.json", "vm1.policy"] {
            fs::write(dir.path().join(file), "").unwrap();
        }
        assert_eq!(fences_in(dir.path()), ["vm1"]);
        fs::remove_file(dir.path().join("vm1.json")).unwrap();
        fs::create_dir(dir.path().join("vm2")).unwrap();
        assert_eq!(fences_in(dir.path()), ["vm2"]);
    }

    #[test]
    fn a_list_that_leads_elsewhere_removes_nothing() {
        let paths = paths_in("bin/qfence\nshare/qfence/files\n").unwrap();
        assert_eq!(
            paths,
            ["bin/qfence", "share/qfence/files"].map(PathBuf::from)
        );
        for line in ["/etc/passwd", "../etc/passwd", "bin/../../x", "bin", ""] {
            assert!(
                paths_in(&format!("bin/qfence\n{line}\n")).is_err(),
                "{line:?}"
            );
        }
    }

    #[test]
    fn without_a_list_nothing_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let error = uninstall(dir.path(), None).unwrap_err().to_string();
        assert!(error.ends_with("nothing is removed"), "{error}");
    }
}
