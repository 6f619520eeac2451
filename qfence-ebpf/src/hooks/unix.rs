//! The hooks for names of Unix sockets: connect(2), and sending to a name. A fence has these programs only if the names of
//! managers are refused, or its closure of sockets is requested. Monitor mode does not concern them.

use aya_ebpf::{helpers::bpf_get_netns_cookie, programs::SockAddrContext};
use qfence_common::{
    Halves,
    proof::{self, Token},
    unix::{NameRule, fingerprint, has_parents},
    verdict::{MANAGER, UNIX},
};

use crate::{
    account::{
        PROCEED, fail_with,
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
    let length = name.read(ctx);
    let token = Token(PROOF.load());
    if token.is_name(name.words(), length) {
        note_root();
        return fail_with(-proof::ERRNO);
    }
    let rule = NAMES.get(name.key()).copied().unwrap_or(REFUSE);
    // SAFETY: the hook's own context.
    let netns = unsafe { bpf_get_netns_cookie(ctx.sock_addr.cast()) };
    if length != 0 && is_allowed(&name, length, rule, netns) {
        return PROCEED;
    }
    let what = Refusal {
        address: fingerprint(name.words(), token.0),
        port: length,
        protocol: rule.manager.into(),
        hook: HOOK,
        rule: if rule.manager == 0 { UNIX } else { MANAGER },
        source: Halves::NONE,
        source_port: 0,
    };
    record_named(&what, &Author::current(netns), name.words());
    fail_with(-ECONNREFUSED)
}

/// Whether a rule allows a name. A function of its own, so that all ways to a refusal meet behind it: the verifier checks the
/// rest of the program once.
#[inline(never)]
fn is_allowed(name: &SocketName, length: u32, rule: NameRule, netns: u64) -> bool {
    let is_at_home = || {
        if name.is_abstract() {
            netns::is_home(netns)
        } else {
            is_at_root()
        }
    };
    rule.allows(length, is_at_home, || has_parents(name.words()))
}

/// The rule for names without one.
const REFUSE: NameRule = NameRule {
    flags: 0,
    manager: 0,
    length: 0,
};
