//! The archive: the files below a directory, and a script that installs and removes them.

use std::{
    env::consts::ARCH,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::{AFTER_REMOVAL, BEFORE_REMOVAL, VERSION};
use crate::{
    commit::Commit,
    installed::{self, Layout, made::Made, stage},
    shell,
};

/// The scripts: the one that is called, and those that it reads.
const SCRIPTS: [(&str, &str); 3] = [
    ("install.sh", include_str!("install.sh")),
    ("before-removal.sh", BEFORE_REMOVAL),
    ("after-removal.sh", AFTER_REMOVAL),
];

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
    write_scripts(&root)?;
    Ok(root)
}

fn write_scripts(dir: &Path) -> Result<()> {
    for (name, text) in SCRIPTS {
        let script = dir.join(name);
        let mode = if name == SCRIPTS[0].0 { 0o755 } else { 0o644 };
        fs::write(&script, text)
            .and_then(|()| fs::set_permissions(&script, fs::Permissions::from_mode(mode)))
            .with_context(|| format!("writing {}", script.display()))?;
    }
    Ok(())
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
        write_scripts(dir.path()).unwrap();
        dir
    }

    /// Runs the script of the directory.
    fn run(dir: &tempfile::TempDir, args: &[&str]) -> Result<String> {
        let mut sh = shell::program("sh");
        shell::output(sh.arg(dir.path().join("install.sh")).args(args))
    }

    fn unit(root: &Path) -> String {
        fs::read_to_string(root.join("lib/systemd/system/qfence@.service")).unwrap()
    }

    #[test]
    fn the_script_installs_under_a_prefix_and_removes_all_of_it() {
        let dir = unpacked();
        // A staging directory may have any name, and no file has it.
        let staged = dir.path().join("a b&c|d\\1'$(x)*");
        let destdir = staged.to_str().unwrap();
        for (prefix, named) in [
            ("/opt/q-1.0_~+@x", "/opt/q-1.0_~+@x"),
            ("/usr/local", "/usr/local"),
        ] {
            let prefixed = |more: &[&str]| {
                let place = ["--prefix", prefix, "--destdir", destdir];
                run(&dir, &[&place, more].concat())
            };
            for _twice in 0..2 {
                prefixed(&[]).unwrap();
            }
            let installed = staged.join(&prefix[1..]);
            assert_eq!(
                unit(&installed),
                format!("ExecStart={named}/bin/qfence-user x\n")
            );
            let program = installed.join("bin/qfence-user").metadata().unwrap();
            assert_eq!(program.permissions().mode() & 0o777, 0o755);
            fs::write(installed.join("bin/other"), "").unwrap();
            prefixed(&["--uninstall"]).unwrap();
            assert!(!installed.join("share/qfence").exists());
            assert!(!installed.join("bin/qfence-user").exists());
            assert!(installed.join("bin/other").exists());
            let error = prefixed(&["--uninstall"]).unwrap_err().to_string();
            assert!(error.contains("nothing is changed"), "{error}");
        }
    }

    #[test]
    fn a_prefix_that_units_cannot_name_is_refused() {
        let dir = unpacked();
        for name in [
            "a b", "a&b", "a|b", "a\\b", "a%b", "a\"b", "a'b", "a$b", "a\nb", "ä",
        ] {
            let prefix = dir.path().join(name);
            let error = run(&dir, &["--prefix", prefix.to_str().unwrap()]).unwrap_err();
            assert!(error.to_string().contains("use letters"), "{error:#}");
            assert!(!prefix.exists(), "{name}");
        }
        assert!(run(&dir, &["--prefix", "opt"]).is_err());
        assert!(run(&dir, &["--prefix"]).is_err());
    }

    #[test]
    fn a_list_that_leads_elsewhere_removes_nothing() {
        let dir = unpacked();
        let staged = dir.path().join("staged");
        let destdir = ["--destdir", staged.to_str().unwrap()];
        run(&dir, &destdir).unwrap();
        let list = staged.join("usr/local/share/qfence/files");
        for line in ["../other", "/etc/passwd", "bin/../../../x", ""] {
            fs::write(&list, format!("bin/qfence-user\n{line}\n")).unwrap();
            let error = run(&dir, &[&destdir[..], &["--uninstall"]].concat()).unwrap_err();
            assert!(error.to_string().contains("no path below"), "{error:#}");
            assert!(staged.join("usr/local/bin/qfence-user").exists(), "{line}");
        }
    }
}
