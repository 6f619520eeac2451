//! The archive: the files below a directory, and a script that installs and removes them.

use std::{
    env::consts::ARCH,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::VERSION;
use crate::{
    commit::Commit,
    installed::{self, Layout, made::Made, stage},
    shell,
};

/// The script.
const INSTALL: &str = include_str!("install.sh");

/// The prefix that the files name; the script writes another one into them.
const PREFIX: &str = "/usr/local";

fn name() -> String {
    format!("qfence-{VERSION}-{ARCH}")
}

/// Writes the directory of the archive, and returns its path.
pub(crate) fn tree(work: &Path, made: &Made, commit: &Commit) -> Result<PathBuf> {
    let rows = installed::rows(&Layout::new(Path::new(PREFIX)), made)?;
    let rows = installed::with_list(rows);
    let root = work.join("archive").join(name());
    stage::write_tree(&rows, &root, Path::new("/files"), commit.date)?;
    let script = root.join("install.sh");
    fs::write(&script, INSTALL)
        .and_then(|()| fs::set_permissions(&script, fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("writing {}", script.display()))?;
    Ok(root)
}

/// Makes the archive in `dist`.
pub(super) fn make(work: &Path, dist: &Path, made: &Made, commit: &Commit) -> Result<PathBuf> {
    let root = tree(work, made, commit)?;
    let archive = dist.join(format!("{}.tar.gz", name()));
    let mut tar = shell::program("tar");
    tar.args(["--create", "--sort=name", "--format=gnu", "--numeric-owner"])
        .args(["--owner=0", "--group=0", "--mode=u=rwX,go=rX"])
        .arg(format!("--mtime=@{}", commit.date))
        .args(["--use-compress-program", "gzip -9 --no-name", "--file"])
        .arg(&archive)
        .arg("--directory")
        .arg(root.parent().unwrap_or(work))
        .arg(name());
    super::run(&mut tar, commit, archive)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory as that of the archive, with two files.
    fn unpacked() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let files = dir.path().join("files");
        for (path, text) in [
            ("bin/qfence-user", "program"),
            (
                "lib/systemd/system/qfence@.service",
                "ExecStart=/usr/local/bin/qfence-user x\n",
            ),
            (
                "share/qfence/files",
                "bin/qfence-user\nlib/systemd/system/qfence@.service\nshare/qfence/files\n",
            ),
        ] {
            let path = files.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let program = files.join("bin/qfence-user");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(dir.path().join("install.sh"), INSTALL).unwrap();
        dir
    }

    #[test]
    fn the_script_installs_under_a_prefix_and_removes_all_of_it() {
        let dir = unpacked();
        let prefix = dir.path().join("opt/a b");
        let run = |args: &[&str]| {
            let mut sh = shell::program("sh");
            sh.arg(dir.path().join("install.sh"));
            shell::output(sh.args(args).arg("--prefix").arg(&prefix))
        };
        for _twice in 0..2 {
            run(&[]).unwrap();
        }
        let unit = fs::read_to_string(prefix.join("lib/systemd/system/qfence@.service")).unwrap();
        assert_eq!(
            unit,
            format!("ExecStart={}/bin/qfence-user x\n", prefix.display())
        );
        let mode = prefix
            .join("bin/qfence-user")
            .metadata()
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o755);
        fs::write(prefix.join("bin/other"), "").unwrap();
        run(&["--uninstall"]).unwrap();
        assert!(!prefix.join("share/qfence").exists());
        assert!(!prefix.join("bin/qfence-user").exists());
        assert!(prefix.join("bin/other").exists());
        assert!(
            run(&["--uninstall"]).is_err(),
            "without a list nothing is removed"
        );
    }
}
