//! Tries the programs for network devices at the loopback device of a network namespace of its own.

use std::os::fd::AsFd as _;

use super::{HOOKS, Method, classic, tcx};
use crate::kernel::{
    trial::{Trial, TrialError},
    within::apart,
};

/// The index of the loopback device in every network namespace.
const LOOPBACK: u32 = 1;

/// Loads the programs, and attaches them by the method of this kernel. Nothing is left.
///
/// # Errors
/// If the kernel rejects one of them; see [`TrialError::in_brief`].
pub fn attempt() -> Result<Method, TrialError> {
    let mut trial = Trial::of_frames()?;
    for hook in HOOKS {
        trial.load(hook)?;
    }
    let method = Method::of_this_kernel();
    let mut programs = Vec::new();
    for hook in HOOKS {
        let program = trial.frame_program(hook)?.as_fd().try_clone_to_owned();
        programs.push((hook, program.map_err(anyhow::Error::from)?));
    }
    let attached = apart(|| {
        if method == Method::Classic {
            classic::prepare(LOOPBACK)?;
        }
        for (hook, program) in &programs {
            let way = tcx::way(*hook, false);
            match method {
                Method::Tcx => drop(tcx::attach(program, LOOPBACK, way)?),
                Method::Classic => classic::attach(program, LOOPBACK, way)?,
            }
        }
        Ok(())
    });
    attached?;
    Ok(method)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_has_the_programs() {
        assert_eq!(attempt().unwrap(), Method::of_this_kernel());
    }
}
