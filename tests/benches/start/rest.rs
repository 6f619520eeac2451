//! What a fence holds of memory while its command does nothing: its supervisor's, and the kernel's for it.

use std::{path::PathBuf, thread, time::Duration};

use anyhow::{Context as _, Result};
use tests::{bench::Series, fence::Fence, memory::Memory, shell::Shell, world::World};

use crate::held::Held;

/// After this a supervisor has looked after its fence a few times, as it does every second.
const SETTLES: Duration = Duration::from_millis(2500);

/// What is in memory of a supervisor at rest.
pub(crate) const RESIDENT: &str = "resident at rest (VmRSS)";
/// All that the kernel holds for a fence.
pub(crate) const TOTAL: &str = "total";

/// What was found.
pub(crate) struct Rest {
    /// The memory of supervisors.
    pub(crate) supervisor: Series,
    /// The memory of the kernel.
    pub(crate) kernel: Series,
}

/// Starts that many fences, and looks at each. `other_build` makes them if it is given.
pub(crate) fn measure(count: usize, other_build: Option<PathBuf>) -> Result<Rest> {
    let of = if other_build.is_some() {
        ", the other build"
    } else {
        ""
    };
    let world = World::new()?;
    let mut fences = Vec::new();
    for _ in 0..count {
        let mut fence = Fence::new("rest")?.with(&["--user", "nobody"]);
        if let Some(program) = &other_build {
            fence = fence.by(program.clone());
        }
        let shell = Shell::start(fence.command(&world.host, "sh"))?;
        fences.push((shell, fence));
    }
    thread::sleep(SETTLES);
    let mut rest = Rest {
        supervisor: Series::new(format!("a supervisor's memory{of}"), "MB"),
        kernel: Series::new(format!("the kernel's memory for a fence{of}"), "kB"),
    };
    for (shell, _) in &fences {
        let memory = Memory::of(shell.started())?;
        for (variant, kb) in [
            (RESIDENT, memory.resident),
            ("of that of no file (RssAnon)", memory.anonymous),
            ("at its peak (VmHWM)", memory.peak),
        ] {
            rest.supervisor.push(variant, in_thousands(kb)?);
        }
        let Held { maps, programs } = Held::of(shell.started())?;
        for (variant, bytes) in [
            (TOTAL, maps + programs),
            ("maps", maps),
            ("programs", programs),
        ] {
            rest.kernel.push(variant, in_thousands(bytes)?);
        }
    }
    for (mut shell, _fence) in fences {
        shell.close_input();
        shell.wait_for_code()?;
    }
    Ok(rest)
}

/// A number of kB in MB, or of bytes in kB, with 1024 to the next.
fn in_thousands(number: u64) -> Result<f64> {
    let number = u32::try_from(number).context("a fence is small")?;
    Ok(f64::from(number) / 1024.0)
}
