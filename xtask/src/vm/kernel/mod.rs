//! The kernels that the machine can boot: that of its own release, and those of other suites of Debian. The root file system
//! stays that of its release; a kernel brings its modules with it.

mod archive;
mod boot;
mod initramfs;

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;

use super::{
    image::{Image, Root},
    sources::{MAIN, SECURITY},
};
use crate::{arch::Arch, shell, workspace};

/// A kernel of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kernel {
    /// That of Debian 11.
    #[value(name = "5.10")]
    V5_10,
    /// That of Debian 12, the machine's release.
    #[value(name = "6.1")]
    V6_1,
    /// That of Debian 13.
    #[value(name = "6.12")]
    V6_12,
    /// The newest that the archive has.
    Newest,
}

/// What `--kernel` can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// One kernel.
    One(Kernel),
    /// All of them, one after the other.
    All,
}

impl Kernel {
    /// All of them, from the oldest on.
    pub(crate) const ALL: [Self; 4] = [Self::V5_10, Self::V6_1, Self::V6_12, Self::Newest];

    /// Those that the tests boot by turns, beside [`Kernel::V6_1`], which they always boot.
    const BY_TURNS: [Self; 3] = [Self::V5_10, Self::V6_12, Self::Newest];

    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V5_10 => "5.10",
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::Newest => "newest",
        }
    }

    /// The kernel whose turn it is. The number of commits determines it, so that a run can be repeated.
    pub(crate) fn of_turn() -> Result<Self> {
        let mut git = shell::program("git");
        git.current_dir(workspace::root());
        git.args(["rev-list", "--count", "HEAD"]);
        if !workspace::root().join(".git").exists() {
            // Sources without their history.
            return Ok(Self::BY_TURNS[0]);
        }
        let count = shell::output(&mut git).context("counting the commits")?;
        let count: usize = count.trim().parse().context("counting the commits")?;
        Ok(Self::BY_TURNS[count % Self::BY_TURNS.len()])
    }

    /// The suites that have it, each with the label of its archive. The highest version is taken. None if it is part of the
    /// machine's image.
    fn suites(self, arch: Arch) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::V6_1 if arch == Arch::Aarch64 => {
                &[(SECURITY, "bookworm-security"), (MAIN, "bookworm")]
            }
            Self::V5_10 => &[(SECURITY, "bullseye-security"), (MAIN, "bullseye")],
            Self::V6_1 => &[],
            Self::V6_12 => &[(MAIN, "trixie"), (MAIN, "bookworm-backports")],
            Self::Newest => &[(MAIN, "sid"), (MAIN, "trixie-backports")],
        }
    }

    /// Whether a version of a package is a version of this kernel.
    fn has(self, version: &str) -> bool {
        self == Self::Newest || version.starts_with(&format!("{}.", self.name()))
    }

    /// What the machine boots with this kernel. What is missing below `dir` is made.
    pub(super) fn image(self, arch: Arch, root: Root, dir: &Path) -> Result<Image> {
        if self.suites(arch).is_empty()
            && let Some((kernel, initramfs)) = root.kernel
        {
            return Ok(Image {
                disk: root.disk,
                kernel,
                initramfs,
                modules: None,
            });
        }
        let name = self.name();
        let boot = boot::files(arch, self, &root.disk, dir)
            .with_context(|| format!("making the kernel {name} ready to boot"))?;
        ensure!(
            boot.modules.exists(),
            "the kernel {name} has no modules in {}",
            dir.display()
        );
        Ok(Image {
            disk: root.disk,
            kernel: boot.kernel,
            initramfs: boot.initramfs,
            modules: Some(boot.modules),
        })
    }
}

impl Choice {
    /// The kernels that it names.
    pub(crate) fn kernels(self) -> Vec<Kernel> {
        match self {
            Self::One(kernel) => vec![kernel],
            Self::All => Kernel::ALL.to_vec(),
        }
    }
}

impl ValueEnum for Choice {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: [Choice; 5] = [
            Choice::One(Kernel::V5_10),
            Choice::One(Kernel::V6_1),
            Choice::One(Kernel::V6_12),
            Choice::One(Kernel::Newest),
            Choice::All,
        ];
        &ALL
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        match self {
            Self::One(kernel) => kernel.to_possible_value(),
            Self::All => Some(clap::builder::PossibleValue::new("all").help("Each of them")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_names_each_kernel_and_all() {
        let names: Vec<_> = Choice::value_variants()
            .iter()
            .filter_map(Choice::to_possible_value)
            .map(|value| value.get_name().to_owned())
            .collect();
        assert_eq!(names, ["5.10", "6.1", "6.12", "newest", "all"]);
        for kernel in Kernel::ALL {
            let value = kernel.to_possible_value().unwrap();
            assert_eq!(value.get_name(), kernel.name());
            assert_eq!(Choice::One(kernel).kernels(), [kernel]);
        }
        assert_eq!(Choice::All.kernels(), Kernel::ALL);
    }

    #[test]
    fn a_version_belongs_to_one_kernel() {
        assert!(Kernel::V5_10.has("5.10.262-1"));
        assert!(!Kernel::V6_1.has("6.12.95-1~bpo12+1"));
        assert!(Kernel::V6_12.has("6.12.95-1~bpo12+1"));
        assert!(Kernel::Newest.has("7.2.13-1"));
    }
}
