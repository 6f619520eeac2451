//! The processors for which qfence is built, and their names in Rust, Debian and QEMU.

use std::env::consts::ARCH;

use clap::ValueEnum;

/// A processor architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arch {
    /// 64-bit x86.
    #[value(name = "x86_64")]
    X86_64,
    /// 64-bit ARM.
    #[value(name = "aarch64")]
    Aarch64,
}

impl Arch {
    /// Rust's name, which is also that of QEMU.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// Debian's name.
    pub(crate) fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// Rust's target.
    pub(crate) fn target(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-gnu",
            Self::Aarch64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// Whether it is the architecture of this machine, whose programs need no other compiler.
    pub(crate) fn is_here(self) -> bool {
        self.name() == ARCH
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_on_the_command_line_is_that_of_rust() {
        for arch in Arch::value_variants() {
            assert_eq!(arch.to_possible_value().unwrap().get_name(), arch.name());
            assert!(arch.target().starts_with(arch.name()));
        }
        let here = Arch::value_variants().iter().filter(|arch| arch.is_here());
        assert_eq!(here.count(), 1);
    }
}
