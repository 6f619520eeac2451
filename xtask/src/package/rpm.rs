//! The RPM, made by rpmbuild from the list of installed files.

use std::{
    env::consts::ARCH,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::{
    AFTER_INSTALLATION, AFTER_REMOVAL, DESCRIPTION, SUMMARY, VERSION, before_removal, needs::Needs,
};
use crate::{
    commit::Commit,
    installed::{self, Layout, Row, made::Made, stage},
    shell,
};

/// Definitions before the description. What the build host has, such as its name, and what rpm would add, such as links by
/// build ids, is left out. Everything that is needed is named.
const DEFINITIONS: &str = "\
%global debug_package %{nil}
%global __os_install_post %{nil}
%global _build_id_links none
%global _buildhost localhost
%global use_source_date_epoch_as_buildtime 1
%global clamp_mtime_to_source_date_epoch 1
%global source_date_epoch_from_changelog 0
%global _binary_payload w6.xzdio
%global _source_payload w6.xzdio
";

/// Makes the package in `dist`.
pub(super) fn make(
    work: &Path,
    dist: &Path,
    made: &Made,
    needs: &Needs,
    commit: &Commit,
) -> Result<PathBuf> {
    let rows = installed::rows(&Layout::new(Path::new("/usr")), made)?;
    let root = super::tree(work, "rpm", &rows, commit)?;
    let spec = work.join("qfence.spec");
    fs::write(&spec, spec_file(&root, &rows, needs))
        .with_context(|| format!("writing {}", spec.display()))?;
    let topdir = work.join("rpmbuild");
    let mut rpmbuild = shell::program("rpmbuild");
    rpmbuild
        .args(["-bb", "--quiet", "--target", &format!("{ARCH}-linux")])
        .args(["--define", &format!("_topdir {}", topdir.display())])
        .args(["--define", &format!("_rpmdir {}", dist.display())])
        .args([
            "--define",
            "_rpmfilename %{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}.rpm",
        ])
        .arg(&spec);
    let package = dist.join(format!("qfence-{VERSION}-1.{ARCH}.rpm"));
    super::run(&mut rpmbuild, commit, package)
}

fn spec_file(root: &Path, rows: &[Row], needs: &Needs) -> String {
    let mut requires = String::new();
    for (library, versions) in &needs.libraries {
        let bits = if library.starts_with("ld-linux") {
            continue;
        } else {
            "(64bit)"
        };
        // Writing to a string does not fail.
        let _ = writeln!(requires, "Requires: {library}(){bits}");
        for version in versions {
            let _ = writeln!(requires, "Requires: {library}({version}){bits}");
        }
    }
    let mut files = String::new();
    for dir in stage::directories(rows.iter().map(|row| row.path.as_path())) {
        if stage::is_own(&dir) {
            let _ = writeln!(files, "%dir \"/usr/{}\"", dir.display());
        }
    }
    for row in rows {
        let kind = if row.path.starts_with("share/doc") || row.path.starts_with("share/man") {
            "%doc "
        } else {
            ""
        };
        let _ = writeln!(files, "{kind}\"/usr/{}\"", row.path.display());
    }
    let description = DESCRIPTION.join("\n");
    let before_removal = before_removal();
    let root = root.display();
    format!(
        "{DEFINITIONS}\
         Name: qfence\nVersion: {VERSION}\nRelease: 1\nSummary: {SUMMARY}\n\
         License: (MIT OR Apache-2.0) AND (MIT OR GPL-2.0-only)\nAutoReqProv: no\nRequires: /bin/sh\n{requires}\
         \n%description\n{description}\n\
         \n%install\nmkdir -p %{{buildroot}}\ncp -a {root}/usr %{{buildroot}}/\n\
         \n%post\n{AFTER_INSTALLATION}\
         \n%preun\nif [ \"$1\" = 0 ]; then\n{before_removal}fi\n\
         \n%postun\nif [ \"$1\" = 0 ]; then\n{AFTER_REMOVAL}fi\n\
         \n%files\n%defattr(-,root,root)\n{files}"
    )
}
