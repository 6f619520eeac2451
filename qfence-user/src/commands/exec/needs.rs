//! What a QEMU keeps under `--strict`, by its command line. Other commands keep what the options grant.

use std::{
    collections::BTreeSet,
    env,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    base::{console::notify, identity::Identity},
    confinement::{Grants, Strict, removal::removals},
    qemu::{
        executables,
        needs::{self, Kind, Setting},
    },
};

/// Adds what the command needs, if it is a QEMU. Returns the files that it will make: if they are made before, the command
/// need not be able to make files in their directory.
///
/// # Errors
/// If an option of the QEMU cannot work under these closures.
pub(super) fn add(
    command: &[OsString],
    strict: &Strict,
    identity: Option<&Identity>,
    grants: &mut Grants,
) -> Result<Vec<PathBuf>> {
    let directory = env::current_dir().context("cannot read the working directory")?;
    let mut environment: std::collections::BTreeMap<_, _> = env::vars_os().collect();
    for (name, value) in identity.iter().flat_map(|identity| &identity.environment) {
        match value {
            Some(value) => environment.insert(OsString::from(name), value.clone()),
            None => environment.remove(std::ffi::OsStr::new(name)),
        };
    }
    let setting = Setting {
        directory: &directory,
        environment: &environment,
        strict,
        resolve: &executables::resolve,
        read: &executables::read_again_later,
        kind: &kind,
    };
    let Some(found) = needs::of(command, &setting) else {
        return Ok(Vec::new());
    };
    if let Some((last, others)) = found.refused.split_last() {
        for refused in others {
            notify(format_args!("error: {refused}"));
        }
        bail!("{last}");
    }
    let Grants {
        read,
        write,
        make,
        connect,
        listen,
        environment,
        shared_memory,
    } = found.grants;
    // QEMU reports a file that is missing; there is nothing to grant.
    grants.read.extend(present(read));
    let is_output = |path: &&PathBuf| {
        let is_made = path.parent().is_some_and(|parent| make.contains(parent));
        is_made && kind(path) == Kind::Missing
    };
    let outputs = write.iter().filter(is_output).cloned().collect();
    grants.write.extend(present(write));
    grants.make.extend(present(make));
    grants.connect.extend(connect);
    grants.listen.extend(listen);
    grants.environment.extend(environment);
    grants.shared_memory |= shared_memory;
    for removal in removals(grants, names_in) {
        notify(format_args!("warning: {removal}"));
    }
    Ok(outputs)
}

fn present(paths: BTreeSet<PathBuf>) -> impl Iterator<Item = PathBuf> {
    paths.into_iter().filter(|path| kind(path) != Kind::Missing)
}

/// What a path leads to.
fn kind(path: &Path) -> Kind {
    match path.metadata() {
        Ok(found) if found.is_dir() => Kind::Directory,
        Ok(_) => Kind::File,
        Err(_) => Kind::Missing,
    }
}

/// The names in a directory, or some of them: it may have any number.
fn names_in(directory: &Path) -> io::Result<Vec<OsString>> {
    let names = directory.read_dir()?.take(MOST);
    names.map(|entry| Ok(entry?.file_name())).collect()
}

/// The most names that are looked at.
const MOST: usize = 1000;
