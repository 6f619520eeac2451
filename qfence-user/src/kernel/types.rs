//! Reads the offsets of members of the kernel's structs from its type information (BTF, see
//! Documentation/bpf/btf.rst).
//!
//! aya-obj parses all of it, which takes 15 ms and 20 MB. This module looks up the names first, and then skips most
//! types without reading their names.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

/// The file of the kernel's type information.
pub(super) const OF_THE_KERNEL: &str = "/sys/kernel/btf/vmlinux";

/// More bytes than any kernel's. Those of distributions have about six million.
const LONGEST: u64 = 64 << 20;

const MAGIC: u16 = 0xeb9f;
const HEADER: usize = 24;

/// The kinds of types, in `info`, that have data after their header.
const INT: u32 = 1;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const FUNC_PROTO: u32 = 13;
const VAR: u32 = 14;
const DATASEC: u32 = 15;
const DECL_TAG: u32 = 17;
const ENUM64: u32 = 19;
/// The last known kind.
const LAST: u32 = ENUM64;

/// Members whose offsets are needed: struct and member.
pub(super) type Wanted<const N: usize> = [(&'static str, &'static str); N];

/// Why the offsets cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the kernel's type information, {}", path.display())]
pub(super) struct TypesError {
    path: PathBuf,
    source: Unreadable,
}

/// Why the type information cannot be used.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it does not begin as type information does")]
    NotTypes,
    #[error("the header is too short")]
    ShortHeader,
    #[error("{0} cut off")]
    CutOff(&'static str),
    #[error("a type of the unknown kind {0}")]
    UnknownKind(u32),
    #[error("there is no {0}.{1}")]
    Missing(&'static str, &'static str),
}

/// Reads the offsets of members, in bytes.
///
/// # Errors
/// If the kernel has no type information, or one of the members is missing.
pub(super) fn members_of<const N: usize>(
    path: &Path,
    wanted: &Wanted<N>,
) -> Result<[u32; N], TypesError> {
    read(path)
        .map_err(Unreadable::Io)
        .and_then(|bytes| members(&bytes, wanted))
        .map_err(|source| TypesError {
            path: path.to_owned(),
            source,
        })
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    bytes.reserve_exact(usize::try_from(length.min(LONGEST)).unwrap_or_default() + 1);
    file.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The offsets of members, from the bytes of the type information.
fn members<const N: usize>(bytes: &[u8], wanted: &Wanted<N>) -> Result<[u32; N], Unreadable> {
    let cut_off = |part| move || Unreadable::CutOff(part);
    let header = |at| word(bytes, at).ok_or_else(cut_off("the header is"));
    let magic = bytes.get(..2).and_then(|magic| magic.try_into().ok());
    if magic.map(u16::from_ne_bytes) != Some(MAGIC) {
        return Err(Unreadable::NotTypes);
    }
    let start = usize::try_from(header(4)?).map_err(|_| Unreadable::CutOff("the types are"))?;
    if start < HEADER {
        return Err(Unreadable::ShortHeader);
    }
    let part = |offset: u32, length: u32| {
        let begin = start.checked_add(usize::try_from(offset).ok()?)?;
        let end = begin.checked_add(usize::try_from(length).ok()?)?;
        bytes.get(begin..end)
    };
    let types = part(header(8)?, header(12)?).ok_or_else(cut_off("the types are"))?;
    let strings = part(header(16)?, header(20)?).ok_or_else(cut_off("the names are"))?;
    let names = names(strings, wanted);

    let mut found = [None; N];
    let mut at = 0;
    while at < types.len() && found.contains(&None) {
        let head = |offset| word(types, at + offset).ok_or_else(cut_off("a type is"));
        let (name, info) = (head(0)?, head(4)?);
        let (kind, count) = ((info >> 24) & 0x1f, (info & 0xffff) as usize);
        let behind = match kind {
            INT | VAR | DECL_TAG => 4,
            ARRAY => 12,
            STRUCT | UNION | DATASEC | ENUM64 => 12 * count,
            ENUM | FUNC_PROTO => 8 * count,
            kind if kind == 0 || kind > LAST => return Err(Unreadable::UnknownKind(kind)),
            _ => 0,
        };
        at += 12;
        if kind == STRUCT {
            let members = types
                .get(at..at + behind)
                .ok_or_else(cut_off("a struct is"))?;
            look_into(members, info >> 31 != 0, name, &names, &mut found);
        }
        at += behind;
    }
    let mut offsets = [0; N];
    for ((offset, found), (of, member)) in offsets.iter_mut().zip(found).zip(*wanted) {
        *offset = found.ok_or(Unreadable::Missing(of, member))?;
    }
    Ok(offsets)
}

/// Looks for wanted members of a struct. The first struct of a name that has the member counts.
fn look_into<const N: usize>(
    members: &[u8],
    has_bit_fields: bool,
    of: u32,
    names: &[(Option<u32>, Option<u32>); N],
    found: &mut [Option<u32>; N],
) {
    for ((of_wanted, wanted), found) in names.iter().zip(found) {
        if *of_wanted != Some(of) || found.is_some() {
            continue;
        }
        let member = members
            .chunks_exact(12)
            .find(|member| word(member, 0) == *wanted);
        let bits = member.and_then(|member| word(member, 8));
        // In a struct with bit fields the upper byte is the length of the bit field.
        let bits = bits.map(|bits| {
            if has_bit_fields {
                bits & 0xff_ffff
            } else {
                bits
            }
        });
        *found = bits.map(|bits| bits / 8);
    }
}

/// The offsets of the wanted names in the strings. Each string exists once (`btf_dedup_strings` in libbpf's btf.c).
fn names<const N: usize>(strings: &[u8], wanted: &Wanted<N>) -> [(Option<u32>, Option<u32>); N] {
    let mut names = [(None, None); N];
    let mut at = 0_usize;
    for string in strings.split(|byte| *byte == 0) {
        for ((of, member), place) in wanted.iter().zip(&mut names) {
            if string == of.as_bytes() {
                place.0 = u32::try_from(at).ok();
            }
            if string == member.as_bytes() {
                place.1 = u32::try_from(at).ok();
            }
        }
        at += string.len() + 1;
    }
    names
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(word.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: Wanted<2> = [("sock_common", "skc_net"), ("net", "rtnl")];

    #[test]
    fn what_is_no_type_information_is_an_error() {
        let whole = std::fs::read(OF_THE_KERNEL).unwrap();
        for bytes in [&[][..], &[0; 64]] {
            assert!(matches!(members(bytes, &WANTED), Err(Unreadable::NotTypes)));
        }
        let cut = members(&whole[..4096], &WANTED);
        assert!(matches!(cut, Err(Unreadable::CutOff(_))), "{cut:?}");
        let missing = members_of(Path::new("/nonexistent"), &WANTED);
        assert!(
            matches!(
                &missing,
                Err(TypesError {
                    source: Unreadable::Io(_),
                    ..
                })
            ),
            "{missing:?}"
        );
    }

    #[test]
    fn a_struct_that_is_not_there_is_named() {
        // A header, no type, and one empty string.
        let mut bytes = vec![0_u8; HEADER + 1];
        bytes[..2].copy_from_slice(&MAGIC.to_ne_bytes());
        bytes[4..8].copy_from_slice(&24_u32.to_ne_bytes());
        bytes[20..24].copy_from_slice(&1_u32.to_ne_bytes());
        let missing = members(&bytes, &WANTED);
        assert!(
            matches!(missing, Err(Unreadable::Missing("sock_common", "skc_net"))),
            "{missing:?}"
        );
    }
}
