//! The Node Resource Interface, by which containerd and CRI-O ask plugins about each container of a pod before they make
//! it. qfence's plugin adds the OCI hook of qfence to containers whose pod has an annotation of qfence's.
//!
//! | file | what |
//! |---|---|
//! | `wire` | bytes to messages, and back |
//! | `messages` | the fields of the messages that matter here |
//! | `call` | what the runtime asks for |
//! | `choice` | whether a container is to be fenced, and how |
//! | `found` | the containers that run already when the plugin connects |
//!
//! All of it is pure: the socket is that of the verb `nri-plugin`.

pub mod call;
pub mod choice;
pub mod found;
pub mod messages;
pub mod wire;
