//! The system calls that `--strict` refuses, as filters for the calls of this machine's own convention. A call by the
//! numbers of another architecture kills the process (SIGSYS).
//!
//! Three filters, one for each answer: calls that do not exist (ENOSYS), so that a program uses an older one; calls that
//! are refused silently (EPERM), because many programs try them; and calls that no program makes by accident, which the
//! supervisor refuses and reports ([`super::super::reporter`]). Of several filters the strictest answer counts
//! (seccomp(2)), and their order does not matter.

mod lists;

use anyhow::{Context as _, Result};
use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, sock_filter,
};

pub(in crate::launch) use self::lists::describe;
use crate::confinement::{Closure, Strict};

/// The filters, ready for the child.
#[derive(Debug)]
pub(super) struct Refusals {
    /// Those that the kernel answers.
    pub(super) answered: Vec<BpfProgram>,
    /// The one whose refusals are reported; `None` without `syscalls`.
    pub(super) reported: Option<BpfProgram>,
}

/// A marker in place of an action that the crate does not have.
const REPORT: u32 = 1;

/// A call, with conditions on its arguments.
#[derive(Clone, Copy, Debug)]
pub(super) enum Refused {
    /// Always.
    Call(i64),
    /// If an argument has one of these bits.
    Bits(i64, u8, &'static [u64]),
    /// If an argument is none of these values.
    NoneOf(i64, u8, &'static [u64]),
    /// If the first argument is the first value, and another argument is not 0.
    First(i64, u64, u8),
}

impl Refusals {
    /// The filters of these closures.
    ///
    /// # Errors
    /// If the filters cannot be made, which is a fault in the lists.
    pub(super) fn new(strict: &Strict) -> Result<Self> {
        let (mut absent, mut refused, mut reported) = (Vec::new(), Vec::new(), Vec::new());
        if strict.has(Closure::Syscalls) {
            absent.extend(lists::ABSENT);
            refused.extend(lists::REFUSED);
            reported.extend(lists::REPORTED);
        }
        if strict.has(Closure::Processes) {
            refused.extend(lists::OF_PROCESSES);
        }
        let errno = |errno: i32| SeccompAction::Errno(errno.unsigned_abs());
        let mut answered = Vec::new();
        for (calls, action) in [(absent, errno(libc::ENOSYS)), (refused, errno(libc::EPERM))] {
            if !calls.is_empty() {
                answered.push(compile(&calls, action)?);
            }
        }
        let reported = match reported.is_empty() {
            true => None,
            false => Some(report(compile(&reported, SeccompAction::Trace(REPORT))?)),
        };
        Ok(Self { answered, reported })
    }
}

/// A filter that answers these calls with an action, and allows all others.
fn compile(calls: &[Refused], action: SeccompAction) -> Result<BpfProgram> {
    let mut rules = std::collections::BTreeMap::<i64, Vec<SeccompRule>>::new();
    for call in calls {
        let (number, more) = conditions(*call)?;
        rules.entry(number).or_default().extend(more);
    }
    let target = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, action, target);
    let program: BpfProgram = filter
        .and_then(TryInto::try_into)
        .context("cannot make a filter of system calls")?;
    Ok(program)
}

/// The number of a call, and the rules by which it is refused; always without a rule.
fn conditions(call: Refused) -> Result<(i64, Vec<SeccompRule>)> {
    let test = |argument, operation, value| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operation, value)
    };
    let ne = |argument| move |value: &u64| test(argument, SeccompCmpOp::Ne, *value);
    Ok(match call {
        Refused::Call(number) => (number, Vec::new()),
        Refused::Bits(number, argument, bits) => {
            let rule = |bit: &u64| {
                let condition = test(argument, SeccompCmpOp::MaskedEq(*bit), *bit)?;
                SeccompRule::new(vec![condition])
            };
            (number, bits.iter().map(rule).collect::<Result<_, _>>()?)
        }
        Refused::NoneOf(number, argument, values) => {
            let all = values.iter().map(ne(argument)).collect::<Result<_, _>>()?;
            (number, vec![SeccompRule::new(all)?])
        }
        Refused::First(number, first, argument) => {
            let both = vec![test(0, SeccompCmpOp::Eq, first)?, ne(argument)(&0)?];
            (number, vec![SeccompRule::new(both)?])
        }
    })
}

/// Puts the kernel's action for reports in place of the marker.
fn report(mut program: BpfProgram) -> BpfProgram {
    let marker = u32::from(SeccompAction::Trace(REPORT));
    let is_end = |step: &&mut sock_filter| step.code == super::bpf::RETURN && step.k == marker;
    for step in program.iter_mut().filter(is_end) {
        step.k = libc::SECCOMP_RET_USER_NOTIF;
    }
    program
}

#[cfg(test)]
mod tests;
