//! Reads where the kernel's own structs have their members, out of its type information (BTF, as
//! Documentation/bpf/btf.rst describes it).
//!
//! aya-obj reads all of it, which takes 15 ms and 20 MB. Here the names are looked up first, so that most types are
//! passed over without a look at theirs.

use std::{fs::File, io::Read as _, path::Path};

use anyhow::{Context, Result, ensure};

/// Where a kernel has its own type information.
pub(super) const OF_THE_KERNEL: &str = "/sys/kernel/btf/vmlinux";

/// More than any kernel's. Distributions' have some six million bytes.
const LONGEST: u64 = 64 << 20;

const MAGIC: u16 = 0xeb9f;
const HEADER: usize = 24;

/// A type's kind, in its `info`, and which of them have something behind them.
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
/// The last kind that is known.
const LAST: u32 = ENUM64;

/// The members that are asked for: struct and member.
pub(super) const WANTED: [(&str, &str); 7] = [
    ("sock_common", "skc_net"),
    ("net", "rtnl"),
    ("sock", "sk_cgrp_data"),
    ("cgroup_subsys_state", "parent"),
    ("cgroup", "self"),
    ("cgroup", "kn"),
    ("kernfs_node", "id"),
];

/// The offsets of [`WANTED`], in bytes.
pub(super) type Members = [u32; WANTED.len()];

/// The offsets of the members that are asked for.
///
/// # Errors
/// If the kernel has no type information, or it does not have one of them.
pub(super) fn members_of(path: &Path) -> Result<Members> {
    let context = || {
        format!(
            "cannot read the kernel's type information, {}",
            path.display()
        )
    };
    let mut bytes = Vec::new();
    let file = File::open(path).with_context(context)?;
    let length = file.metadata().with_context(context)?.len();
    bytes.reserve_exact(usize::try_from(length.min(LONGEST)).unwrap_or_default() + 1);
    file.take(LONGEST)
        .read_to_end(&mut bytes)
        .with_context(context)?;
    members(&bytes).with_context(context)
}

/// The offsets of the members that are asked for, by the bytes of the type information.
fn members(bytes: &[u8]) -> Result<Members> {
    let header = |at| word(bytes, at).context("the header is cut off");
    let magic = bytes.get(..2).and_then(|magic| magic.try_into().ok());
    ensure!(
        magic.map(u16::from_ne_bytes) == Some(MAGIC),
        "it does not begin as type information does"
    );
    let start = usize::try_from(header(4)?)?;
    ensure!(start >= HEADER, "the header is too short");
    let part = |offset: u32, length: u32| {
        let begin = start.checked_add(usize::try_from(offset).ok()?)?;
        let end = begin.checked_add(usize::try_from(length).ok()?)?;
        bytes.get(begin..end)
    };
    let types = part(header(8)?, header(12)?).context("the types are cut off")?;
    let strings = part(header(16)?, header(20)?).context("the names are cut off")?;
    let names = names(strings);

    let mut found = [None; WANTED.len()];
    let mut at = 0;
    while at < types.len() && found.contains(&None) {
        let head = |offset| word(types, at + offset).context("a type is cut off");
        let (name, info) = (head(0)?, head(4)?);
        let (kind, count) = ((info >> 24) & 0x1f, (info & 0xffff) as usize);
        let behind = match kind {
            INT | VAR | DECL_TAG => 4,
            ARRAY => 12,
            STRUCT | UNION | DATASEC | ENUM64 => 12 * count,
            ENUM | FUNC_PROTO => 8 * count,
            0 => anyhow::bail!("a type of no kind"),
            kind if kind > LAST => anyhow::bail!("a type of the unknown kind {kind}"),
            _ => 0,
        };
        at += 12;
        if kind == STRUCT {
            let members = types.get(at..at + behind).context("a struct is cut off")?;
            look_into(members, info >> 31 != 0, name, &names, &mut found);
        }
        at += behind;
    }
    let mut offsets = [0; WANTED.len()];
    for ((offset, found), (of, member)) in offsets.iter_mut().zip(found).zip(WANTED) {
        *offset = found.with_context(|| format!("there is no {of}.{member}"))?;
    }
    Ok(offsets)
}

/// Looks for the members of a struct that are asked for. The first struct of a name that has the member tells.
fn look_into(
    members: &[u8],
    has_bit_fields: bool,
    of: u32,
    names: &[(Option<u32>, Option<u32>); WANTED.len()],
    found: &mut [Option<u32>; WANTED.len()],
) {
    for ((of_wanted, wanted), found) in names.iter().zip(found) {
        if *of_wanted != Some(of) || found.is_some() {
            continue;
        }
        let member = members
            .chunks_exact(12)
            .find(|member| word(member, 0) == *wanted);
        let bits = member.and_then(|member| word(member, 8));
        // With bit fields the upper byte is the length of one.
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

/// Where the names that are asked for are among the strings. Each is there once (`btf_dedup_strings` in libbpf's
/// btf.c).
fn names(strings: &[u8]) -> [(Option<u32>, Option<u32>); WANTED.len()] {
    let mut names = [(None, None); WANTED.len()];
    let mut at = 0_usize;
    for string in strings.split(|byte| *byte == 0) {
        for ((of, member), place) in WANTED.iter().zip(&mut names) {
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

    #[test]
    fn what_is_no_type_information_is_an_error() {
        let whole = std::fs::read(OF_THE_KERNEL).unwrap();
        assert!(members(&[]).is_err());
        assert!(members(&[0; 64]).is_err());
        let error = members(&whole[..4096]).unwrap_err();
        assert!(error.to_string().contains("cut off"), "{error:#}");
        assert!(members_of(Path::new("/nonexistent")).is_err());
    }

    #[test]
    fn a_struct_that_is_not_there_is_named() {
        // A header, no type, and one empty string.
        let mut bytes = vec![0_u8; HEADER + 1];
        bytes[..2].copy_from_slice(&MAGIC.to_ne_bytes());
        bytes[4..8].copy_from_slice(&24_u32.to_ne_bytes());
        bytes[20..24].copy_from_slice(&1_u32.to_ne_bytes());
        let error = members(&bytes).unwrap_err();
        assert_eq!(error.to_string(), "there is no sock_common.skc_net");
    }
}
