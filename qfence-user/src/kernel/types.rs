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
/// It has no data after its header; in the place of a size it has the number of its `FUNC_PROTO`.
const FUNC: u32 = 12;
const FUNC_PROTO: u32 = 13;
const VAR: u32 = 14;
const DATASEC: u32 = 15;
const DECL_TAG: u32 = 17;
const ENUM64: u32 = 19;
/// The last known kind.
const LAST: u32 = ENUM64;

/// The members whose offsets are needed: struct and member; or of an enum, the constants whose values are needed; or the
/// functions whose numbers are needed, with the name of their last parameter; or the structs whose numbers are needed. Older
/// kernels lack some of them.
pub(super) const WANTED: [(&str, &str); 66] = [
    ("sock_common", "skc_net"),
    ("net", "rtnl"),
    ("sock", "sk_cgrp_data"),
    ("cgroup_subsys_state", "parent"),
    ("cgroup", "self"),
    ("cgroup", "kn"),
    ("kernfs_node", "id"),
    ("bpf_sock_addr_kern", "uaddr"),
    ("bpf_sock_addr_kern", "uaddrlen"),
    ("task_struct", "fs"),
    ("fs_struct", "root"),
    ("path", "mnt"),
    ("path", "dentry"),
    ("socket", "sk"),
    ("sock", "sk_type"),
    ("unix_sock", "addr"),
    ("unix_address", "len"),
    ("unix_address", "name"),
    ("kernfs_node", "name"),
    ("nf_hook_state", "in"),
    ("nf_hook_state", "pf"),
    ("net_device", "ifindex"),
    ("sk_buff", "tc_index"),
    ("sk_buff", "mark"),
    ("sk_buff", "skb_iif"),
    ("sk_buff", "dev"),
    ("sk_buff", "head"),
    ("sk_buff", "tail"),
    ("sk_buff", "mac_header"),
    ("sk_buff", "network_header"),
    ("sk_buff", "transport_header"),
    ("sk_buff", "data"),
    ("sk_buff", "csum_start"),
    ("sk_buff", "csum_offset"),
    ("sk_buff", "ip_summed"),
    ("task_struct", "cgroups"),
    ("css_set", "dfl_cgrp"),
    ("task_struct", "tgid"),
    ("task_struct", "pid"),
    ("task_struct", "comm"),
    ("task_struct", "cred"),
    ("cred", "uid"),
    ("sock_common", "skc_family"),
    ("sock_common", "skc_state"),
    ("sock_common", "skc_num"),
    ("sock", "sk_protocol"),
    ("net", "net_cookie"),
    ("sock_common", "skc_flags"),
    ("sock_flags", "SOCK_BROADCAST"),
    ("sock_common", "skc_cookie"),
    ("inet_sock", "mc_index"),
    ("inet_sock", "pinet6"),
    ("ipv6_pinfo", "mcast_oif"),
    ("tcp_sock", "snd_nxt"),
    ("tcp_sock", "snd_una"),
    ("tcp_sock", "write_seq"),
    ("tcp_sock", "bytes_acked"),
    ("tcp_sock", "bytes_sent"),
    ("tcp_sock", "bytes_retrans"),
    ("mptcp_sock", "first"),
    ("file", "f_inode"),
    ("inode", "i_mode"),
    ("inode", "i_rdev"),
    ("bpf_cast_to_kern_ctx", "obj"),
    ("bpf_rdonly_cast", "btf_id__k"),
    ("ethhdr", ITSELF),
];

/// Not a member of a struct, but the number of the struct.
pub(super) const ITSELF: &str = "";

/// How many unnamed structs and unions are opened, one in another, on the way to a member.
const DEEPEST: u32 = 4;

/// The name of what has no name: the first string is empty.
const UNNAMED: u32 = 0;

/// The offsets of names in the strings: struct and member, as in [`WANTED`].
type Names = [(Option<u32>, Option<u32>); WANTED.len()];

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
}

/// The offsets of [`WANTED`], in bytes, or in bits for bit fields; or the numbers; `None` for what this kernel does not have.
pub(super) type Members = [Option<u32>; WANTED.len()];

