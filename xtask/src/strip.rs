//! Removes from an eBPF object what a start of a fence would read for nothing: the DWARF debugging information, the
//! relocations of BTF, and BTF's line numbers. The rest of BTF stays, which the kernel and aya need.

use std::env;

use anyhow::{Context as _, Result, ensure};
use object::build::elf::{Builder, Section, SectionData};

/// Relocations of BTF. Only a linker that merges sections applies them: the offsets in BTF are those in this object. They are a
/// quarter of it, and aya would parse them at each start.
const OF_LINKERS: [&[u8]; 2] = [b".rel.BTF", b".rel.BTF.ext"];

/// The section with the line numbers.
const EXTENSION: &[u8] = b".BTF.ext";

/// If this variable is set, line numbers stay. The kernel's verifier then shows source lines in its messages.
const KEEP_LINES: &str = "QFENCE_EBPF_LINES";

/// The object without its `.debug_*` sections, their relocations, and the symbols in them; and without line numbers.
pub(crate) fn without_debug_info(object: &[u8]) -> Result<Vec<u8>> {
    strip(object, env::var_os(KEEP_LINES).is_some())
}

fn strip(object: &[u8], keeps_lines: bool) -> Result<Vec<u8>> {
    let mut elf = Builder::read(object).context("reading the ELF file")?;
    for section in &mut elf.sections {
        let name = section.name.as_slice();
        section.delete = name.starts_with(b".debug_")
            || name.starts_with(b".rel.debug_")
            || OF_LINKERS.contains(&name);
        if name == EXTENSION
            && !keeps_lines
            && let SectionData::Data(data) = &mut section.data
        {
            let shorter = without_lines(data).context("reading .BTF.ext")?;
            *data = shorter.into();
        }
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

/// A `.BTF.ext` section without its line numbers (`struct btf_ext_header` in the kernel's tools/lib/bpf/libbpf_internal.h). aya
/// copies the lines of all functions once for each function.
fn without_lines(section: &[u8]) -> Result<Vec<u8>> {
    const MAGIC: [u8; 2] = 0xeb9f_u16.to_le_bytes();
    /// The offset of the header's length in the header.
    const LENGTH: usize = 4;
    /// The offsets of two words in the header: the part's offset from the end of the header, and its length.
    const FUNCTIONS: usize = 8;
    const LINES: usize = 16;
    const RELOCATIONS: usize = 24;
    let word = |at: usize| -> Result<usize> {
        let bytes = section.get(at..at + 4).context("it is too short")?;
        Ok(u32::from_le_bytes(bytes.try_into()?).try_into()?)
    };
    ensure!(section.starts_with(&MAGIC), "it is no BTF");
    let header = word(LENGTH)?;
    ensure!(header >= RELOCATIONS, "its header is too short");
    let mut shorter = section.get(..header).context("it is too short")?.to_vec();
    for part in [FUNCTIONS, LINES, RELOCATIONS] {
        if part + 8 > header {
            break;
        }
        let (offset, length) = (word(part)?, if part == LINES { 0 } else { word(part + 4)? });
        let content = section
            .get(header + offset..header + offset + length)
            .context("a part ends beyond it")?;
        let place = u32::try_from(shorter.len() - header)?;
        shorter.extend_from_slice(content);
        for (at, value) in [(part, place), (part + 4, u32::try_from(length)?)] {
            shorter[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
    }
    Ok(shorter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use object::{Endianness, elf};

    /// A `.BTF.ext` section of three parts.
    fn extension(functions: &[u8], lines: &[u8], relocations: &[u8]) -> Vec<u8> {
        let mut section = vec![0x9f, 0xeb, 1, 0];
        let mut offset = 0;
        let mut word = |value: usize| {
            section.extend_from_slice(&u32::try_from(value).unwrap().to_le_bytes());
        };
        word(32);
        for part in [functions, lines, relocations] {
            word(offset);
            word(part.len());
            offset += part.len();
        }
        section.extend([functions, lines, relocations].concat());
        section
    }

    #[test]
    fn functions_and_relocations_stay_and_lines_go() {
        let whole = extension(b"functions", b"lines", b"relocations");
        let shorter = extension(b"functions", b"", b"relocations");
        assert_eq!(without_lines(&whole).unwrap(), shorter);
        assert_eq!(without_lines(&shorter).unwrap(), shorter);
    }

    #[test]
    fn a_part_beyond_the_end_is_an_error() {
        let whole = extension(b"functions", b"lines", b"relocations");
        for length in 0..whole.len() {
            assert!(without_lines(&whole[..length]).is_err(), "{length}");
        }
        assert!(without_lines(&[0; 64]).is_err());
    }

    fn add_section(builder: &mut Builder<'_>, name: &str, content: &[u8], symbol: &str) {
        let section = builder.sections.add();
        section.name = name.as_bytes().to_vec().into();
        section.sh_type = elf::SHT_PROGBITS;
        section.sh_addralign = 1;
        section.data = SectionData::Data(content.to_vec().into());
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
        let parts = extension(b"functions", b"lines", b"");
        for (section, symbol) in [
            ("cgroup/connect4", "judge_connect4"),
            (".BTF", "btf"),
            (".debug_info", "info"),
            (".BTF.ext", "btf_ext"),
            (".rel.debug_info", "relocations"),
            (".rel.BTF.ext", "btf_relocations"),
        ] {
            let content = if section == ".BTF.ext" {
                &parts
            } else {
                "content".as_bytes()
            };
            add_section(&mut builder, section, content, symbol);
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

        let stripped = strip(&object, false).unwrap();
        let (sections, symbols) = names(&stripped);
        assert_eq!(sections[..3], ["cgroup/connect4", ".BTF", ".BTF.ext"]);
        assert_eq!(symbols, ["judge_connect4", "btf", "btf_ext"]);
        let with_lines = strip(&object, true).unwrap();
        let has_lines = |object: &[u8]| object.windows(5).any(|bytes| bytes == b"lines");
        assert!(has_lines(&with_lines) && !has_lines(&stripped));
    }
}
