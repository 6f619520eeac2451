//! The paths of the host that qfence uses.

use std::path::PathBuf;

/// The paths of the host that qfence uses. Tests replace them.
#[derive(Clone, Debug)]
pub struct Paths {
    /// The mount table.
    pub mountinfo: PathBuf,
    /// The mount point of bpffs, whether it is mounted or not.
    pub bpffs: PathBuf,
    /// The directory of descriptions, policies and records.
    pub run: PathBuf,
    /// resolv.conf.
    pub resolv_conf: PathBuf,
    /// The file that names further addresses of the host.
    pub host_file: PathBuf,
    /// The directory of profiles.
    pub profiles: PathBuf,
    /// The directory of files that ask for fences of libvirt's domains.
    pub domains: PathBuf,
    /// procfs.
    pub proc: PathBuf,
    /// The executable, to run helper processes.
    pub program: PathBuf,
    /// securityfs.
    pub securityfs: PathBuf,
    /// The root of the files in which systemd, container engines and libvirt keep what they run.
    pub root: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            mountinfo: "/proc/self/mountinfo".into(),
            bpffs: "/sys/fs/bpf".into(),
            run: "/run/qfence".into(),
            resolv_conf: "/etc/resolv.conf".into(),
            host_file: "/etc/qfence/host.toml".into(),
            profiles: "/etc/qfence/profiles.d".into(),
            domains: "/etc/qfence/domains.d".into(),
            proc: "/proc".into(),
            program: "/proc/self/exe".into(),
            securityfs: "/sys/kernel/security".into(),
            root: "/".into(),
        }
    }
}