/// Reads the offsets of the members in [`WANTED`].
///
/// # Errors
/// If the kernel has no type information.
pub(super) fn members_of(path: &Path) -> Result<Members, TypesError> {
    read(path)
        .map_err(Unreadable::Io)
        .and_then(|bytes| members(&bytes))
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

/// The offsets of the members in [`WANTED`], from the bytes of the type information.
fn members(bytes: &[u8]) -> Result<Members, Unreadable> {
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
    let names = names(strings);

    let all = All::of(types, &names)?;
    let mut found = [None; WANTED.len()];
    for ((place, (of, member)), (_, wanted)) in found.iter_mut().zip(names).zip(WANTED) {
        let Some(of) = of else {
            continue;
        };
        // The first struct of a name that has the member counts.
        let offset_of = |member| {
            let structs = all.wanted.iter().filter(|(name, _)| *name == of);
            let mut found = structs.filter_map(|(_, at)| all.member(*at, member, 0));
            found.next().map(Offset::number)
        };
        *place = match wanted {
            ITSELF => all.number_of_struct(of),
            _ => member.and_then(offset_of),
        };
    }
    Ok(found)
}

/// All types, and the wanted structs among them.
struct All<'a> {
    types: &'a [u8],
    /// The position of each type, by its number less one.
    positions: Vec<usize>,
    /// The structs that have wanted members: name and position.
    wanted: Vec<(u32, usize)>,
}

impl<'a> All<'a> {
    fn of(types: &'a [u8], names: &Names) -> Result<Self, Unreadable> {
        let cut_off = |part| move || Unreadable::CutOff(part);
        let mut all = Self {
            types,
            positions: Vec::new(),
            wanted: Vec::new(),
        };
        let mut at = 0;
        while at < types.len() {
            let head = |offset| word(types, at + offset).ok_or_else(cut_off("a type is"));
            let (name, info) = (head(0)?, head(4)?);
            let (kind, count) = kind_and_count(info);
            let behind = match kind {
                INT | VAR | DECL_TAG => 4,
                ARRAY => 12,
                STRUCT | UNION | DATASEC | ENUM64 => 12 * count,
                ENUM | FUNC_PROTO => 8 * count,
                kind if kind == 0 || kind > LAST => return Err(Unreadable::UnknownKind(kind)),
                _ => 0,
            };
            if matches!(kind, STRUCT | ENUM | FUNC) {
                if types.len() < at + 12 + behind {
                    return Err(Unreadable::CutOff("a type is"));
                }
                if names.iter().any(|(of, _)| *of == Some(name)) {
                    all.wanted.push((name, at));
                }
            }
            all.positions.push(at);
            at += 12 + behind;
        }
        Ok(all)
    }

    /// The offset of a member in the struct or union at a position. Members of unnamed structs and unions in it
    /// are its own members, as in C.
    fn member(&self, at: usize, wanted: u32, depth: u32) -> Option<Offset> {
        let info = word(self.types, at + 4)?;
        let (kind, count) = kind_and_count(info);
        if kind == ENUM {
            return self.constant(at, count, wanted);
        }
        if kind == FUNC {
            return self.function(at, wanted);
        }
        if !matches!(kind, STRUCT | UNION) {
            return None;
        }
        let members = self.types.get(at + 12..at + 12 + 12 * count)?;
        for member in members.chunks_exact(12) {
            let bits = word(member, 8)?;
            // In a struct with bit fields the upper byte is the length of the bit field.
            let (bits, length) = if info >> 31 != 0 {
                (bits & 0xff_ffff, bits >> 24)
            } else {
                (bits, 0)
            };
            let name = word(member, 0)?;
            if name == wanted {
                return Some(Offset {
                    bits,
                    is_of_bits: length != 0,
                });
            }
            if name == UNNAMED && depth < DEEPEST {
                let number = usize::try_from(word(member, 4)?).ok()?;
                let at = self.positions.get(number.checked_sub(1)?);
                if let Some(within) = self.member(*at?, wanted, depth + 1) {
                    return Some(Offset {
                        bits: bits + within.bits,
                        ..within
                    });
                }
            }
        }
        None
    }
}

impl All<'_> {
    /// The value of a constant of the enum at a position.
    fn constant(&self, at: usize, count: usize, wanted: u32) -> Option<Offset> {
        let constants = self.types.get(at + 12..at + 12 + 8 * count)?;
        let mut constants = constants.chunks_exact(8);
        let constant = constants.find(|constant| word(constant, 0) == Some(wanted))?;
        Some(Offset {
            bits: word(constant, 4)?,
            is_of_bits: true,
        })
    }

    /// The number of the function at a position, if its last parameter has this name.
    fn function(&self, at: usize, wanted: u32) -> Option<Offset> {
        let number = usize::try_from(word(self.types, at + 8)?).ok()?;
        let parameters = *self.positions.get(number.checked_sub(1)?)?;
        let (kind, count) = kind_and_count(word(self.types, parameters + 4)?);
        if kind != FUNC_PROTO {
            return None;
        }
        let last = parameters + 12 + 8 * count.checked_sub(1)?;
        if word(self.types, last) != Some(wanted) {
            return None;
        }
        Some(Offset {
            bits: self.number(at)?,
            is_of_bits: true,
        })
    }

    /// The number of the struct of this name.
    fn number_of_struct(&self, wanted: u32) -> Option<u32> {
        let is_it = |(name, at): &&(u32, usize)| {
            let kind = word(self.types, at + 4).map(|info| kind_and_count(info).0);
            *name == wanted && kind == Some(STRUCT)
        };
        let (_, at) = self.wanted.iter().find(is_it)?;
        self.number(*at)
    }

    /// The number of the type at a position.
    fn number(&self, at: usize) -> Option<u32> {
        let index = self.positions.binary_search(&at).ok()?;
        u32::try_from(index + 1).ok()
    }
}

