//! Variables of systemd that name a process by its id. `exec` is that process for systemd, and the command is to be it for
//! itself. Pure.

use std::collections::BTreeSet;

/// The variable that names the process for which sockets are meant (sd_listen_fds(3)).
const LISTEN_PID: &str = "LISTEN_PID";

/// The number of these sockets.
const LISTEN_FDS: &str = "LISTEN_FDS";

/// Variables that describe these sockets. The last one names the process in a way in which the command cannot be named.
const OF_SOCKETS: [&str; 3] = ["LISTEN_FDNAMES", LISTEN_FDS, LISTEN_PID];
const LISTEN_PIDFDID: &str = "LISTEN_PIDFDID";

/// Other variables with the id of a process: sd_watchdog_enabled(3), systemd.exec(5).
const OTHERS: [&str; 2] = ["SYSTEMD_EXEC_PID", WATCHDOG_PID];
const WATCHDOG_PID: &str = "WATCHDOG_PID";

/// How often the process with that id must notify systemd. It is killed if it does not.
const WATCHDOG_USEC: &str = "WATCHDOG_USEC";

/// What becomes of these variables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Activation {
    /// The variables that get the id of the command.
    pub of_command: BTreeSet<&'static str>,
    /// The variables that are kept although only some are.
    pub kept: BTreeSet<&'static str>,
    /// The variables that are removed.
    pub removed: BTreeSet<&'static str>,
    /// The number of sockets that the command does not get.
    pub unpassed: u16,
}

impl Activation {
    /// Decides for a process with the id `own`, which passes on this number of descriptors. `variable` reads a variable.
    pub fn new(own: u32, preserved: u16, variable: impl Fn(&str) -> Option<String>) -> Self {
        let names_own = |name: &str| variable(name).is_some_and(|pid| pid.parse() == Ok(own));
        let mut activation = Self::default();
        activation
            .of_command
            .extend(OTHERS.into_iter().filter(|name| names_own(name)));
        if names_own(WATCHDOG_PID) {
            activation.kept.extend([WATCHDOG_PID, WATCHDOG_USEC]);
        }
        if names_own(LISTEN_PID) {
            let count = variable(LISTEN_FDS)
                .and_then(|count| count.parse().ok())
                .unwrap_or(0);
            if count <= preserved {
                activation.of_command.insert(LISTEN_PID);
                activation.kept.extend(OF_SOCKETS);
            } else {
                activation.removed.extend(OF_SOCKETS);
                activation.unpassed = count;
            }
            activation.removed.insert(LISTEN_PIDFDID);
        }
        activation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(preserved: u16, variables: &[(&str, &str)]) -> Activation {
        Activation::new(7, preserved, |name| {
            let found = variables.iter().find(|(own, _)| *own == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn sockets_that_are_passed_on_are_the_commands() {
        let passed = of(
            2,
            &[(LISTEN_PID, "7"), (LISTEN_FDS, "2"), ("WATCHDOG_PID", "7")],
        );
        assert_eq!(passed.of_command, [LISTEN_PID, "WATCHDOG_PID"].into());
        assert!(passed.kept.contains(WATCHDOG_USEC));
        assert_eq!(passed.removed, [LISTEN_PIDFDID].into());
        assert_eq!(passed.unpassed, 0);
    }

    #[test]
    fn sockets_that_are_closed_are_not_announced() {
        let closed = of(1, &[(LISTEN_PID, "7"), (LISTEN_FDS, "2")]);
        assert!(closed.of_command.is_empty() && closed.kept.is_empty());
        assert!(closed.removed.contains(LISTEN_FDS) && closed.removed.contains(LISTEN_PID));
        assert_eq!(closed.unpassed, 2);
    }

    #[test]
    fn what_is_meant_for_another_process_is_left() {
        let others = of(
            0,
            &[(LISTEN_PID, "8"), (LISTEN_FDS, "2"), ("WATCHDOG_PID", "x")],
        );
        assert_eq!(others, Activation::default());
    }
}
