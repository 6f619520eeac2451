//! Where on the host qfence works.

use std::path::PathBuf;

/// Where on the host qfence works; tests put other directories in.
#[derive(Clone, Debug)]
pub struct Paths {
    /// The mount table.
    pub mountinfo: PathBuf,
    /// Where bpffs is mounted, or is to be.
    pub bpffs: PathBuf,
    /// The directory of the descriptions.
    pub run: PathBuf,
    /// The file that names the nameservers.
    pub resolv_conf: PathBuf,
    /// The directory of profiles.
    pub profiles: PathBuf,
    /// Where the kernel tells of processes and of its settings.
    pub proc: PathBuf,
    /// The program itself, to be run as a helper.
    pub program: PathBuf,
    /// Where the kernel tells of its security modules.
    pub securityfs: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            mountinfo: "/proc/self/mountinfo".into(),
            bpffs: "/sys/fs/bpf".into(),
            run: "/run/qfence".into(),
            resolv_conf: "/etc/resolv.conf".into(),
            profiles: "/etc/qfence/profiles.d".into(),
            proc: "/proc".into(),
            program: "/proc/self/exe".into(),
            securityfs: "/sys/kernel/security".into(),
        }
    }
}
