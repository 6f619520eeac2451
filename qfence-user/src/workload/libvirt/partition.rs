//! The partition of a domain: the cgroup in which libvirt makes that of the domain. With systemd it is a slice, and
//! otherwise a directory that libvirt wants to exist (cgroups.html of libvirt, "Systemd cgroups integration" and
//! "Non-systemd cgroups layout").

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;

use crate::{
    fence::{
        cgroup::{is_gone, make_directory},
        hierarchy::Hierarchy,
    },
    workload::unit::ask::{self, systemctl},
};

/// The file by which D-Bus starts machined. libvirt leaves its cgroups to systemd where machined exists
/// (`virSystemdHasMachined` in src/util/virsystemd.c).
const MACHINED: [&str; 2] = [
    "usr/share/dbus-1/system-services/org.freedesktop.machine1.service",
    "run/current-system/sw/share/dbus-1/system-services/org.freedesktop.machine1.service",
];

/// Directories at the top that libvirt does not give a suffix (`virCgroupSetPartitionSuffix` in src/util/vircgroup.c).
const PLAIN: [&str; 3] = ["machine", "user", "system"];

/// A partition of one domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its path below the mount of cgroup2.
    pub path: PathBuf,
    /// The slice that it is; `None` without systemd.
    slice: Option<String>,
}

impl Partition {
    /// The partition that the XML of a domain names.
    ///
    /// # Errors
    /// If the domain has none of its own.
    pub fn of(domain: &str, named: Option<&str>, root: &Path) -> Result<Self> {
        let named = named.unwrap_or("/machine");
        let words: Vec<&str> = named.split('/').filter(|word| !word.is_empty()).collect();
        ensure!(
            words.len() >= 2 && !words.iter().any(|word| matches!(*word, "." | "..")),
            "the domain {domain} has the partition {named}, which domains share: give it one of its own, with \
             <resource><partition>/machine/{domain}</partition></resource> in its XML (`virsh edit {domain}`)"
        );
        let has_machined = MACHINED.iter().any(|file| root.join(file).exists());
        Ok(match ask::runs(root) && has_machined {
            true => Self::slice(&words),
            false => Self::directory(&words),
        })
    }

    /// `/machine/a-b` is `machine.slice/machine-a\x2db.slice` (systemd.slice(5)).
    fn slice(words: &[&str]) -> Self {
        let mut path = PathBuf::new();
        let mut name = String::new();
        for word in words {
            if !name.is_empty() {
                name.push('-');
            }
            name.push_str(&escaped(word));
            path.push(format!("{name}.slice"));
        }
        Self {
            path,
            slice: Some(format!("{name}.slice")),
        }
    }

    /// `/machine/a` is `machine/a.partition`.
    fn directory(words: &[&str]) -> Self {
        let named = words.iter().enumerate().map(|(depth, word)| {
            let is_plain = (depth == 0 && PLAIN.contains(word)) || word.contains('.');
            let suffix = if is_plain { "" } else { ".partition" };
            format!("{word}{suffix}")
        });
        Self {
            path: named.collect(),
            slice: None,
        }
    }

    /// Makes it, if it does not exist.
    ///
    /// # Errors
    /// If it cannot be made, or has processes: these are not the domain's.
    pub fn make(&self, hierarchy: &Hierarchy, root: &Path) -> Result<()> {
        let context = || format!("cannot make the partition {}", self.path.display());
        match &self.slice {
            Some(slice) => {
                systemctl(root, &["start", "--", slice]).with_context(context)?;
            }
            None => {
                let above: Vec<&Path> = self.path.ancestors().collect();
                let above = above.into_iter().rev().skip(1);
                for path in above {
                    make(&hierarchy.mount().join(path)).with_context(context)?;
                }
            }
        }
        let cgroup = hierarchy.other(&self.path);
        ensure!(
            !cgroup.is_populated().with_context(context)?,
            "the partition {} has processes already: give each domain a partition of its own",
            self.path.display()
        );
        Ok(())
    }

