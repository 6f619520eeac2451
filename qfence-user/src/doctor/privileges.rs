//! The privileges of this process: root, its capabilities, and the user namespace they apply to.

use std::{fs, path::Path};

use anyhow::{Context, Result};

use super::finding::Finding;

const ROOT: &str = "root";
const CAPABILITIES: &str = "capabilities";

/// The number of a capability, from linux/capability.h.
type Bit = u32;
const KILL: Bit = 5;
const SETGID: Bit = 6;
const SETUID: Bit = 7;
const NET_ADMIN: Bit = 12;
const SYS_ADMIN: Bit = 21;
const PERFMON: Bit = 38;
const BPF: Bit = 39;

/// The capabilities that replace CAP_SYS_ADMIN since Linux 5.8. (Measured: without CAP_PERFMON the verifier refuses the
/// pointer arithmetic in the compiled programs.)
const LIKE_SYS_ADMIN: [(Bit, &str); 3] = [
    (BPF, "CAP_BPF"),
    (PERFMON, "CAP_PERFMON"),
    (NET_ADMIN, "CAP_NET_ADMIN"),
];

/// The capabilities that the child needs to become the user of the command.
const TO_CHANGE_USER: [(Bit, &str); 2] = [(SETUID, "CAP_SETUID"), (SETGID, "CAP_SETGID")];

/// The privileges of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Privileges {
    /// The effective user id.
    pub uid: u32,
    /// The effective capabilities, as a bit set.
    pub effective: u64,
    /// Whether this is the initial user namespace. The BPF capabilities count only there.
    pub initial: bool,
}

impl Privileges {
    /// Reads the privileges from `self/status` and `self/uid_map` in `proc`.
    ///
    /// # Errors
    /// If a file cannot be read or parsed.
    pub fn read(proc: &Path) -> Result<Self> {
        let path = proc.join("self/status");
        let context = || format!("cannot read {}", path.display());
        let status = fs::read_to_string(&path).with_context(context)?;
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
        // Real, effective, saved and file-system user id (proc_pid_status(5)).
        let uid = field("Uid:").and_then(|ids| ids.split_whitespace().nth(1)?.parse().ok());
        let effective = field("CapEff:").and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
        let uid_map = proc.join("self/uid_map");
        // If the file does not exist, the kernel has no user namespaces.
        let map = fs::read_to_string(uid_map).unwrap_or_else(|_| "0 0 4294967295".into());
        Ok(Self {
            uid: uid.with_context(context)?,
            effective: effective.with_context(context)?,
            initial: map.split_whitespace().eq(["0", "0", "4294967295"]),
        })
    }

    /// Whether the process is root, so that checks that need root are worth trying.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// Whether the process has a capability that counts.
    fn has(&self, bit: Bit) -> bool {
        self.effective & (1 << bit) != 0
    }

