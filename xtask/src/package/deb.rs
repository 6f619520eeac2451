//! The Debian package, made by dpkg-deb from the list of installed files.

use std::{
    env::consts::ARCH,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use super::{
    AFTER_INSTALLATION, AFTER_REMOVAL, DESCRIPTION, SUMMARY, VERSION, before_removal, needs::Needs,
};
use crate::{
    commit::Commit,
    installed::{self, Content, Layout, Row, made::Made},
    shell,
};

/// The number of the package among those of a version.
const REVISION: &str = "1";

/// Who answers for the package.
pub(super) const MAINTAINER: &str = "the qfence developers <qfence@example.invalid>";

/// The option of dpkg-deb for a small package.
pub(super) const SMALL: &str = "-Zxz";

/// The option for a package that is made quickly.
pub(super) const QUICK: &str = "-Zgzip";

/// Makes the package in `dist`, with an option of dpkg-deb for its compression.
pub(super) fn make(
    work: &Path,
    dist: &Path,
    made: &Made,
    needs: &Needs,
    commit: &Commit,
    compression: &str,
) -> Result<PathBuf> {
    let architecture = architecture()?;
    let mut rows = installed::rows(&Layout::debian(), made)?;
    let changelog_file = work.join("changelog.Debian");
    fs::write(&changelog_file, changelog(commit)?)
        .with_context(|| format!("writing {}", changelog_file.display()))?;
    rows.push(Row {
        path: "share/doc/qfence/changelog.Debian.gz".into(),
        content: Content::Compressed(changelog_file),
    });
    let root = super::tree(work, "deb", &rows, commit)?;
    let control = root.join("DEBIAN");
    fs::create_dir_all(&control)?;
    fs::set_permissions(&control, fs::Permissions::from_mode(0o755))?;
    let write = |name: &str, text: &str, mode: u32| -> Result<()> {
        let file = control.join(name);
        fs::write(&file, text)
            .and_then(|()| fs::set_permissions(&file, fs::Permissions::from_mode(mode)))
            .with_context(|| format!("writing {}", file.display()))
    };
    write(
        "control",
        &control_file(architecture, needs, &root, &rows)?,
        0o644,
    )?;
    write("md5sums", &md5sums(&root, &rows)?, 0o644)?;
    for (name, script) in scripts() {
        write(name, &script, 0o755)?;
    }
    let package = dist.join(format!("qfence_{VERSION}-{REVISION}_{architecture}.deb"));
    let mut dpkg = shell::program("dpkg-deb");
    dpkg.args(["--root-owner-group", compression, "--build"])
        .arg(&root)
        .arg(&package)
        // The number of threads has an effect on the bytes.
        .env("DPKG_DEB_THREADS_MAX", "1");
    super::run(&mut dpkg, commit, package)
}

fn architecture() -> Result<&'static str> {
    match ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        _ => bail!("there are packages for x86_64 and aarch64, not for {ARCH}"),
    }
}

/// The scripts that dpkg runs.
fn scripts() -> [(&'static str, String); 3] {
    let script = |when: &str, text: &str| {
        let lines: String = text.lines().map(|line| format!("    {line}\n")).collect();
        format!("#!/bin/sh\nset -e\nif {when}; then\n{lines}fi\n")
    };
    let removes = "[ \"$1\" = remove ] || [ \"$1\" = purge ]";
    [
        (
            "postinst",
            script("[ \"$1\" = configure ]", AFTER_INSTALLATION),
        ),
        ("prerm", script("[ \"$1\" = remove ]", &before_removal())),
        ("postrm", script(removes, AFTER_REMOVAL)),
    ]
}

fn control_file(architecture: &str, needs: &Needs, root: &Path, rows: &[Row]) -> Result<String> {
    let mut bytes = 0;
    for row in rows {
        let path = root.join("usr").join(&row.path);
        let length = path.symlink_metadata()?.len();
        // As dpkg-gencontrol counts: in blocks of 1024 bytes for each file.
        bytes += length.div_ceil(1024);
    }
    let description: String = DESCRIPTION.map(|line| format!(" {line}\n")).concat();
    Ok(format!(
        "Package: qfence\nVersion: {VERSION}-{REVISION}\nArchitecture: {architecture}\n\
         Maintainer: {MAINTAINER}\nInstalled-Size: {bytes}\n\
         Depends: libc6 (>= {}), libgcc-s1\nSuggests: qemu-system, nftables\n\
         Section: admin\nPriority: optional\n\
         Description: {SUMMARY}\n{description}",
        needs.glibc()?,
    ))
}

fn md5sums(root: &Path, rows: &[Row]) -> Result<String> {
    let mut md5sum = shell::program("md5sum");
    md5sum.current_dir(root);
    for row in rows {
        if !matches!(row.content, Content::Link(_)) {
            md5sum.arg(Path::new("usr").join(&row.path));
        }
    }
    shell::output(&mut md5sum)
}

/// Debian's changelog, which refers to that of qfence.
fn changelog(commit: &Commit) -> Result<String> {
    let mut date = shell::program("date");
    let date =
        shell::output(date.args(["--utc", "--rfc-email", &format!("--date=@{}", commit.date)]))?;
    Ok(format!(
        "qfence ({VERSION}-{REVISION}) unstable; urgency=medium\n\n  \
         * The changes are in changelog.gz. Built from the commit\n    {}\n\n \
         -- {MAINTAINER}  {}\n",
        commit.name,
        date.trim()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scripts_are_valid_and_do_nothing_on_an_upgrade() {
        let dir = tempfile::tempdir().unwrap();
        for (name, script) in scripts() {
            let file = dir.path().join(name);
            fs::write(&file, script).unwrap();
            // Nothing is found on this PATH, so whatever ran would fail.
            let mut sh = shell::program("/bin/sh");
            sh.arg(&file)
                .args(["upgrade", "0.0.1"])
                .env("PATH", "/nowhere");
            assert_eq!(shell::output(&mut sh).unwrap(), "", "{name}");
        }
    }
}
