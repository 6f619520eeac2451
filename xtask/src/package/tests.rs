//! Packages of small files: what is in them, and that their bytes do not depend on the directory or the time.

use std::{collections::BTreeSet, os::unix::fs::PermissionsExt as _};

use super::*;
use crate::installed::{self, Layout, tests::made};

fn commit() -> Commit {
    Commit {
        name: "0123456789abcdef0123456789abcdef01234567".to_owned(),
        date: 1_700_000_000,
    }
}

/// Makes a package in a directory.
fn packaged(dir: &Path, make: impl Fn(&Path, &made::Made) -> Result<PathBuf>) -> PathBuf {
    // A program of this machine in the place of qfence: what is needed is read from its symbols.
    make(dir, &made(dir)).unwrap()
}

fn deb(dir: &Path, made: &made::Made) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    deb::make(dir, dir, made, &Needs::of(&[&own])?, &commit(), deb::SMALL)
}

fn archive(dir: &Path, made: &made::Made) -> Result<PathBuf> {
    archive::make(dir, dir, made, &commit())
}

#[test]
fn the_debian_package_has_all_files_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let package = packaged(dir.path(), deb);
    let listed = shell::output(shell::program("dpkg-deb").arg("--contents").arg(&package)).unwrap();
    let mut paths = BTreeSet::new();
    for line in listed.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!(words[1], "root/root", "{line}");
        if !line.starts_with('d') {
            paths.insert(words[5].trim_start_matches("./usr/").to_owned());
        } else {
            assert!(line.starts_with("drwxr-xr-x"), "{line}");
        }
    }
    let rows = installed::rows(&Layout::debian(), &made(dir.path())).unwrap();
    let mut expected: BTreeSet<_> = rows
        .iter()
        .map(|row| row.path.display().to_string())
        .collect();
    expected.insert("share/doc/qfence/changelog.Debian.gz".to_owned());
    assert_eq!(paths, expected);

    let fields = shell::output(shell::program("dpkg-deb").arg("--field").arg(&package)).unwrap();
    assert!(fields.contains("\nDepends: libc6 (>= 2."), "{fields}");
    let sums = dir.path().join("deb/DEBIAN/md5sums");
    let mut md5sum = shell::program("md5sum");
    md5sum
        .current_dir(dir.path().join("deb"))
        .args(["--check", "--quiet"]);
    shell::output(md5sum.arg(&sums)).unwrap();
    let script = dir.path().join("deb/DEBIAN/prerm").metadata().unwrap();
    assert_eq!(script.permissions().mode() & 0o777, 0o755);
}

#[test]
fn packages_of_two_directories_have_the_same_bytes() {
    for make in [deb, archive] {
        let bytes = |_| {
            let dir = tempfile::tempdir().unwrap();
            fs::read(packaged(dir.path(), make)).unwrap()
        };
        let [one, two] = [1, 2].map(bytes);
        assert!(one == two, "{} and {} bytes", one.len(), two.len());
    }
}

#[test]
fn the_archive_has_the_files_and_the_script() {
    let dir = tempfile::tempdir().unwrap();
    let package = packaged(dir.path(), archive);
    let listed = shell::output(
        shell::program("tar")
            .arg("--list")
            .arg("--file")
            .arg(&package),
    )
    .unwrap();
    let paths: BTreeSet<_> = listed.lines().filter(|line| !line.ends_with('/')).collect();
    let rows = installed::with_list(
        installed::rows(&Layout::new(Path::new("/usr/local")), &made(dir.path())).unwrap(),
    );
    assert_eq!(paths.len(), rows.len() + 3);
    let top = |name: &str| format!("qfence-{VERSION}-{}/{name}", std::env::consts::ARCH);
    for script in ["install.sh", "before-removal.sh", "after-removal.sh"] {
        assert!(paths.contains(&*top(script)), "{script}: {paths:?}");
    }
}

#[test]
fn checksums_are_those_of_sha256sum() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("package");
    fs::write(&file, "content").unwrap();
    fs::write(dir.path().join("SHA256SUMS"), checksums(&[file]).unwrap()).unwrap();
    let mut sha256sum = shell::program("sha256sum");
    sha256sum
        .current_dir(dir.path())
        .args(["--check", "--quiet", "SHA256SUMS"]);
    shell::output(&mut sha256sum).unwrap();
}
