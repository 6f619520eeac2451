//! Fences with the tap device of a scene.

use anyhow::{Context as _, Result};
use qfence_user::verify::devices::row::Row;
pub(crate) use tests::tap::Bed;
use tests::{
    fence::Fence,
    run::without_sudo,
    shell::Shell,
    tap::{Scene, scene::TAP},
};

/// The MAC address of the guest, as it is given to a fence.
pub(crate) const GUEST_MAC: &str = "02:00:00:00:00:10";

/// A shell in a fence with the tap device of a scene.
pub(crate) fn fence(scene: &Scene, label: &str, options: &[&str]) -> Result<(Fence, Shell)> {
    let fence = Fence::new(label)?
        .with(&["--device", TAP, "--mac", GUEST_MAC])
        .with(options);
    let mut command = fence.command(&scene.host, "sh");
    without_sudo(&mut command);
    let shell = Shell::start(command)?;
    Ok((fence, shell))
}

/// The only row of a table with this name.
pub(crate) fn named<'a>(rows: &'a [Row], name: &str) -> Result<&'a Row> {
    rows.iter()
        .find(|row| row.name == name)
        .with_context(|| format!("no row {name}"))
}
