//! Resource limits of a fence. They are parsed here, and set through cgroups-rs.
//!
//! Controllers are used one by one, because the crate's `apply` drops errors. Its function that enables controllers
//! also drops errors, and only uses /sys/fs/cgroup.

use std::{fs, path::Path, str::FromStr};

use anyhow::{Context, Result, ensure};
use cgroups_rs::{MaxValue, cpu::CpuController, memory::MemController, pid::PidController};

use crate::fence::{
    cgroup::{Cgroup, make_directory},
    hierarchy::{Hierarchy, PARENT},
};

/// The kernel's default period for CPU limits, in microseconds.
const DEFAULT_PERIOD: u64 = 100_000;

/// A size in bytes, such as `512M`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(i64);

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let explain = || format!("{text:?} is no size: give bytes, or a number and K, M, G or T");
        let (digits, shift) = match text.char_indices().last() {
            Some((at, 'k' | 'K')) => (&text[..at], 10),
            Some((at, 'm' | 'M')) => (&text[..at], 20),
            Some((at, 'g' | 'G')) => (&text[..at], 30),
            Some((at, 't' | 'T')) => (&text[..at], 40),
            _ => (text, 0),
        };
        let number: i64 = digits.parse().map_err(|_| explain())?;
        let bytes = number.checked_mul(1 << shift).filter(|bytes| *bytes > 0);
        bytes.map(Self).ok_or_else(explain)
    }
}

/// A share of CPU time, such as `150%` of one CPU or `150000/100000` microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuShare {
    /// Microseconds per period.
    quota: i64,
    /// Length of the period in microseconds.
    period: u64,
}

impl FromStr for CpuShare {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let explain = || {
            format!(
                "{text:?} is no share of CPU time: give a percentage of one CPU, as 150%, or \
                 microseconds a period, as 150000/100000"
            )
        };
        let share = if let Some(percent) = text.strip_suffix('%') {
            let percent: i64 = percent.parse().map_err(|_| explain())?;
            let quota = percent.checked_mul(1000).ok_or_else(explain)?;
            Self {
                quota,
                period: DEFAULT_PERIOD,
            }
        } else {
            let (quota, period) = text.split_once('/').ok_or_else(explain)?;
            let quota = quota.parse().map_err(|_| explain())?;
            Self {
                quota,
                period: period.parse().map_err(|_| explain())?,
            }
        };
        // The kernel's own bounds (`tg_set_cfs_bandwidth`): at least 1 ms of a period of at most 1 s.
        let possible = share.quota >= 1000 && (1000..=1_000_000).contains(&share.period);
        possible.then_some(share).ok_or_else(explain)
    }
}

/// The requested limits.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
#[command(next_help_heading = "Resource limits")]
pub struct Limits {
    /// The most memory the fence may use, as 512M or 2G
    #[arg(long, value_name = "SIZE")]
    pub memory_max: Option<Bytes>,
    /// The most CPU time, as 150% of one CPU, or microseconds a period, as 150000/100000
    #[arg(long, value_name = "SHARE")]
    pub cpu_max: Option<CpuShare>,
    /// The most processes and threads
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub pids_max: Option<u32>,
}

impl Limits {
    /// The controllers that the limits need, with the options that need them.
    fn controllers(&self) -> Vec<(&'static str, &'static str)> {
        [
            (self.memory_max.is_some(), ("memory", "--memory-max")),
            (self.cpu_max.is_some(), ("cpu", "--cpu-max")),
            (self.pids_max.is_some(), ("pids", "--pids-max")),
        ]
        .into_iter()
        .filter_map(|(wanted, controller)| wanted.then_some(controller))
        .collect()
    }

    /// Whether a controller is needed.
    #[must_use]
    pub fn are_any(&self) -> bool {
        !self.controllers().is_empty()
    }

    /// Checks that the hierarchy has the controllers, and enables them down to the fences, or down to the cgroup beneath
    /// which a fence is made.
    ///
    /// # Errors
    /// If one does not exist, or cannot be enabled.
    pub fn enable(&self, hierarchy: &Hierarchy, beneath: Option<&Path>) -> Result<()> {
        let directories = match beneath {
            None => vec![hierarchy.mount().to_owned(), hierarchy.parent()],
            Some(path) => {
                let above = path.ancestors().map(|path| hierarchy.mount().join(path));
                let mut above: Vec<_> = above.collect();
                above.reverse();
                above.push(hierarchy.mount().join(path).join(PARENT));
                above
            }
        };
        for (controller, option) in self.controllers() {
            let file = hierarchy.mount().join("cgroup.controllers");
            let available = fs::read_to_string(&file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            ensure!(
                available.split_whitespace().any(|name| name == controller),
                "{option} cannot be enforced: the cgroup2 hierarchy at {} has no {controller} \
                 controller (it has: {}); on a hybrid host the controller may be mounted as cgroup \
                 v1",
                hierarchy.mount().display(),
                if available.trim().is_empty() {
                    "none"
                } else {
                    available.trim()
                }
            );
            for directory in &directories {
                if beneath.is_some() && !directory.exists() {
                    make_directory(directory)
                        .with_context(|| format!("cannot make {}", directory.display()))?;
                }
                let file = directory.join("cgroup.subtree_control");
                fs::write(&file, format!("+{controller}")).with_context(|| {
                    format!(
                        "{option} cannot be enforced: cannot enable it in {}",
                        file.display()
                    )
                })?;
            }
        }
        Ok(())
    }

    /// Sets the limits on one cgroup, whose controllers are enabled.
    ///
    /// # Errors
    /// If the kernel rejects one.
    pub fn apply(&self, cgroup: &Cgroup) -> Result<()> {
        let directory = || cgroup.directory().to_owned();
        if let Some(Bytes(bytes)) = self.memory_max {
            MemController::new(directory(), true)
                .set_limit(bytes)
                .context("cannot set --memory-max")?;
        }
        if let Some(share) = self.cpu_max {
            CpuController::new(directory(), true)
                .set_cfs_quota_and_period(Some(share.quota), Some(share.period))
                .context("cannot set --cpu-max")?;
        }
        if let Some(pids) = self.pids_max {
            PidController::new(directory(), true)
                .set_pid_max(MaxValue::Value(i64::from(pids)))
                .context("cannot set --pids-max")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!("4096".parse(), Ok(Bytes(4096)));
        assert_eq!("512M".parse(), Ok(Bytes(512 << 20)));
        assert_eq!("2g".parse(), Ok(Bytes(2 << 30)));
        for bad in ["", "M", "0", "-1", "1.5G", "9999999T", "12X", "é"] {
            assert!(bad.parse::<Bytes>().is_err(), "{bad} was taken");
        }
    }

    #[test]
    fn shares() {
        assert_eq!(
            "150%".parse(),
            Ok(CpuShare {
                quota: 150_000,
                period: 100_000
            })
        );
        assert_eq!(
            "5000/10000".parse(),
            Ok(CpuShare {
                quota: 5000,
                period: 10_000
            })
        );
        for bad in ["", "%", "0%", "150", "-5%", "1/2", "1000/9999999", "max"] {
            assert!(bad.parse::<CpuShare>().is_err(), "{bad} was taken");
        }
    }
}
