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
    report, shell,
};

/// Builds, and installs under the prefix, below `destdir` if it is given.
pub(crate) fn install(prefix: &Path, destdir: Option<&Path>, profile: Profile) -> Result<()> {
    check_prefix(prefix)?;
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
            let script = archive::tree(&work, &made, &commit)?.join("install.sh");
            let mut command = shell::program("sudo");
            command.arg(script).arg("--prefix").arg(prefix);
            if let Some(destdir) = destdir {
                command.arg("--destdir").arg(destdir);
            }
            bail!(
                "{error:#}: only root can write there; run\n    {}",
                shell::quoted(&command)
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
    let list = target.join(installed::LIST);
    let text = fs::read_to_string(&list).with_context(|| {
        format!(
            "reading {}, the list of installed files: without it nothing is removed",
            list.display()
        )
    })?;
    let paths = paths_in(&text).with_context(|| format!("reading {}", list.display()))?;
    let is_of_this_host = target == prefix;
    if is_of_this_host {
        sh(package::BEFORE_REMOVAL, prefix).context("nothing is removed")?;
    }
    let removed = stage::remove(&paths, &target)?;
    if is_of_this_host {
        sh(package::AFTER_REMOVAL, prefix)?;
    }
    report::note(&format!(
        "removed {} of {} files from {}",
        removed.len(),
        paths.len(),
        target.display()
    ));
    Ok(())
}

/// Runs commands of the packages in a shell, as root: only root can see fences.
fn sh(commands: &str, prefix: &Path) -> Result<()> {
    let mut sh = shell::as_root("env");
    let program = prefix.join("bin/qfence-user");
    sh.arg(format!("qfence={}", program.display()));
    sh.args(["sh", "-e", "-c", commands]);
    let status = sh.status().context("starting a shell")?;
    ensure!(status.success(), "the reason is above");
    Ok(())
}

/// Fails if the prefix is not absolute, or if units, hooks and scripts cannot name programs below it: each has a syntax of its
/// own.
fn check_prefix(prefix: &Path) -> Result<()> {
    let text = prefix.to_string_lossy();
    ensure!(
        prefix.is_absolute(),
        "--prefix {text}: give an absolute path"
    );
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "/._+@:,~-".contains(char);
    ensure!(
        text.chars().all(is_plain),
        "--prefix {text}: units and hooks cannot name programs there: use letters, digits and / . _ + @ : , ~ -"
    );
    Ok(())
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
    fn a_prefix_is_one_that_units_can_name() {
        check_prefix(Path::new("/opt/q-1.0_~+@x")).unwrap();
        for prefix in [
            "opt", "/a b", "/a&b", "/a|b", "/a%b", "/a\"b", "/a\nb", "/ä",
        ] {
            assert!(check_prefix(Path::new(prefix)).is_err(), "{prefix}");
        }
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
