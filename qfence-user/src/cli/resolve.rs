//! Makes a policy of a command's options, and finds the profiles that they name.

use std::{ffi::OsStr, path::Path};

use anyhow::{Context as _, Result};
use nix::unistd::getuid;
use qfence_common::Action;

use crate::{
    base::{console::notify, identity::Callers},
    cli::PolicyArgs,
    compile::shadow::{self, Shadowed},
    policy::{Dns, Loaded, Policy, profile::find::Profiles, rule::Source},
};

/// The profile of a fence if no option selects one.
pub const DEFAULT_PROFILE: &str = "host";

/// The policy that the options define, with profiles from `directory`.
///
/// # Errors
/// If the profile does not exist or is invalid, or there are too many rules.
pub fn policy(options: &PolicyArgs, dns: Dns, monitor: bool, directory: &Path) -> Result<Policy> {
    let name = options.profile.as_deref();
    let profile = profile(name.unwrap_or(OsStr::new(DEFAULT_PROFILE)), directory)?;
    let given = options.rules.rules(|text| Source::Flag { text });
    let default = options.default.map(Action::from);
    Ok(Policy::new(given, dns, profile, default, monitor)?)
}

/// Reads the profile with this name or at this path.
///
/// # Errors
/// If it does not exist, or is invalid.
pub fn profile(name: &OsStr, directory: &Path) -> Result<Loaded> {
    Ok(profiles(directory).find(name)?.into())
}

/// The profiles that the caller can use: files of root, of the caller, and of the user who called
/// sudo, doas or pkexec.
#[must_use]
pub fn profiles(directory: &Path) -> Profiles {
    let caller = Callers::from_env().user();
    Profiles::new(directory, caller.into_iter().chain([getuid()]))
}

/// Warns of rules that can never match.
///
/// # Errors
/// If the rules cannot be compiled.
pub fn warn_of_shadowed(policy: &Policy) -> Result<()> {
    warn(&shadow::find(policy).context("cannot compile the policy")?);
    Ok(())
}

/// Warns of the given shadowed rules.
pub fn warn(shadowed: &[Shadowed]) {
    for Shadowed { rule, by, .. } in shadowed {
        notify(format_args!(
            "warning: `{}` ({}) can never match, because of earlier rules: {by}",
            rule.brief(),
            rule.source
        ));
    }
}
