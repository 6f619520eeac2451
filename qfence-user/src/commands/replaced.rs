//! Warns of programs of others that those of a fence replace.

use crate::{base::console::notify, kernel::query::Beside};

/// Names the hooks at which another program does not apply to the fence's cgroup any more.
pub(super) fn warn_of_replaced(beside: &Beside) {
    if beside.replaced.is_empty() {
        return;
    }
    let hooks: Vec<_> = beside.replaced.iter().map(|hook| hook.name()).collect();
    notify(format_args!(
        "warning: a program of a cgroup above, attached with BPF_F_ALLOW_OVERRIDE, does not apply to this cgroup while it is \
         fenced, at {}",
        hooks.join(", ")
    ));
}
