//! `install`: installs the programs under a prefix.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{
    build::{self, Profile},
    report,
};

/// Builds qfence-user and qfence-verify and installs them in `bin` under the prefix, below `$DESTDIR` if it is set.
pub(crate) fn install(prefix: &Path) -> Result<()> {
    let program = build::build(Profile::Release)?;
    let dir = staged(prefix, env::var_os("DESTDIR").map(PathBuf::from)).join("bin");
    // qfence-verify first: `exec --verify` needs it.
    for program in [build::verifier(&program), program] {
        let installed = put(&program, &dir).with_context(|| {
            format!(
                "installing to {dir}; if only root can write there, run\n    \
                 sudo install -D -m 755 -t {dir} {built}/qfence-user {built}/qfence-verify",
                dir = dir.display(),
                built = program.parent().unwrap_or(&program).display()
            )
        })?;
        report::note(&format!("installed {}", installed.display()));
    }
    Ok(())
}

/// The prefix below a staging directory, as used by packagers.
fn staged(prefix: &Path, destdir: Option<PathBuf>) -> PathBuf {
    match destdir {
        Some(destdir) if !destdir.as_os_str().is_empty() => {
            destdir.join(prefix.strip_prefix("/").unwrap_or(prefix))
        }
        _ => prefix.to_owned(),
    }
}

/// Copies a program to a directory and renames it into place: it is never there in part, and a running program, which
/// cannot be written to, can be replaced.
fn put(program: &Path, dir: &Path) -> Result<PathBuf> {
    let name = program.file_name().context("the program has no name")?;
    let installed = dir.join(name);
    let partial = installed.with_extension("new");
    fs::create_dir_all(dir)?;
    fs::copy(program, &partial)?;
    fs::set_permissions(&partial, fs::Permissions::from_mode(0o755))?;
    fs::rename(&partial, &installed)?;
    Ok(installed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_staging_directory_goes_before_the_prefix() {
        let prefix = Path::new("/usr/local");
        assert_eq!(staged(prefix, None), prefix);
        assert_eq!(staged(prefix, Some("".into())), prefix);
        assert_eq!(
            staged(prefix, Some("/tmp/stage".into())),
            Path::new("/tmp/stage/usr/local")
        );
    }

    #[test]
    fn a_program_is_replaced_and_executable() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("qfence-user");
        let bin = dir.path().join("usr/bin");
        for content in ["one", "two"] {
            fs::write(&program, content).unwrap();
            let installed = put(&program, &bin).unwrap();
            assert_eq!(fs::read_to_string(&installed).unwrap(), content);
            assert_eq!(
                installed.metadata().unwrap().permissions().mode() & 0o777,
                0o755
            );
        }
        assert_eq!(fs::read_dir(&bin).unwrap().count(), 1);
    }
}
