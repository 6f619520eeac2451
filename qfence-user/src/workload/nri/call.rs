//! What the runtime asks the plugin for, and the answers.

use prost::{DecodeError, Message as _};

use super::{
    messages::{
        Configure, Configured, Container, Created, OfContainer, PLUGIN, Pod, RUNTIME,
        RegisterPlugin, Request, Response, StateChange, Status, Synchronize, Synchronized,
    },
    wire::LONGEST,
};
use crate::base::printable::shortened;

/// The numbers of the events that the plugin wants.
const CREATE: i32 = 4;
const START: i32 = 6;

/// The bits for them.
const EVENTS: i32 = 1 << (CREATE - 1) | 1 << (START - 1);

/// Codes of gRPC. Those of a timeout and a lost connection would have the runtime go on without the plugin.
const INVALID_ARGUMENT: i32 = 3;
const FAILED_PRECONDITION: i32 = 9;
const UNIMPLEMENTED: i32 = 12;

/// The most bytes of a reason. It can have a value of an annotation in it, which whoever makes pods chooses.
const REASON: usize = 2048;

/// What the runtime asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    /// Which events the plugin wants.
    Configure(Configure),
    /// To note the containers that exist.
    Synchronize(Synchronize),
    /// How a container is to be made.
    Create(Pod, Container),
    /// Whether a container may start.
    Start(Pod, Container),
    /// Nothing: an event that is of no interest.
    Other,
}

/// Why a call fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    code: i32,
    message: String,
}

impl Refusal {
    /// The container must not be made, or not be started.
    #[must_use]
    pub fn of_container(message: String) -> Self {
        Self::new(FAILED_PRECONDITION, message)
    }

    fn new(code: i32, message: String) -> Self {
        Self {
            code,
            message: shortened(message, REASON),
        }
    }

    /// The reason.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl From<DecodeError> for Refusal {
    fn from(error: DecodeError) -> Self {
        let message = format!("qfence cannot read the runtime's message: {error}");
        Self::new(INVALID_ARGUMENT, message)
    }
}

impl Call {
    /// Reads the data of a request.
    ///
    /// # Errors
    /// If it is malformed, or calls what a plugin has not.
    pub fn read(data: &[u8]) -> Result<Self, Refusal> {
        let request = Request::decode(data)?;
        let payload = &*request.payload;
        if request.service != PLUGIN {
            return Err(unknown(&request));
        }
        match request.method.as_str() {
            "Configure" => Ok(Self::Configure(Configure::decode(payload)?)),
            "Synchronize" => Ok(Self::Synchronize(Synchronize::decode(payload)?)),
            "CreateContainer" => {
                let event = OfContainer::decode(payload)?;
                let (pod, container) = both(event.pod, event.container)?;
                Ok(Self::Create(pod, container))
            }
            "StartContainer" => {
                let event = OfContainer::decode(payload)?;
                let (pod, container) = both(event.pod, event.container)?;
                Ok(Self::Start(pod, container))
            }
            "StateChange" => {
                let event = StateChange::decode(payload)?;
                if event.event != START {
                    return Ok(Self::Other);
                }
                let (pod, container) = both(event.pod, event.container)?;
                Ok(Self::Start(pod, container))
            }
            "Shutdown" => Ok(Self::Other),
            _ => Err(unknown(&request)),
        }
    }
}

fn unknown(request: &Request) -> Refusal {
    let message = format!(
        "qfence's plugin has no method {:?} of {:?}",
        request.method, request.service
    );
    Refusal::new(UNIMPLEMENTED, message)
}

fn both(pod: Option<Pod>, container: Option<Container>) -> Result<(Pod, Container), Refusal> {
    let message = "the runtime's message has no pod or no container";
    let missing = || Refusal::new(INVALID_ARGUMENT, message.into());
    pod.zip(container).ok_or_else(missing)
}

/// The data of the request that registers the plugin.
#[must_use]
pub fn register(name: &str, index: &str) -> Vec<u8> {
    let payload = RegisterPlugin {
        plugin_name: name.to_owned(),
        plugin_idx: index.to_owned(),
    };
    let request = Request {
        service: RUNTIME.into(),
        method: "RegisterPlugin".into(),
        payload: payload.encode_to_vec(),
    };
    request.encode_to_vec()
}

/// The data of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The events that the plugin wants.
    Configured,
    /// To [`Call::Synchronize`]: whether another call was announced.
    Synchronized(bool),
    /// To [`Call::Create`].
    Created(Created),
    /// Nothing but success.
    Done,
    /// A failure.
    Refused(Refusal),
}

impl Answer {
    /// It as bytes. An answer that is too long for the connection is a refusal: without an answer, the runtime would go on.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        let payload = match self {
            Self::Configured => Configured { events: EVENTS }.encode_to_vec(),
            Self::Synchronized(more) => Synchronized { more: *more }.encode_to_vec(),
            Self::Created(created) => created.encode_to_vec(),
            Self::Done | Self::Refused(_) => Vec::new(),
        };
        let status = match self {
            Self::Refused(refusal) => Some(Status {
                code: refusal.code,
                message: refusal.message.clone(),
            }),
            _ => None,
        };
        let written = Response { status, payload }.encode_to_vec();
        if written.len() <= LONGEST {
            return written;
        }
        let message = "qfence: the annotations of the pod are too long".to_owned();
        Self::Refused(Refusal::of_container(message)).write()
    }
}

