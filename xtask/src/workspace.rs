//! Paths in the checkout.

use std::path::{Path, PathBuf};

/// The root of the workspace. xtask runs in the checkout in which it was built.
pub(crate) fn root() -> &'static Path {
    let manifest_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest_dir.parent().unwrap_or(manifest_dir)
}

/// Cargo's target directory.
pub(crate) fn target() -> PathBuf {
    root().join("target")
}

/// The tools that are built or installed for this checkout alone.
pub(crate) fn tools() -> PathBuf {
    target().join("tools")
}

/// The directory of the eBPF objects that qfence-user embeds.
pub(crate) fn ebpf_objects() -> PathBuf {
    target().join("ebpf")
}
