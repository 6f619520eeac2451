//! Hints for local ports that the closure of listeners refuses. The command itself gets only "permission denied".

use std::collections::BTreeSet;

use super::{
    line::{Body, Line},
    operation::Operation,
};

/// The most hints of one supervisor.
const MOST: usize = 8;

/// Makes one hint for each protocol and port.
#[derive(Debug, Default)]
pub struct PortHints {
    /// The options of the hints so far; an empty one for port 0.
    told: BTreeSet<String>,
}

impl PortHints {
    /// The hint for a line, if it reports a refused port for which there was none.
    pub fn of(&mut self, line: &Line) -> Option<String> {
        let Body::Attempt(attempt) = &line.body else {
            return None;
        };
        let Operation::Local { local_port, .. } = attempt.operation else {
            return None;
        };
        let option = attempt.listen_option();
        if self.told.len() >= MOST || !self.told.insert(option.clone().unwrap_or_default()) {
            return None;
        }
        let refused = format!(
            "hint: the command could not bind a {} (--strict=listeners)",
            attempt.operation
        );
        Some(match option {
            Some(option) => format!("{refused}; give {option} to allow it"),
            None if local_port == 0 => format!(
                "{refused}: the kernel could choose the port of a service, because the socket may share its port; let the \
                 command bind a given port, and give --allow-listen PORT"
            ),
            None => format!("{refused}; --allow-listen allows TCP and UDP"),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use qfence_common::{Hook, verdict::LISTENER};

    use super::*;
    use crate::record::line::tests::line;

    fn bound(protocol: u32, port: u32) -> Line {
        line(
            Hook::Bind6,
            Ipv6Addr::LOCALHOST.octets(),
            protocol,
            port,
            LISTENER,
        )
    }

    #[test]
    fn a_port_has_one_hint_with_its_option() {
        let mut hints = PortHints::default();
        let said = hints.of(&bound(6, 8080)).unwrap();
        assert_eq!(
            said,
            "hint: the command could not bind a tcp listener [::1]:8080 (--strict=listeners); \
             give --allow-listen tcp:8080 to allow it"
        );
        assert_eq!(hints.of(&bound(6, 8080)), None);
        assert!(hints.of(&bound(17, 8080)).unwrap().contains("udp:8080"));
        assert!(hints.of(&bound(6, 0)).unwrap().contains("a given port"));
        let other = line(Hook::Connect6, [0; 16], 6, 9, 1);
        assert_eq!(hints.of(&other), None);
    }

    #[test]
    fn there_are_few_hints() {
        let mut hints = PortHints::default();
        let said = (1..1000).filter_map(|port| hints.of(&bound(17, port)));
        assert_eq!(said.count(), MOST);
    }
}
