//! Checks that the programs of an eBPF object fit on the stack of Linux 6.1. The kernel that builds them may be newer, and
//! its verifier has more room: there it rounds by 16 bytes. Linux 6.1 rounds the stack of each function up to 32 bytes, and
//! refuses a program if the sum of any chain of calls exceeds 512 (`check_max_stack_depth` in kernel/bpf/verifier.c).

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use object::{
    Object as _, ObjectSection as _, ObjectSymbol, RelocationTarget, SymbolKind,
    read::elf::ElfFile64,
};

const LIMIT: u64 = 512;
const STEP: u64 = 32;
/// The step of Linux 6.8 and newer with the compiler of the kernel (`round_up_stack_depth`).
const SMALL_STEP: u64 = 16;

/// Programs for hooks that Linux 6.1 does not have. Only Linux 6.7 has both these hooks and the larger step.
const NEWER: [&str; 2] = ["judge_connect_unix", "judge_sendmsg_unix"];

/// The bit of register 10.
const FRAME_POINTER: u32 = 1 << 10;
// Opcodes, and classes of opcodes (Documentation/bpf/standardization/instruction-set.rst).
const MOVE: u8 = 0xbf;
const ADD: u8 = 0x07;
const CALL: u8 = 0x85;
/// In place of the source register of a call: it is that of a function in the object (BPF_PSEUDO_CALL).
const CALLS_FUNCTION: u8 = 1;
const LOAD_ADDRESS: u8 = 0x18;
const LOAD_REGISTER: u8 = 1;
const STORE: u8 = 2;
const STORE_REGISTER: u8 = 3;

/// The index of a function's section, and its address there.
type Place = (usize, u64);

#[derive(Debug, Default)]
struct Function {
    name: String,
    /// The bytes of its own stack frame.
    stack: u64,
    calls: BTreeSet<Place>,
}

/// Fails if a chain of calls needs too much stack, and names the functions of the longest one.
pub(crate) fn check(object: &[u8]) -> Result<()> {
    let functions = functions(object)?;
    let (mut known, mut of_newer) = (BTreeMap::new(), BTreeMap::new());
    let deepest =
        functions
            .iter()
            .map(|(place, function)| match NEWER.contains(&&*function.name) {
                true => measure(*place, SMALL_STEP, &functions, &mut of_newer),
                false => measure(*place, STEP, &functions, &mut known),
            });
    let Some((depth, chain)) = deepest.max() else {
        return Ok(());
    };
    ensure!(
        depth <= LIMIT,
        "Linux 6.1 would refuse a chain of calls: it takes {depth} bytes of stack, of {LIMIT}: {}. Let these functions have \
         fewer or smaller local variables, or call one of them from a function that calls nothing else",
        chain.join(" > ")
    );
    Ok(())
}

/// The stack of the deepest chain of calls that begins at `place`, and its functions.
fn measure(
    place: Place,
    step: u64,
    functions: &BTreeMap<Place, Function>,
    known: &mut BTreeMap<Place, (u64, Vec<String>)>,
) -> (u64, Vec<String>) {
    if let Some(known) = known.get(&place) {
        return known.clone();
    }
    // The verifier permits no recursion; it must not be endless here.
    known.insert(place, (0, Vec::new()));
    let Some(function) = functions.get(&place) else {
        return (0, Vec::new());
    };
    let called = function.calls.iter();
    let called = called
        .map(|called| measure(*called, step, functions, known))
        .max();
    let (below, chain) = called.unwrap_or_default();
    let mut names = vec![format!("{} ({})", function.name, function.stack)];
    names.extend(chain);
    let deepest = (below + function.stack.max(1).next_multiple_of(step), names);
    known.insert(place, deepest.clone());
    deepest
}

/// The functions of an object by their places.
fn functions(object: &[u8]) -> Result<BTreeMap<Place, Function>> {
    let elf: ElfFile64<'_> = ElfFile64::parse(object).context("reading the ELF file")?;
    let mut functions = BTreeMap::new();
    for symbol in elf.symbols() {
        let (SymbolKind::Text, Some(index)) = (symbol.kind(), symbol.section_index()) else {
            continue;
        };
        let (name, section) = (symbol.name()?, elf.section_by_index(index)?);
        let code = section.data_range(symbol.address(), symbol.size())?;
        let code = code.with_context(|| format!("{name} is not in its section"))?;
        let mut function = Function {
            name: name.to_owned(),
            stack: stack(code),
            calls: BTreeSet::new(),
        };
        let mut relocated = BTreeSet::new();
        for (address, relocation) in section.relocations() {
            let at = address.checked_sub(symbol.address());
            let at = at.and_then(|at| code.get(usize::try_from(at).ok()?..)?.first_chunk());
            if let (Some(instruction), RelocationTarget::Symbol(target)) = (at, relocation.target())
            {
                let target = elf.symbol_by_index(target)?;
                function.calls.extend(called(instruction, &target));
                relocated.insert(address);
            }
        }
        let within = called_within(symbol.address(), code, &relocated);
        function
            .calls
            .extend(within.map(|address| (index.0, address)));
        functions.insert((index.0, symbol.address()), function);
    }
    Ok(functions)
}

