//! `prepare PART…`: builds or downloads the parts that end-to-end tests and guests need and that take long, and prints a
//! path for each. Run by `cargo xtask`; tests build missing parts themselves.
//!
//! | part | contents |
//! |---|---|
//! | `probe`, `probe=PROFILE` | the static program that makes probes and traffic, in a cargo profile |
//! | `image` | the Linux guest: Debian's cloud kernel and busybox, unpacked under target/guest |
//! | `engines` | podman and Docker with what they need, 250 MB, unpacked under target/guest and not installed |
//! | `cri` | a node of Kubernetes: containerd of Debian 13 with what it needs, 120 MB, likewise |
//! | `libvirt` | libvirt with what it needs, 35 MB, likewise |
//! | `lxc` | LXC with what it needs, 12 MB, likewise |
//! | `resolvers` | programs and libraries that look names up, 10 MB, likewise |
//! | `prometheus` | Debian's, 19 MB, unpacked under target/guest and not installed |

use std::{
    env,
    io::{Write as _, stdout},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail};
use tests::{
    debian::{cri, engines, libvirt, lxc, prometheus, resolvers},
    exit::exit_code,
    guest::image::image,
    probe,
};

fn main() -> ExitCode {
    let prepared = env::args().skip(1).try_for_each(|part| print(&part));
    exit_code("prepare", prepared)
}

fn print(part: &str) -> Result<()> {
    let path = prepare(part).with_context(|| format!("prepare {part}"))?;
    writeln!(stdout(), "{}", path.display()).context("write to standard output")
}

fn prepare(part: &str) -> Result<PathBuf> {
    match part.split_once('=').unwrap_or((part, "")) {
        ("probe", "") => probe::built(),
        ("probe", profile) => probe::build(profile),
        ("image", "") => Ok(image()?.initramfs),
        ("engines", "") => engines(),
        ("cri", "") => cri(),
        ("libvirt", "") => libvirt(),
        ("lxc", "") => lxc(),
        ("resolvers", "") => resolvers(),
        ("prometheus", "") => prometheus(),
        _ => bail!("unknown part"),
    }
}
