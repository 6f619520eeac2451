//! Removes the DWARF debugging information, most of an eBPF object, and the relocations of BTF. BTF itself, which the kernel
//! and aya read, is kept with its line numbers.

use anyhow::{Context as _, Result};
use object::build::elf::{Builder, Section, SectionData};

/// Relocations of BTF. Only a linker that merges sections applies them: the offsets in BTF are those in this object. They are a
/// quarter of it, and aya would parse them at each start.
const OF_LINKERS: [&[u8]; 2] = [b".rel.BTF", b".rel.BTF.ext"];

/// The object without its `.debug_*` sections, their relocations, and the symbols in them.
pub(crate) fn without_debug_info(object: &[u8]) -> Result<Vec<u8>> {
    let mut elf = Builder::read(object).context("reading the ELF file")?;
    for section in &mut elf.sections {
        let name = section.name.as_slice();
        section.delete = name.starts_with(b".debug_")
            || name.starts_with(b".rel.debug_")
            || OF_LINKERS.contains(&name);
    }
    elf.delete_orphans();
    // LLVM writes one table for the names of sections and symbols; the builder writes two.
    let names_of_sections =
        |section: &Section<'_>| matches!(section.data, SectionData::SectionString);
    if !elf.sections.iter().any(names_of_sections) {
        let table = elf.sections.add();
        table.name = ".shstrtab".into();
        table.data = SectionData::SectionString;
    }
    let mut stripped = Vec::new();
    elf.write(&mut stripped).context("writing the ELF file")?;
    Ok(stripped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use object::{Endianness, elf};

    fn add_section(builder: &mut Builder<'_>, name: &str, symbol: &str) {
        let section = builder.sections.add();
        section.name = name.as_bytes().to_vec().into();
        section.sh_type = elf::SHT_PROGBITS;
        section.sh_addralign = 1;
        section.data = SectionData::Data(b"content".to_vec().into());
        let section = section.id();
        let added = builder.symbols.add();
        added.name = symbol.as_bytes().to_vec().into();
        added.section = Some(section);
    }

    fn names(object: &[u8]) -> (Vec<String>, Vec<String>) {
        let elf = Builder::read(object).unwrap();
        let sections = elf.sections.iter().map(|section| section.name.to_string());
        let symbols = elf.symbols.iter().map(|symbol| symbol.name.to_string());
        (sections.collect(), symbols.collect())
    }

    #[test]
    fn btf_and_symbols_stay_and_dwarf_goes() {
        let mut builder = Builder::new(Endianness::Little, true);
        builder.header.e_type = elf::ET_REL;
        builder.header.e_machine = elf::EM_BPF;
        for (section, symbol) in [
            ("cgroup/connect4", "judge_connect4"),
            (".BTF", "btf"),
            (".debug_info", "info"),
            (".BTF.ext", "btf_ext"),
            (".rel.debug_info", "relocations"),
            (".rel.BTF.ext", "btf_relocations"),
        ] {
            add_section(&mut builder, section, symbol);
        }
        for (name, kind) in [
            (".symtab", SectionData::Symbol),
            (".strtab", SectionData::String),
            (".shstrtab", SectionData::SectionString),
        ] {
            let section = builder.sections.add();
            section.name = name.into();
            section.data = kind;
        }
        builder.set_section_sizes();
        let mut object = Vec::new();
        builder.write(&mut object).unwrap();

        let (sections, symbols) = names(&without_debug_info(&object).unwrap());
        assert_eq!(sections[..3], ["cgroup/connect4", ".BTF", ".BTF.ext"]);
        assert_eq!(symbols, ["judge_connect4", "btf", "btf_ext"]);
    }
}