    /// Removes it if nothing is in it.
    ///
    /// # Errors
    /// If that fails.
    pub fn remove(&self, hierarchy: &Hierarchy, root: &Path) -> Result<()> {
        let context = || format!("cannot remove the partition {}", self.path.display());
        let directory = hierarchy.mount().join(&self.path);
        let is_used = match fs::read_dir(&directory) {
            Ok(mut entries) => entries.any(|entry| {
                entry.is_ok_and(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            }),
            Err(error) if is_gone(&error) => return Ok(()),
            Err(error) => return Err(error).with_context(context),
        };
        if is_used {
            return Ok(());
        }
        if let Some(slice) = &self.slice {
            systemctl(root, &["stop", "--", slice]).with_context(context)?;
            return Ok(());
        }
        match fs::remove_dir(&directory) {
            // Another domain was started in it.
            Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) => Ok(()),
            Err(error) if is_gone(&error) => Ok(()),
            removed => removed.with_context(context),
        }
    }
}

/// Makes a cgroup, with the controllers of the one above: libvirt limits domains by them.
fn make(directory: &Path) -> io::Result<()> {
    if let Some(above) = directory.parent() {
        let controllers = fs::read_to_string(above.join("cgroup.controllers"))?;
        for controller in controllers.split_whitespace() {
            // A controller that cannot be passed on is an error of libvirt's, for a domain that has limits of it.
            let _ = fs::write(
                above.join("cgroup.subtree_control"),
                format!("+{controller}"),
            );
        }
    }
    match make_directory(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// A word in the name of a unit, as libvirt escapes it (`virSystemdEscapeName` in src/util/virsystemd.c).
fn escaped(word: &str) -> String {
    let mut text = String::new();
    for (place, byte) in word.bytes().enumerate() {
        match byte {
            b'/' => text.push('-'),
            b'.' if place == 0 => text.push_str("\\x2e"),
            b'.' | b':' | b'_' => text.push(byte.into()),
            _ if byte.is_ascii_alphanumeric() => text.push(byte.into()),
            // Writing to a string does not fail.
            _ => drop(write!(text, "\\x{byte:02x}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(named: &str, root: &Path) -> Partition {
        Partition::of("vm", Some(named), root).unwrap()
    }

    #[test]
    fn without_systemd_a_partition_is_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        for (named, path) in [
            ("/machine/vm-1", "machine/vm-1.partition"),
            (
                "/machine/a/machine",
                "machine/a.partition/machine.partition",
            ),
            ("/guests/x.slice", "guests.partition/x.slice"),
        ] {
            assert_eq!(of(named, dir.path()).path, Path::new(path), "{named}");
        }
    }

    #[test]
    fn with_systemd_a_partition_is_a_slice() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("run/systemd/system")).unwrap();
        // Without machined, libvirt makes directories.
        assert_eq!(of("/machine/a", dir.path()).slice, None);
        let service = dir.path().join(MACHINED[0]);
        fs::create_dir_all(service.parent().unwrap()).unwrap();
        fs::write(service, "").unwrap();
        for (named, slice, path) in [
            (
                "/machine/qfvm1",
                "machine-qfvm1.slice",
                "machine.slice/machine-qfvm1.slice",
            ),
            (
                "/machine/vm-1",
                r"machine-vm\x2d1.slice",
                r"machine.slice/machine-vm\x2d1.slice",
            ),
            (
                "/machine/a/.b c",
                r"machine-a-\x2eb\x20c.slice",
                r"machine.slice/machine-a.slice/machine-a-\x2eb\x20c.slice",
            ),
        ] {
            let partition = of(named, dir.path());
            assert_eq!(partition.slice.as_deref(), Some(slice), "{named}");
            assert_eq!(partition.path, Path::new(path), "{named}");
        }
    }

    #[test]
    fn a_partition_that_domains_share_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for named in [
            None,
            Some("/machine"),
            Some("/"),
            Some("/machine/.."),
            Some(""),
        ] {
            let error = Partition::of("vm", named, dir.path()).unwrap_err();
            assert!(error.to_string().contains("which domains share"), "{error}");
        }
    }
}
