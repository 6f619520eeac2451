//! The hooks for names of Unix sockets: connect(2), and sending to a name. A fence has these programs only if the names of
//! managers are refused, or its closure of sockets is requested. Monitor mode does not concern them.

use aya_ebpf::{bindings::bpf_sock_addr, helpers::bpf_get_netns_cookie, programs::SockAddrContext};
use qfence_common::{
    Halves,
    abi::Counter,
    proof::{self, Token},
    unix::{NameRule, fingerprint, has_parents},
    verdict::{MANAGER, UNIX},
};

use crate::{
    account::{
        PROCEED,
        count::count,
        fail_with,
        record::{Refusal, record_named},
    },
    maps::{NAMES, PROOF},
    subject::{
        author::Author,
        netns,
        unix::{SocketName, is_at_root, note_root},
    },
};

/// ECONNREFUSED (asm-generic/errno.h). libxcb tries an abstract name first, and the path only after this error or ENOENT
/// (`_xcb_open` in its xcb_util.c).
const ECONNREFUSED: i32 = 111;

/// Judges the name of a Unix socket at the hook with number `HOOK`. A name that cannot be read is refused.
#[inline(always)]
pub(crate) fn judge_name<const HOOK: u32>(ctx: &SockAddrContext) -> i32 {
    let mut name = SocketName::EMPTY;
    let length = qfence_read_name(ctx.sock_addr, &raw mut name);
    // SAFETY: the hook's own context.
    let netns = unsafe { bpf_get_netns_cookie(ctx.sock_addr.cast()) };
    let answer = qfence_judge_name(&raw mut name, length, netns);
    if answer == ALLOWED {
        return PROCEED;
    }
    if answer == PROOF_FOUND {
        return fail_with(-proof::ERRNO);
    }
    qfence_record_name(&raw mut name, length, netns, answer, HOOK);
    fail_with(-ECONNREFUSED)
}

/// An answer of [`qfence_judge_name`]: the name is allowed. Other answers are the number of the manager, 0 for none.
const ALLOWED: u32 = u32::MAX;
/// An answer of [`qfence_judge_name`]: the name is that of the proof.
const PROOF_FOUND: u32 = u32::MAX - 1;

// The functions below are global for the sake of the verifier: see `judge/policy.rs`. The verifier does not let them use a
// pointer before they have compared it with null.

/// Reads the name of a call. Returns its length, or 0 if it cannot be read.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_read_name(ctx: *mut bpf_sock_addr, name: *mut SocketName) -> u32 {
    // SAFETY: null, or a name of the caller's, which nothing else uses until this function returns.
    let name = unsafe { name.as_mut() };
    name.map_or(0, |name| name.read(&SockAddrContext::new(ctx)))
}

/// Judges a name.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_judge_name(name: *mut SocketName, length: u32, netns: u64) -> u32 {
    // SAFETY: as above.
    let Some(name) = (unsafe { name.as_ref() }) else {
        return 0;
    };
    if Token(PROOF.load()).is_name(name.words(), length) {
        note_root();
        return PROOF_FOUND;
    }
    let rule = NAMES.get(name.key()).copied().unwrap_or(REFUSE);
    let is_at_home = || {
        if name.is_abstract() {
            netns::is_home(netns)
        } else {
            is_at_root()
        }
    };
    let has_parents = || qfence_has_parents((&raw const *name).cast_mut()) != 0;
    if length != 0 && rule.allows(length, is_at_home, has_parents) {
        return ALLOWED;
    }
    rule.manager.into()
}

/// Whether a part of a name is `..`: 0 or 1.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_has_parents(name: *mut SocketName) -> u32 {
    // SAFETY: as above.
    let name = unsafe { name.as_ref() };
    name.is_none_or(|name| has_parents(name.words())).into()
}

/// Records and counts the refusal of a name. Returns 0, because a global function must return a value.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_record_name(
    name: *mut SocketName,
    length: u32,
    netns: u64,
    manager: u32,
    hook: u32,
) -> u32 {
    // SAFETY: as above.
    let Some(name) = (unsafe { name.as_ref() }) else {
        count(Counter::Lost);
        return 0;
    };
    let what = Refusal {
        address: fingerprint(name.words(), PROOF.load()),
        port: length,
        protocol: manager,
        hook,
        rule: if manager == 0 { UNIX } else { MANAGER },
        source: Halves::NONE,
        source_port: 0,
    };
    record_named(&what, &Author::current(netns), name.words());
    0
}

/// The rule for names without one.
const REFUSE: NameRule = NameRule {
    flags: 0,
    manager: 0,
    length: 0,
};
