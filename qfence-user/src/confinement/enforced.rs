//! The closures that eBPF programs enforce for one fence, and the resolver to which they lead queries.

use std::collections::BTreeSet;

use qfence_common::{Hook, resolved::Resolver};

use super::{Devices, Listener, NameRules};

/// The closures that eBPF programs enforce for one fence, and its resolver. None by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Enforced {
    /// The rules for names of Unix sockets; `None` if none is refused.
    pub names: Option<NameRules>,
    /// The local ports that may be bound; `None` for all.
    pub listen: Option<BTreeSet<Listener>>,
    /// The devices that may be opened; `None` for all but those in [`qfence_common::device::FORBIDDEN`].
    pub devices: Option<Devices>,
    /// Whether processes can set socket options that no program sees. Then no socket is known to have its port alone.
    pub options_unseen: bool,
    /// The resolver to which queries for names are led, and whose answers are shown as those of the nameserver that was
    /// asked; `None` in a fence without one.
    pub resolver: Option<Resolver>,
    /// Whether devices for networks that the fence does not see are also refused if another process hands them over
    /// ([`Hook::FileReceive`]).
    pub received: bool,
}

impl Enforced {
    /// Whether the fence has a program at a hook.
    #[must_use]
    pub fn needs(&self, hook: Hook) -> bool {
        match hook {
            Hook::ConnectUnix | Hook::SendmsgUnix => self.names.is_some(),
            Hook::Bind4 | Hook::Bind6 => self.listen.is_some(),
            Hook::Recvmsg4 | Hook::Recvmsg6 | Hook::Getpeername4 | Hook::Getpeername6 => {
                self.resolver.is_some()
            }
            Hook::FileReceive => self.received,
            _ => true,
        }
    }

    /// The hooks at which the fence has programs, in the order of their numbers.
    #[must_use]
    pub fn hooks(&self) -> Vec<Hook> {
        Hook::ALL
            .into_iter()
            .chain([Hook::FileReceive])
            .filter(|hook| self.needs(*hook))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_closures_only_optional_hooks_are_left_out() {
        let none = Enforced::default();
        for hook in Hook::ALL.into_iter().chain([Hook::FileReceive]) {
            assert_eq!(none.needs(hook), !hook.row().is_optional, "{hook:?}");
        }
        let all = Enforced {
            names: Some(NameRules::default()),
            listen: Some(BTreeSet::new()),
            devices: None,
            options_unseen: true,
            resolver: Some(Resolver::default()),
            received: true,
        };
        let expected: Vec<Hook> = Hook::ALL.into_iter().chain([Hook::FileReceive]).collect();
        assert_eq!(all.hooks(), expected);
    }
}