/// The place that an instruction calls or takes the address of, as it relates to the symbol of its relocation.
fn called<'data>(instruction: &[u8; 8], symbol: &impl ObjectSymbol<'data>) -> Option<Place> {
    let added = i64::from(immediate(instruction));
    let added = match instruction[0] {
        CALL => (added + 1) * 8,
        // Of data too: then no function is there.
        LOAD_ADDRESS => added,
        _ => return None,
    };
    let address = symbol.address().checked_add_signed(added)?;
    Some((symbol.section_index()?.0, address))
}

/// The addresses in its own section that a function at `address` calls without a relocation: the linker knows how far they are.
fn called_within(
    address: u64,
    code: &[u8],
    relocated: &BTreeSet<u64>,
) -> impl Iterator<Item = u64> {
    let instructions = code.as_chunks::<8>().0.iter();
    let places = (address..).step_by(8).zip(instructions);
    places.filter_map(|(at, instruction)| {
        let [opcode, registers, ..] = *instruction;
        let is_call = opcode == CALL && registers >> 4 == CALLS_FUNCTION;
        if !is_call || relocated.contains(&at) {
            return None;
        }
        at.checked_add_signed((i64::from(immediate(instruction)) + 1) * 8)
    })
}

/// The bytes of stack of a function: the lowest address that it computes from the frame pointer, or accesses by it.
fn stack(code: &[u8]) -> u64 {
    // A bit for each register that has the frame pointer itself.
    let mut frames = FRAME_POINTER;
    let mut lowest = 0;
    for instruction in code.as_chunks::<8>().0 {
        let [opcode, registers, low, high, ..] = *instruction;
        let (to, from) = (1_u32 << (registers & 15), 1 << (registers >> 4));
        let offset = i32::from(i16::from_le_bytes([low, high]));
        let reached = match (opcode, opcode & 7) {
            (ADD, _) if frames & to != 0 => immediate(instruction),
            (_, STORE | STORE_REGISTER) if frames & to != 0 => offset,
            (_, LOAD_REGISTER) if frames & from != 0 => offset,
            _ => 0,
        };
        lowest = lowest.min(reached);
        let is_copy = opcode == MOVE && frames & from != 0;
        frames = match (opcode, opcode & 7) {
            _ if is_copy => frames | to,
            (CALL, _) => frames & !0x3f,
            (_, STORE | STORE_REGISTER) => frames,
            _ => frames & !to | FRAME_POINTER,
        };
    }
    u64::from(lowest.unsigned_abs())
}

fn immediate(instruction: &[u8; 8]) -> i32 {
    let [.., a, b, c, d] = *instruction;
    i32::from_le_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_chain_is_rounded_and_named() {
        let function = |name: &str, stack, calls: &[u64]| Function {
            name: name.to_owned(),
            stack,
            calls: calls.iter().map(|number| (0, *number)).collect(),
        };
        let functions = BTreeMap::from([
            ((0, 0), function("program", 33, &[1, 2])),
            ((0, 1), function("shallow", 384, &[])),
            ((0, 2), function("middle", 0, &[1, 3])),
            ((0, 3), function("deep", 385, &[])),
        ]);
        let (depth, chain) = measure((0, 0), STEP, &functions, &mut BTreeMap::new());
        assert_eq!(depth, 64 + 32 + 416);
        assert_eq!(chain.join(" "), "program (33) middle (0) deep (385)");
    }

    #[test]
    fn a_call_within_the_section_needs_no_relocation() {
        let helper = [0x85, 0, 0, 0, 1, 0, 0, 0]; // call 1
        let back = [0x85, 0x10, 0, 0, 0xf5, 0xff, 0xff, 0xff]; // call -11
        let code = [helper, back];
        let found = |relocated: &[u64]| -> Vec<u64> {
            let relocated = relocated.iter().copied().collect();
            called_within(0x100, code.as_flattened(), &relocated).collect()
        };
        assert_eq!(found(&[]), [0x108 - 80]);
        assert_eq!(found(&[0x108]), Vec::<u64>::new());
    }

    #[test]
    fn the_stack_of_a_function_is_what_it_reaches() {
        let store = [0x7b, 0x1a, 0xf8, 0xff, 0, 0, 0, 0]; // *(r10 - 8) = r1
        let copy = [0xbf, 0xa2, 0, 0, 0, 0, 0, 0]; // r2 = r10
        let lower = [0x07, 0x02, 0, 0, 0xb0, 0xff, 0xff, 0xff]; // r2 += -80
        let other = [0x79, 0x12, 0, 0, 0, 0, 0, 0]; // r2 = *r1
        for (code, expected) in [
            ([store, other, lower], 8),
            ([copy, store, lower], 80),
            ([copy, other, lower], 0),
        ] {
            assert_eq!(stack(code.as_flattened()), expected);
        }
    }
}