/// The offset of a member, the value of a constant, or the number of a function.
#[derive(Clone, Copy)]
struct Offset {
    bits: u32,
    /// Whether it is a bit field.
    is_of_bits: bool,
}

impl Offset {
    /// The number in [`Members`].
    fn number(self) -> u32 {
        if self.is_of_bits {
            self.bits
        } else {
            self.bits / 8
        }
    }
}

/// The kind of a type, and the number of its members.
fn kind_and_count(info: u32) -> (u32, usize) {
    ((info >> 24) & 0x1f, (info & 0xffff) as usize)
}

/// The offsets of the wanted names in the strings. Each string exists once (`btf_dedup_strings` in libbpf's btf.c).
fn names(strings: &[u8]) -> Names {
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
    use aya_obj::btf::BtfKind;

    use super::*;

    #[test]
    fn what_is_no_type_information_is_an_error() {
        let whole = std::fs::read(OF_THE_KERNEL).unwrap();
        for bytes in [&[][..], &[0; 64]] {
            assert!(matches!(members(bytes), Err(Unreadable::NotTypes)));
        }
        let cut = members(&whole[..4096]);
        assert!(matches!(cut, Err(Unreadable::CutOff(_))), "{cut:?}");
        let missing = members_of(Path::new("/nonexistent"));
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
    fn functions_and_structs_have_the_numbers_that_aya_finds() {
        let found = members_of(Path::new(OF_THE_KERNEL)).unwrap();
        let types = aya::Btf::from_sys_fs().unwrap();
        for (name, kind) in [
            ("bpf_cast_to_kern_ctx", BtfKind::Func),
            ("bpf_rdonly_cast", BtfKind::Func),
            ("ethhdr", BtfKind::Struct),
        ] {
            let expected = types.id_by_type_name_kind(name, kind).unwrap();
            assert_eq!(found[place(name)], Some(expected), "{name}, Linux 6.2");
        }
    }

    /// The place of the first that is wanted of a struct or function.
    fn place(of: &str) -> usize {
        WANTED.iter().position(|(name, _)| *name == of).unwrap()
    }

    #[test]
    fn only_a_function_with_the_parameter_counts() {
        let strings = b"\0bpf_cast_to_kern_ctx\0obj\0flags\0";
        let (name, obj, flags) = (1, 22, 26);
        // A function type with these names of parameters, and the function.
        let number = |parameters: &[u32]| {
            let count = u32::try_from(parameters.len()).unwrap();
            let mut types = vec![0, FUNC_PROTO << 24 | count, 0];
            types.extend(parameters.iter().flat_map(|name| [*name, 0]));
            types.extend([name, FUNC << 24, 1]);
            let types: Vec<u8> = types.into_iter().flat_map(u32::to_ne_bytes).collect();
            let lengths = [types.len(), strings.len()].map(|length| u32::try_from(length).unwrap());
            let header = [24, 0, lengths[0], lengths[0], lengths[1]].map(u32::to_ne_bytes);
            let begin = [&MAGIC.to_ne_bytes()[..], &[1, 0]].concat();
            let bytes = [&begin, header.as_flattened(), &types, strings].concat();
            members(&bytes).unwrap()[place("bpf_cast_to_kern_ctx")]
        };
        for parameters in [&[obj][..], &[flags, obj]] {
            assert_eq!(number(parameters), Some(2));
        }
        for others in [&[][..], &[flags], &[obj, flags]] {
            assert_eq!(number(others), None, "{others:?}");
        }
    }

    #[test]
    fn a_struct_that_is_not_there_has_no_offsets() {
        // A header, no type, and one empty string.
        let mut bytes = vec![0_u8; HEADER + 1];
        bytes[..2].copy_from_slice(&MAGIC.to_ne_bytes());
        bytes[4..8].copy_from_slice(&24_u32.to_ne_bytes());
        bytes[20..24].copy_from_slice(&1_u32.to_ne_bytes());
        assert_eq!(members(&bytes).unwrap(), [None; WANTED.len()]);
    }
}