/// Reads the answer to a request of the plugin's.
///
/// # Errors
/// If it is malformed, or a failure: with the runtime's reason.
pub fn answered(data: &[u8]) -> Result<(), String> {
    match Response::decode(data) {
        Err(error) => Err(error.to_string()),
        Ok(Response {
            status: Some(status),
            ..
        }) if status.code != 0 => Err(status.message),
        Ok(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::messages::Adjustment, *};

    fn read(method: &str, payload: Vec<u8>) -> Result<Call, Refusal> {
        let request = Request {
            service: PLUGIN.into(),
            method: method.into(),
            payload,
        };
        Call::read(&request.encode_to_vec())
    }

    fn pod() -> Pod {
        Pod {
            id: "p".into(),
            annotations: [("qfence".to_owned(), "on".to_owned())].into(),
            ..Pod::default()
        }
    }

    #[test]
    fn calls_are_read_as_containerd_makes_them() {
        // A pod {1: "p", 6: {1: "qfence", 2: "on"}} and a container {1: "c", 4: 1 (created), and a field that is not known}.
        let payload = b"\x0a\x11\x0a\x01p\x32\x0c\x0a\x06qfence\x12\x02on\x12\x09\x0a\x01c\x20\x01\xaa\x06\x01x";
        let container = Container {
            id: "c".into(),
            state: 1,
            ..Container::default()
        };
        let create = read("CreateContainer", payload.to_vec());
        assert_eq!(create, Ok(Call::Create(pod(), container.clone())));
        let start = read("StartContainer", payload.to_vec());
        assert_eq!(start, Ok(Call::Start(pod(), container.clone())));
        let change = StateChange {
            event: START,
            pod: Some(pod()),
            container: Some(container.clone()),
        };
        let start = read("StateChange", change.encode_to_vec());
        assert_eq!(start, Ok(Call::Start(pod(), container)));
        let stop = StateChange {
            event: 2,
            pod: Some(pod()),
            container: None,
        };
        assert_eq!(read("StateChange", stop.encode_to_vec()), Ok(Call::Other));
        assert_eq!(read("Shutdown", Vec::new()), Ok(Call::Other));
    }

    #[test]
    fn what_cannot_be_read_is_refused_and_never_let_through() {
        let code = |call: Result<Call, Refusal>| call.unwrap_err().code;
        assert_eq!(Call::read(b"\xff").unwrap_err().code, INVALID_ARGUMENT);
        assert_eq!(code(read("CreateContainer", Vec::new())), INVALID_ARGUMENT);
        let no_text = b"\x0a\x03\x0a\x01\xff".to_vec();
        assert_eq!(code(read("CreateContainer", no_text)), INVALID_ARGUMENT);
        assert_eq!(code(read("Unknown", Vec::new())), UNIMPLEMENTED);
        let other = Request {
            service: RUNTIME.into(),
            ..Request::default()
        };
        assert_eq!(
            Call::read(&other.encode_to_vec()).unwrap_err().code,
            UNIMPLEMENTED
        );
    }

    #[test]
    fn an_answer_is_never_too_long_for_its_connection() {
        let long = "\u{e9}".repeat(LONGEST);
        let refusal = Refusal::of_container(long.clone());
        assert!(refusal.message().len() < REASON + 4);
        assert!(refusal.message().ends_with('…'));
        let unknown = read(&long, Vec::new()).unwrap_err();
        assert!(unknown.message().len() < REASON + 4);
        let created = Answer::Created(Created {
            adjust: Some(Adjustment {
                annotations: [("qfence.deny".to_owned(), long)].into(),
                hooks: None,
            }),
        });
        let refused = answered(&created.write()).unwrap_err();
        assert!(refused.contains("too long"), "{refused}");
    }

    #[test]
    fn answers_are_written_as_containerd_reads_them() {
        // Events 4 and 6 are the bits 3 and 5.
        assert_eq!(Answer::Configured.write(), b"\x12\x02\x10\x28");
        assert_eq!(Answer::Synchronized(true).write(), b"\x12\x02\x10\x01");
        assert_eq!(Answer::Done.write(), b"");
        let refused = Answer::Refused(Refusal::of_container("no".into())).write();
        assert_eq!(refused, b"\x0a\x06\x08\x09\x12\x02no");
        assert_eq!(answered(&refused), Err("no".to_owned()));
        assert_eq!(answered(&Answer::Done.write()), Ok(()));
        assert!(answered(b"\xff").is_err());
        let register = Request::decode(&*register("qfence", "10")).unwrap();
        assert_eq!(register.payload, b"\x0a\x06qfence\x12\x0210");
    }
}
