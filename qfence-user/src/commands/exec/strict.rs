//! What `--strict` closes for this command, and what the command keeps: options, the command itself, the host.

use std::{
    ffi::OsString,
    fs::OpenOptions,
    io::Read as _,
    mem,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{libc, unistd::Gid};

use super::{
    needs,
    words::{check_grants, step},
};
use crate::{
    base::identity::Identity,
    cli::Exec,
    confinement::{AbstractNames, Closure, Grants, Strict},
    launch::{
        child::{Wanted, lacking},
        environment::Environment,
        files::{Files, make_output, scratch::Scratch},
    },
    qemu::executables,
};

/// The closures of a command, and what they need on the host.
#[derive(Debug, Default)]
pub(super) struct Confinement {
    pub(super) strict: Strict,
    pub(super) grants: Grants,
    pub(super) environment: Environment,
    /// The command's directory for temporary files, which exists as long as this value.
    pub(super) scratch: Option<Scratch>,
    files: Option<Files>,
    /// Files that the command will make, and that are made before.
    outputs: Vec<PathBuf>,
}

impl Confinement {
    /// Makes and opens the command's files. A signal that ended this process here would leave them.
    ///
    /// # Errors
    /// If something that was granted cannot be opened.
    pub(super) fn open(&mut self, options: &Exec, identity: Option<&Identity>) -> Result<()> {
        for path in mem::take(&mut self.outputs) {
            make_output(&path, identity)
                .with_context(|| format!("cannot make {}", path.display()))?;
            self.grants.write.insert(path);
        }
        if self.strict.has(Closure::Files) {
            let scratch = Scratch::new(identity)?;
            self.environment.set_temporary(scratch.path().as_os_str());
            let files = Files::open(&self.grants, scratch.path());
            self.files = Some(files.context("files cannot be closed (--strict=files)")?);
            self.scratch = Some(scratch);
        }
        describe(options, &self.strict, &self.grants);
        Ok(())
    }

    /// Takes what the child needs.
    pub(super) fn wanted(&mut self, options: &Exec) -> Wanted {
        Wanted {
            allow_compat_sockopt: options.allow_compat_sockopt,
            allow_processes: options.allow_foreign_netns,
            strict: self.strict.clone(),
            files: self.files.take(),
            scope_abstract: self.strict.has(Closure::Sockets)
                && self.grants.abstract_names() == AbstractNames::Scoped,
            keep_shared_memory: self.grants.shared_memory,
        }
    }
}

/// Determines the closures. Removes groups that the command does not keep.
///
/// # Errors
/// If options contradict each other, this kernel lacks a closure, or the command cannot work under one.
pub(super) fn settle(
    options: &Exec,
    command: &[OsString],
    identity: &mut Option<Identity>,
) -> Result<Confinement> {
    let strict = options.confinement.strict();
    if let Some(option) = options.confinement.without_effect() {
        bail!("{option} has no effect without --strict");
    }
    check_grants(options)?;
    let of_user = identity
        .as_ref()
        .map(|identity| identity.environment.clone());
    let mut environment = Environment::of_user(of_user.unwrap_or_default());
    if strict.is_empty() {
        return Ok(Confinement {
            environment,
            grants: options.confinement.grants(),
            ..Confinement::default()
        });
    }
    refuse_contradictions(options, &strict)?;
    refuse_lacking(&strict)?;
    let mut grants = options.confinement.grants();
    let program = options
        .command
        .first()
        .and_then(|name| executables::resolve(name));
    if let Some(program) = &program {
        if strict.has(Closure::Syscalls) || strict.has(Closure::Processes) {
            refuse_32_bits(program)?;
        }
        grants.read.insert(std::path::absolute(program)?);
    }
    let outputs = needs::add(command, &strict, identity.as_ref(), &mut grants)?;
    if strict.has(Closure::Rights) {
        let named = options.confinement.environment().iter().cloned();
        let granted = grants.environment.iter().map(|name| (*name).to_owned());
        environment.keep_only(named.chain(granted));
        if let Some(identity) = identity {
            keep_groups(identity, &grants);
        }
    }
    Ok(Confinement {
        strict,
        grants,
        environment,
        outputs,
        ..Confinement::default()
    })
}

/// Refuses options that open what `--strict` closes.
fn refuse_contradictions(options: &Exec, strict: &Strict) -> Result<()> {
    let given = [
        (
            options.allow_foreign_netns,
            "--allow-foreign-netns",
            Closure::Processes,
        ),
        (
            options.allow_foreign_netns,
            "--allow-foreign-netns",
            Closure::Files,
        ),
        (options.allow_bus, "--allow-bus", Closure::Sockets),
        (
            options.allow_compat_sockopt,
            "--allow-compat-sockopt",
            Closure::Syscalls,
        ),
        (
            options.allow_compat_sockopt,
            "--allow-compat-sockopt",
            Closure::Processes,
        ),
        (
            options.allow_unfenced_net,
            "--allow-unfenced-net",
            Closure::Devices,
        ),
    ];
    for (is_given, option, closure) in given {
        ensure!(
            !is_given || !strict.has(closure),
            "{option} opens what --strict={closure} closes: leave out one of them, or give --strict a list \
             without {closure}"
        );
    }
    Ok(())
}

/// Refuses closures that this kernel does not support.
fn refuse_lacking(strict: &Strict) -> Result<()> {
    let lacks = lacking(strict);
    if lacks.is_empty() {
        return Ok(());
    }
    let words: Vec<_> = lacks
        .iter()
        .map(|(closure, needs)| format!("{closure} ({needs})"))
        .collect();
    let closures: Vec<_> = lacks.iter().map(|(closure, _)| *closure).collect();
    bail!(
        "--strict: this kernel cannot close {}; {}",
        words.join(", "),
        strict.advice(&closures)
    );
}

/// Refuses a 32-bit executable, which the filter of system calls would kill at its first call.
fn refuse_32_bits(program: &Path) -> Result<()> {
    // The class is the fifth byte of an ELF file (elf(5)).
    let mut header = [0; 5];
    // A FIFO is not waited for.
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(program);
    let is_read = opened.is_ok_and(|mut file| file.read_exact(&mut header).is_ok());
    ensure!(
        !is_read || header != *b"\x7fELF\x01",
        "{}: 32-bit executables do not run under --strict=syscalls or processes; give --strict a list without these",
        program.display()
    );
    Ok(())
}

/// Keeps the groups of files and devices that were granted; the primary group stays in any case.
fn keep_groups(identity: &mut Identity, grants: &Grants) {
    let granted = grants.read.iter().chain(&grants.write).chain(&grants.make);
    let kvm = PathBuf::from("/dev/kvm");
    let owner = |path: &PathBuf| Some(Gid::from_raw(path.metadata().ok()?.gid()));
    let owners: Vec<_> = granted.chain([&kvm]).filter_map(owner).collect();
    let primary = identity.gid;
    identity
        .groups
        .retain(|group| *group == primary || (group.as_raw() != 0 && owners.contains(group)));
}

/// Prints what the command keeps, if the user has requested steps.
fn describe(options: &Exec, strict: &Strict, grants: &Grants) {
    if strict.is_empty() {
        return;
    }
    step(options, format_args!("closed for the command: {strict}"));
    let paths = |paths: &std::collections::BTreeSet<PathBuf>| {
        let words: Vec<_> = paths
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        words.join(" ")
    };
    if strict.has(Closure::Files) {
        step(
            options,
            format_args!(
                "the command can read public files, and: {}",
                paths(&grants.read)
            ),
        );
        step(
            options,
            format_args!("the command can change: {}", paths(&grants.write)),
        );
        if !grants.make.is_empty() {
            step(
                options,
                format_args!("the command can make sockets in: {}", paths(&grants.make)),
            );
        }
    }
}
