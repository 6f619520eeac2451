//! What the options of a command make of profiles and rules.

use std::{ffi::OsStr, path::Path};

use anyhow::{Context as _, Result};
use nix::unistd::{Uid, getuid};
use qfence_common::Action;

use crate::{
    base::console::notify,
    cli::PolicyArgs,
    compile::shadow::{self, Shadowed},
    policy::{Dns, Loaded, Policy, profile::find::Profiles, rule::Source},
};

/// The profile of a fence that asks for none.
pub const DEFAULT_PROFILE: &str = "host";

/// The policy that the options ask for, with profiles from `directory`.
///
/// # Errors
/// If the profile is not there or not understood, or there are too many rules.
pub fn policy(options: &PolicyArgs, dns: Dns, monitor: bool, directory: &Path) -> Result<Policy> {
    let name = options.profile.as_deref();
    let profile = profile(name.unwrap_or(OsStr::new(DEFAULT_PROFILE)), directory)?;
    let given = options.rules.rules(|text| Source::Flag { text });
    let default = options.default.map(Action::from);
    Ok(Policy::new(given, dns, profile, default, monitor)?)
}

/// The profile of a name or at a path, as it is now.
///
/// # Errors
/// If it is not there, or not understood.
pub fn profile(name: &OsStr, directory: &Path) -> Result<Loaded> {
    Ok(profiles(directory).find(name)?.into())
}

/// The profiles that the caller can name. A file may be root's or the caller's, with or without sudo.
#[must_use]
pub fn profiles(directory: &Path) -> Profiles {
    let sudo = std::env::var("SUDO_UID").ok();
    let sudo = sudo.and_then(|uid| uid.parse().ok()).map(Uid::from_raw);
    Profiles::new(directory, sudo.into_iter().chain([getuid()]))
}

/// Warns of rules that can never match.
///
/// # Errors
/// If the rules cannot be compiled.
pub fn warn_of_shadowed(policy: &Policy) -> Result<()> {
    warn(&shadow::find(policy).context("cannot compile the policy")?);
    Ok(())
}

/// Warns of these.
pub fn warn(shadowed: &[Shadowed]) {
    for Shadowed { rule, by, .. } in shadowed {
        notify(format_args!(
            "warning: `{}` ({}) can never match: {by}, before it",
            rule.brief(),
            rule.source
        ));
    }
}
