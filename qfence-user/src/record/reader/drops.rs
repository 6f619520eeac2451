//! Adds the lines of what the second layer for frames has dropped. Another object than the fence's own counts it, once per
//! second, by destination. It has the room that the fence's own attempts leave.

use jiff::Timestamp;
use qfence_common::{AttemptKey, Comm, Halves, Hook, NO_UID, Origin, verdict::LOCAL_IN};

use super::{Attempt, Body, Reader};
use crate::{
    base::console::notify,
    kernel::local_in::{Drained, Drop},
    record::process::Process,
};

/// The origin of such a packet is not known.
const UNKNOWN: Origin = Origin {
    boot_ns: 0,
    cgroup: 0,
    netns: 0,
    source: Halves::NONE,
    comm: Comm::NONE,
    tid: 0,
    uid: NO_UID,
    source_port: 0,
    flags: 0,
};

impl Reader {
    /// Adds the lines of what was dropped since the last call.
    pub(super) fn tell_drops(&mut self) {
        let received: Vec<Drained> = match &self.drops {
            Some(drops) => drops.try_iter().collect(),
            None => return,
        };
        for Drained { drops, lost } in received {
            for drop in drops {
                self.tell_drop(&drop);
            }
            self.beside += lost;
            self.held.add_lost(lost);
        }
    }

    /// Adds the line of a drop. Beyond the limit, it is a part of the next line for what exceeded that.
    fn tell_drop(&mut self, drop: &Drop) {
        // They are not among the fence's own counts.
        self.beside += drop.count;
        if !self.budget.has_drop() {
            self.folded.lines += 1;
            self.folded.attempts += drop.count;
            return;
        }
        let key = key_of(drop);
        let rule = self.names.now().name(key.rule);
        let device = drop.device.map(|index| self.devices.name(index));
        match Attempt::new(&key, None, &UNKNOWN, rule, &Process::default()) {
            Ok(attempt) => {
                let body = match drop.count {
                    1 => Body::Attempt(attempt.at(device).into()),
                    _ => Body::Repeats(attempt.at(device).into()),
                };
                self.add(Timestamp::now(), body, drop.count);
            }
            Err(error) => {
                notify(format_args!("error: {error}"));
                self.held.add_lost(drop.count);
            }
        }
    }
}

fn key_of(drop: &Drop) -> AttemptKey {
    AttemptKey {
        address: Halves::of(drop.address),
        pid: drop.device.unwrap_or_default(),
        port: drop.port.into(),
        protocol: drop.protocol,
        hook: Hook::LocalIn as u32,
        rule: LOCAL_IN,
        monitored: 0,
    }
}

#[cfg(test)]
mod tests {
    use qfence_common::address::from_v4;

    use super::*;
    use crate::policy::{names::Names, testing};

    #[test]
    fn a_drop_is_a_line_with_its_destination_and_device() {
        let drop = Drop {
            address: from_v4([192, 0, 2, 1]),
            protocol: 6,
            port: 22,
            device: Some(7),
            count: 3,
        };
        let key = key_of(&drop);
        let rule = Names::of(&testing::policy(&[], false)).name(key.rule);
        let attempt = Attempt::new(&key, None, &UNKNOWN, rule, &Process::default()).unwrap();
        assert_eq!(
            attempt.at(Some("t0".into())).to_string(),
            "denied tcp 192.0.2.1:22 local_in t0 rule deny-local-in"
        );
    }
}
