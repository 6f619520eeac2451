//! `policy`: checks profiles, shows the policy of a fence, and suggests a profile.

mod show;
mod suggest;

use std::ffi::OsString;

use anyhow::Result;

use super::print;
use crate::{
    base::{console::notify, paths::Paths},
    cli::{PolicyVerb, PolicyVerbs, resolve},
    compile::{compile, shadow},
    policy::{Dns, Policy, Sets, profile::Profiles},
};

/// The exit status of `check` if a profile is invalid.
const UNSOUND: u8 = 1;

/// Runs `policy`; returns the exit status.
///
/// # Errors
/// If the fence does not exist or cannot be read, or standard output cannot be written.
pub fn run(options: &PolicyVerb, paths: &Paths) -> Result<u8> {
    match &options.verb {
        PolicyVerbs::Check { profiles } => check(profiles, &resolve::profiles(&paths.profiles)),
        PolicyVerbs::Show {
            profile: Some(profile),
            ..
        } => print(resolve::profiles(&paths.profiles).text(profile)?.trim_end()).map(|()| 0),
        PolicyVerbs::Show {
            name,
            profile: None,
            json,
        } => show::run(name.as_deref().unwrap_or_default(), *json, paths).map(|()| 0),
        PolicyVerbs::Suggest {
            name,
            allowed: false,
        } => suggest::run(name, paths).map(|()| 0),
        PolicyVerbs::Suggest {
            name,
            allowed: true,
        } => suggest::run_allowed(name, paths).map(|()| 0),
    }
}

fn check(names: &[OsString], profiles: &Profiles) -> Result<u8> {
    let mut status = 0;
    for name in names {
        match check_one(name, profiles) {
            Ok(summary) => print(&summary)?,
            Err(error) => {
                notify(format_args!("error: {error:#}"));
                status = UNSOUND;
            }
        }
    }
    Ok(status)
}

/// Checks a profile; returns a line about its content.
fn check_one(name: &OsString, profiles: &Profiles) -> Result<String> {
    let profile = profiles.find(name)?;
    let place = match &profile.path {
        Some(path) => path.display().to_string(),
        None => format!("{} (shipped)", profile.name),
    };
    let destinations: usize = profile.rules.iter().map(|rule| rule.matches.len()).sum();
    let rules = profile.rules.len();
    let policy = Policy::new(Vec::new(), Dns::Auto, profile.into(), None, false)?;
    compile(&policy.rules(), &Sets::default(), false)?;
    resolve::warn(&shadow::find(&policy)?);
    Ok(format!(
        "{place}: valid; {rules} {}, {destinations} {}",
        if rules == 1 { "rule" } else { "rules" },
        if destinations == 1 {
            "destination"
        } else {
            "destinations"
        },
    ))
}
