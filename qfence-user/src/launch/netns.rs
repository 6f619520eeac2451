//! A network namespace that ip-netns(8) has named (`--netns`): this process enters it, and the command gets the files of
//! /etc/netns/NAME in /etc, as `ip netns exec` does it. The rest of /sys stays as it is: `ip netns exec` would hide cgroups.

use std::{fs, fs::File, io, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns},
};

use crate::base::{console::notify, paths::Paths};

/// Where the names are.
const NAMES: &str = "/run/netns";

/// Where the files of each are, and where they appear.
const FILES: &str = "/etc/netns";
const ETC: &str = "/etc";

const NONE: Option<&str> = None;

/// A named network namespace that this process is in.
#[derive(Clone, Debug)]
pub struct Netns {
    /// The directory of its files.
    files: PathBuf,
}

impl Netns {
    /// Moves this process into the namespace of this name. It must have one thread.
    ///
    /// # Errors
    /// If there is no such namespace, or it cannot be entered.
    pub fn enter(name: &str) -> Result<Self> {
        let is_name = !name.is_empty() && name != "." && name != ".." && !name.contains('/');
        ensure!(
            is_name,
            "--netns: {name:?} is no name of a network namespace"
        );
        let path = PathBuf::from(NAMES).join(name);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(error).with_context(|| {
                    format!("--netns: there is no network namespace {name:?} (see `ip netns`)")
                })
            }
            file => file.with_context(|| format!("--netns: cannot open {}", path.display())),
        }?;
        setns(&file, CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("--netns: cannot enter {}", path.display()))?;
        Ok(Self {
            files: PathBuf::from(FILES).join(name),
        })
    }

    /// The paths of the host, with the resolv.conf of the namespace if it has one.
    #[must_use]
    pub fn paths(&self, paths: &Paths) -> Paths {
        let own = self.files.join("resolv.conf");
        let mut paths = paths.clone();
        if own.exists() {
            paths.resolv_conf = own;
        }
        paths
    }

    /// Puts its files over those of /etc. To be called in a mount namespace of the command.
    ///
    /// # Errors
    /// If they cannot be listed. A file that cannot be put over another is reported.
    pub(in crate::launch) fn bind_files(&self) -> Result<()> {
        let entries = match fs::read_dir(&self.files) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries,
        };
        let doing = || format!("cannot list {}", self.files.display());
        for entry in entries.with_context(doing)? {
            let (from, to) = {
                let entry = entry.with_context(doing)?;
                (entry.path(), PathBuf::from(ETC).join(entry.file_name()))
            };
            if let Err(errno) = mount(Some(&from), &to, NONE, MsFlags::MS_BIND, NONE) {
                notify(format_args!(
                    "warning: the command does not have {} as {}: {}",
                    from.display(),
                    to.display(),
                    errno.desc()
                ));
            }
        }
        Ok(())
    }
}
