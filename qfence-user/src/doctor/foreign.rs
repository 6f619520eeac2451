//! Programs that others have attached to the cgroups above the fences.

use std::{fs::File, io, path::PathBuf};

use anyhow::{Context, Result};
use aya::programs::loaded_programs;
use qfence_common::Hook;

use super::finding::Finding;
use crate::{
    base::printable::printable,
    fence::hierarchy::Hierarchy,
    kernel::query::{Attached, Sharing, attached},
};

const NAME: &str = "foreign programs";

/// The programs attached to a cgroup above the fences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ancestor {
    /// The directory of the cgroup.
    pub directory: PathBuf,
    /// The programs at one hook.
    pub attached: Attached,
}

/// Queries every cgroup that contains all fences, for every hook.
///
/// # Errors
/// If the query fails.
pub fn examine(hierarchy: &Hierarchy) -> Result<Vec<Finding>> {
    // From the nearest up, in the kernel's order.
    let mut directories = vec![hierarchy.parent(), hierarchy.mount().to_owned()];
    directories.retain(|directory| directory.exists());
    let mut findings = Vec::new();
    for hook in Hook::ALL {
        let mut ancestors = Vec::new();
        for directory in &directories {
            let context = || {
                format!(
                    "cannot query the programs of {} for {}",
                    directory.display(),
                    hook.name()
                )
            };
            let cgroup = File::open(directory).with_context(context)?;
            let attached = match attached(&cgroup, hook) {
                // This kernel does not have the hook, so nothing is attached at it.
                Err(error) if hook.row().is_optional && is_invalid(&error) => continue,
                attached => attached.with_context(context)?,
            };
            ancestors.push(Ancestor {
                directory: directory.clone(),
                attached,
            });
        }
        findings.extend(judge(hook, &ancestors, &name_of));
    }
    if findings.is_empty() {
        let searched: Vec<String> = directories
            .iter()
            .map(|directory| directory.display().to_string())
            .collect();
        findings.push(Finding::ok(
            NAME,
            format!("none at {}", searched.join(" and ")),
        ));
    }
    Ok(findings)
}

fn is_invalid(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidInput
}

/// Judges the programs at one hook of the ancestors of a fence, the nearest first. No finding if there are none.
///
/// The nearest ancestor that allows multiple programs, or has a program, decides for those above it too
/// (`hierarchy_allows_attach` in kernel/bpf/cgroup.c).
fn judge(
    hook: Hook,
    ancestors: &[Ancestor],
    name_of: &dyn Fn(u32) -> Option<String>,
) -> Option<Finding> {
    let name = format!("{NAME}: {}", hook.name());
    let mut occupied = ancestors
        .iter()
        .filter(|ancestor| !ancestor.attached.programs.is_empty())
        .peekable();
    occupied.peek()?;
    let list: Vec<String> = occupied
        .map(|ancestor| {
            let programs: Vec<String> = ancestor
                .attached
                .programs
                .iter()
                .map(|id| {
                    name_of(*id).map_or_else(|| id.to_string(), |name| format!("{id} {name}"))
                })
                .collect();
            format!(
                "{} at {}",
                programs.join(", "),
                ancestor.directory.display()
            )
        })
        .collect();
    let list = list.join("; ");
    let decides = ancestors.iter().find(|ancestor| {
        ancestor.attached.sharing == Sharing::Multi || !ancestor.attached.programs.is_empty()
    })?;
    let place = decides.directory.display();
    Some(match decides.attached.sharing {
        Sharing::Exclusive => Finding::missing(
            name,
            format!(
                "{list}; attached without flags, which forbids other programs in the cgroups below"
            ),
            format!(
                "attach it with BPF_F_ALLOW_MULTI, or detach it: `bpftool cgroup \
                 detach {place} {} id ID`",
                hook.name()
            ),
        ),
        Sharing::Override => Finding::degraded(
            name,
            format!("{list}; a fence's program replaces it for the fence (BPF_F_ALLOW_OVERRIDE)"),
            "if it should also apply to processes in fences, attach it with \
             BPF_F_ALLOW_MULTI",
        ),
        Sharing::Multi if hook.row().may_redirect => Finding::degraded(
            name,
            format!("{list}; it runs after qfence's, and may change the destination of a call"),
            "check its purpose (`bpftool prog show id ID`): if it changes an address to the \
             host's, the packet is refused instead of the call",
        ),
        Sharing::Multi => Finding::ok(name, format!("{list}; it runs beside qfence's")),
    })
}

fn name_of(id: u32) -> Option<String> {
    let program = loaded_programs().flatten().find(|info| info.id() == id)?;
    let name = printable(program.name());
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::{super::finding::State, *};

    fn at(directory: &str, programs: &[u32], sharing: Sharing) -> Ancestor {
        Ancestor {
            directory: directory.into(),
            attached: Attached {
                programs: programs.to_vec(),
                sharing,
            },
        }
    }

    fn judged(ancestors: &[Ancestor]) -> Option<Finding> {
        judge(Hook::Connect4, ancestors, &|id| {
            (id == 7).then(|| "cil_sock4".to_owned())
        })
    }

    #[test]
    fn nothing_attached_is_nothing_found() {
        let none = [
            at("/cg/qfence", &[], Sharing::Exclusive),
            at("/cg", &[], Sharing::Exclusive),
        ];
        assert_eq!(judged(&none), None);
    }

    #[test]
    fn an_exclusive_one_above_blocks_and_is_named() {
        let finding = judged(&[
            at("/cg/qfence", &[], Sharing::Exclusive),
            at("/cg", &[7], Sharing::Exclusive),
        ])
        .unwrap();
        assert_eq!(finding.state, State::Missing);
        assert!(
            finding.found.starts_with("7 cil_sock4 at /cg;"),
            "{finding:?}"
        );
        assert!(finding.fix.unwrap().contains("detach /cg connect4"));
    }

    #[test]
    fn the_nearest_decides() {
        let shared = judged(&[
            at("/cg/qfence", &[3], Sharing::Multi),
            at("/cg", &[7], Sharing::Exclusive),
        ]);
        assert_eq!(shared.unwrap().state, State::Degraded);
        // Allows multiple programs but has none: the state after a program with that flag was detached.
        let shared = judged(&[
            at("/cg/qfence", &[], Sharing::Multi),
            at("/cg", &[7], Sharing::Exclusive),
        ]);
        assert_eq!(shared.unwrap().state, State::Degraded);
        let exclusive = judged(&[
            at("/cg/qfence", &[3], Sharing::Exclusive),
            at("/cg", &[7], Sharing::Multi),
        ]);
        assert_eq!(exclusive.unwrap().state, State::Missing);
    }

    #[test]
    fn one_that_gives_way_is_told() {
        let finding = judged(&[at("/cg", &[9], Sharing::Override)]).unwrap();
        assert_eq!(finding.state, State::Degraded);
        assert!(finding.found.starts_with("9 at /cg;"), "{finding:?}");
    }
}
