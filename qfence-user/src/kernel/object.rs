//! The eBPF object with those programs only that a fence loads.
//!
//! aya parses and relocates every program of an object, each with all functions that it calls. A fence loads a third of them.

use std::collections::HashSet;

use anyhow::{Context as _, Result, ensure};
use object::{
    LittleEndian, Object as _, ObjectSection as _, ObjectSymbol as _, SymbolKind,
    elf::{SHF_EXECINSTR, SectionHeader64},
    pod::slice_from_bytes_mut,
    read::elf::{ElfFile64, FileHeader as _},
};
use qfence_common::Hook;

/// The section of the functions, which programs share.
const FUNCTIONS: &str = ".text";

/// The names of the programs of some hooks.
pub(super) fn of_hooks(hooks: &[Hook]) -> HashSet<&'static str> {
    hooks.iter().map(|hook| hook.row().program).collect()
}

/// A copy of an object in which a section of programs counts as data if none of its programs is among `wanted`. aya reads
/// programs from executable sections only. The programs that are in one section stay together.
///
/// # Errors
/// If the object cannot be parsed, or lacks a program.
pub(super) fn with_programs(object: &[u8], wanted: &HashSet<&str>) -> Result<Vec<u8>> {
    const UNREADABLE: &str = "cannot parse the eBPF object";
    let elf = ElfFile64::<LittleEndian>::parse(object).context(UNREADABLE)?;
    let mut found = HashSet::new();
    let mut kept = HashSet::new();
    for symbol in elf.symbols() {
        let name = symbol.name().context(UNREADABLE)?;
        if symbol.kind() == SymbolKind::Text && wanted.contains(name) {
            found.insert(name);
            kept.extend(symbol.section_index());
        }
    }
    for name in wanted {
        ensure!(
            found.contains(name),
            "the embedded eBPF object has no program {name}: build it with `cargo xtask build`"
        );
    }
    let mut dropped = Vec::new();
    for section in elf.sections() {
        let is_function = section.name().context(UNREADABLE)? == FUNCTIONS;
        if !is_function && !kept.contains(&section.index()) {
            dropped.push(section.index().0);
        }
    }
    let header = elf.elf_header();
    let begin = usize::try_from(header.e_shoff(LittleEndian))?;
    let count = elf.elf_section_table().len();
    let mut pruned = object.to_vec();
    let table = pruned.get_mut(begin..).context(UNREADABLE)?;
    let (headers, _) = slice_from_bytes_mut::<SectionHeader64<LittleEndian>>(table, count)
        .ok()
        .context(UNREADABLE)?;
    for index in dropped {
        let flags = &mut headers.get_mut(index).context(UNREADABLE)?.sh_flags;
        flags.set(
            LittleEndian,
            flags.get(LittleEndian) & !u64::from(SHF_EXECINSTR),
        );
    }
    Ok(pruned)
}

#[cfg(test)]
mod tests {
    use aya_obj::Object;

    use super::*;
    use crate::kernel::{LOCAL_IN_OBJECT, OBJECT, TRACING_OBJECT, listing};

    fn programs(object: &[u8]) -> HashSet<String> {
        let object = Object::parse(object).unwrap();
        object.programs.keys().cloned().collect()
    }

    #[test]
    fn only_sections_with_a_program_that_is_wanted_remain() {
        for object in [OBJECT, TRACING_OBJECT] {
            let all = programs(object);
            let wanted = HashSet::from(["judge_ingress", "judge_egress"]);
            let left = programs(&with_programs(object, &wanted).unwrap());
            assert_eq!(left, wanted.iter().map(|name| (*name).to_owned()).collect());
            assert!(all.len() > 20 && all.is_superset(&left), "{all:?}");
        }
    }

    #[test]
    fn programs_in_one_section_stay_together() {
        let wanted = of_hooks(&[Hook::Frame]);
        let left = programs(&with_programs(OBJECT, &wanted).unwrap());
        assert!(left.contains("judge_frame") && left.contains("note_frame"));
        assert!(!left.contains("judge_connect4"));
    }

    #[test]
    fn with_all_programs_nothing_changes() {
        let hooks = Hook::ALL.into_iter().chain(Hook::LSM);
        let mut wanted: HashSet<_> = hooks.map(|hook| hook.row().program).collect();
        wanted.extend(of_hooks(&crate::kernel::device::HOOKS));
        wanted.extend(listing::PROGRAMS);
        assert!(with_programs(OBJECT, &wanted).unwrap() == OBJECT);
    }

    #[test]
    fn the_functions_and_maps_of_an_object_stay() {
        let whole = Object::parse(OBJECT).unwrap();
        let wanted = HashSet::from(["judge_connect4"]);
        let pruned = Object::parse(&with_programs(OBJECT, &wanted).unwrap()).unwrap();
        assert_eq!(pruned.maps.len(), whole.maps.len());
        assert!(pruned.functions.len() > 50);
    }

    #[test]
    fn a_program_that_an_object_lacks_is_an_error() {
        let wanted = HashSet::from(["judge_nothing"]);
        for object in [OBJECT, LOCAL_IN_OBJECT] {
            let error = with_programs(object, &wanted).unwrap_err().to_string();
            assert!(error.contains("judge_nothing"), "{error}");
        }
    }

    #[test]
    fn bytes_that_are_no_object_are_an_error() {
        assert!(with_programs(b"", &HashSet::new()).is_err());
        assert!(with_programs(OBJECT.get(..64).unwrap(), &HashSet::new()).is_err());
    }
}
