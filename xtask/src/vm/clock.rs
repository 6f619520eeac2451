//! The rate of the processor's time stamp counter. QEMU's emulated processors count its ticks, and their kernel would
//! measure the rate while it boots. On a busy machine it measures too little, down to an eighth, and its clock runs fast by
//! the same factor: then time limits in the machine end too early.

use std::{
    thread,
    time::{Duration, Instant},
};

/// How long to measure. An error of a microsecond is one of five in a million then.
const SPAN: Duration = Duration::from_millis(200);
/// How often both clocks are read. The closest reading counts, because the process can lose the processor in one.
const READINGS: usize = 200;

/// The argument of the kernel with the rate in kHz.
#[cfg(target_arch = "x86_64")]
pub(super) fn argument() -> String {
    format!(" tsc_early_khz={}", kilohertz())
}

/// The rate is known to the kernels of other processors.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn argument() -> String {
    String::new()
}

#[cfg(target_arch = "x86_64")]
fn kilohertz() -> u128 {
    let (start, first) = reading();
    thread::sleep(SPAN);
    let (end, last) = reading();
    let nanoseconds = end.duration_since(start).as_nanos();
    u128::from(last.wrapping_sub(first)) * 1_000_000 / nanoseconds
}

/// The time, and the counter at that time.
#[cfg(target_arch = "x86_64")]
fn reading() -> (Instant, u64) {
    let one = || {
        let before = Instant::now();
        // SAFETY: the instruction reads a register. Linux permits it to every process.
        let ticks = unsafe { core::arch::x86_64::_rdtsc() };
        (before.elapsed(), before, ticks)
    };
    let mut closest = one();
    for _ in 1..READINGS {
        let another = one();
        if another.0 < closest.0 {
            closest = another;
        }
    }
    (closest.1, closest.2)
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::kilohertz;

    #[test]
    fn two_measurements_agree() {
        let (one, another) = (kilohertz(), kilohertz());
        assert!(one.abs_diff(another) * 1000 < one, "{one} {another}");
    }
}
