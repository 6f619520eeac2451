//! What a fence holds of memory while its command does nothing: its supervisor's, and the kernel's for it.

use std::{thread, time::Duration};

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

/// Starts that many fences, and looks at each.
pub(crate) fn measure(count: usize) -> Result<Rest> {
    let world = World::new()?;
    let mut fences = Vec::new();
    for _ in 0..count {
        let fence = Fence::new("rest")?.with(&["--user", "nobody"]);
        let shell = Shell::start(fence.command(&world.host, "sh"))?;
        fences.push((shell, fence));
    }
    thread::sleep(SETTLES);
    let mut rest = Rest {
        supervisor: Series::new("a supervisor's memory", "MB"),
        kernel: Series::new("the kernel's memory for a fence", "kB"),
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
