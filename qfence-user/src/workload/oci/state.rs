//! The state of a container, which a hook gets on standard input (runtime.md of the runtime specification).

use std::{
    collections::BTreeMap,
    io::{self, Read},
    path::PathBuf,
};

use nix::unistd::Pid;
use serde::Deserialize;

/// The most bytes of a state. Annotations are all that is long in it.
const LONGEST: u64 = 4 << 20;

/// Why a state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It cannot be read.
    #[error("cannot read the container's state from standard input")]
    Read(#[from] io::Error),
    /// It is too long.
    #[error("the container's state has more than {LONGEST} bytes, which is the limit")]
    TooLong,
    /// It is something else.
    #[error(
        "standard input is no state of a container (an OCI runtime calls this command as a hook)"
    )]
    Parse(#[from] serde_json::Error),
    /// It has no process.
    #[error("the container {0:?} has no process yet: call this command in the hook createRuntime")]
    NoProcess(String),
}

/// The state of a container.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct State {
    /// The id of the container.
    pub id: String,
    /// The id of its first process; 0 if there is none.
    #[serde(default)]
    pid: i32,
    /// The directory with its configuration.
    #[serde(default)]
    pub bundle: PathBuf,
    /// Its annotations.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

impl State {
    /// Reads a state up to its end.
    ///
    /// # Errors
    /// If there is none.
    pub fn read(from: impl Read) -> Result<Self, StateError> {
        let mut bytes = Vec::new();
        let read = from.take(LONGEST + 1).read_to_end(&mut bytes)?;
        if u64::try_from(read).is_ok_and(|read| read > LONGEST) {
            return Err(StateError::TooLong);
        }
        Ok(serde_json::from_slice(&bytes)?)
    }

    /// Its first process.
    ///
    /// # Errors
    /// If it has none.
    pub fn first(&self) -> Result<Pid, StateError> {
        if self.pid > 0 {
            Ok(Pid::from_raw(self.pid))
        } else {
            Err(StateError::NoProcess(self.id.clone()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From runc 1.1.5 under podman 4.3.1.
    const RUNC: &str = r#"{"ociVersion":"1.0.2-dev","id":"615da4da6149","pid":344,"root":"/var/lib/containers/merged","bundle":"/var/lib/containers/userdata","annotations":{"qfence.profile":"internet-only"},"status":"creating"}"#;

    #[test]
    fn the_state_of_runc_is_read() {
        let state = State::read(RUNC.as_bytes()).unwrap();
        assert_eq!(state.id, "615da4da6149");
        assert_eq!(state.first().unwrap(), Pid::from_raw(344));
        assert_eq!(state.annotations["qfence.profile"], "internet-only");
        // Of a container that has stopped.
        let stopped = RUNC.replace("344", "0");
        let state = State::read(stopped.as_bytes()).unwrap();
        assert!(matches!(state.first(), Err(StateError::NoProcess(_))));
        assert!(
            State::read(r#"{"id":"a"}"#.as_bytes())
                .unwrap()
                .first()
                .is_err()
        );
    }

    #[test]
    fn a_state_is_read_up_to_the_bound() {
        let endless = io::repeat(b' ');
        assert!(matches!(State::read(endless), Err(StateError::TooLong)));
        for text in ["", "{}", "[]", &RUNC[..40]] {
            let read = State::read(text.as_bytes());
            assert!(matches!(read, Err(StateError::Parse(_))), "{text}");
        }
    }
}