    fn lacks(&self, needed: &[(Bit, &'static str)]) -> Vec<&'static str> {
        let lacking = needed.iter().filter(|(bit, _)| !self.has(*bit));
        lacking.map(|(_, name)| *name).collect()
    }

    /// Judges the privileges.
    #[must_use]
    pub fn judge(&self) -> Vec<Finding> {
        vec![self.judge_root(), self.judge_capabilities()]
    }

    fn judge_root(&self) -> Finding {
        match (self.is_root(), self.initial) {
            (true, true) => Finding::ok(ROOT, "root"),
            (true, false) => Finding::missing(
                ROOT,
                "root of a user namespace, not of the host",
                "run qfence outside of the container, or in a container that is not rootless",
            ),
            (false, _) => Finding::missing(
                ROOT,
                format!("not root, but user id {}", self.uid),
                "run qfence with sudo",
            ),
        }
    }

    fn judge_capabilities(&self) -> Finding {
        let bpf = if self.has(SYS_ADMIN) {
            Vec::new()
        } else {
            self.lacks(&LIKE_SYS_ADMIN)
        };
        let user = self.lacks(&TO_CHANGE_USER);
        let by = if self.has(SYS_ADMIN) {
            "CAP_SYS_ADMIN"
        } else {
            "CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN"
        };
        if !bpf.is_empty() {
            Finding::missing(
                CAPABILITIES,
                format!("without CAP_SYS_ADMIN and {}", bpf.join(", ")),
                "run qfence as root with CAP_SYS_ADMIN, or with CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN: \
                 a container or a service that drops them must be told to keep them",
            )
        } else if !user.is_empty() {
            Finding::missing(
                CAPABILITIES,
                format!("{by}, without {}", user.join(", ")),
                "keep CAP_SETUID and CAP_SETGID, which are needed to change to the command's user",
            )
        } else if !self.has(KILL) {
            Finding::degraded(
                CAPABILITIES,
                format!("{by}, CAP_SETUID, CAP_SETGID, without CAP_KILL"),
                "keep CAP_KILL: without it signals are not passed on to a command of another user",
            )
        } else {
            Finding::ok(
                CAPABILITIES,
                format!("{by}, CAP_SETUID, CAP_SETGID, CAP_KILL"),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::finding::State, *};

    const ALL: u64 = 0x1ff_ffff_ffff;

    fn states(privileges: Privileges) -> (State, State) {
        let findings = privileges.judge();
        (findings[0].state, findings[1].state)
    }

    fn root_without(bits: &[Bit]) -> Privileges {
        Privileges {
            uid: 0,
            effective: bits.iter().fold(ALL, |set, bit| set & !(1 << bit)),
            initial: true,
        }
    }

    #[test]
    fn root_with_everything_is_well() {
        assert_eq!(states(root_without(&[])), (State::Ok, State::Ok));
    }

    #[test]
    fn what_stands_in_for_sys_admin_is_enough_and_less_is_not() {
        assert_eq!(states(root_without(&[SYS_ADMIN])).1, State::Ok);
        assert_eq!(
            states(root_without(&[BPF, PERFMON, NET_ADMIN])).1,
            State::Ok
        );
        for (bit, name) in LIKE_SYS_ADMIN {
            let finding = &root_without(&[SYS_ADMIN, bit]).judge()[1];
            assert_eq!(finding.state, State::Missing);
            assert!(finding.found.contains(name), "{finding:?}");
        }
    }

    #[test]
    fn the_command_must_be_able_to_become_its_user() {
        for (bit, name) in TO_CHANGE_USER {
            let finding = &root_without(&[bit]).judge()[1];
            assert_eq!(finding.state, State::Missing);
            assert!(finding.found.contains(name), "{finding:?}");
        }
        assert_eq!(states(root_without(&[KILL])).1, State::Degraded);
    }

    #[test]
    fn others_and_root_of_a_container_are_told() {
        let nobody = Privileges {
            uid: 65534,
            effective: 0,
            initial: true,
        };
        assert_eq!(states(nobody), (State::Missing, State::Missing));
        let rootless = Privileges {
            initial: false,
            ..root_without(&[])
        };
        assert_eq!(states(rootless).0, State::Missing);
    }

    #[test]
    fn the_effective_ids_and_sets_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let of_self = dir.path().join("self");
        fs::create_dir(&of_self).unwrap();
        let status = "Name:\tx\nUid:\t1000\t0\t7\t8\nCapPrm:\tffff\nCapEff:\t00000000000000e0\n";
        fs::write(of_self.join("status"), status).unwrap();
        fs::write(
            of_self.join("uid_map"),
            "         0     100000      65536\n",
        )
        .unwrap();
        let expected = Privileges {
            uid: 0,
            effective: 0xe0,
            initial: false,
        };
        assert_eq!(Privileges::read(dir.path()).unwrap(), expected);
        fs::write(of_self.join("status"), "Name:\tx\n").unwrap();
        assert!(Privileges::read(dir.path()).is_err());
    }
}
