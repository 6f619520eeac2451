//! The messages of ttrpc (request.proto) and of the Node Resource Interface (pkg/api/api.proto, nri.pkg.api.v1alpha1), with
//! the fields that matter here. Others are skipped.

use std::collections::BTreeMap;

use prost::Message;

/// The service of a plugin, which the runtime calls.
pub const PLUGIN: &str = "nri.pkg.api.v1alpha1.Plugin";

/// The service of the runtime, which a plugin calls.
pub const RUNTIME: &str = "nri.pkg.api.v1alpha1.Runtime";

/// A call.
#[derive(Clone, PartialEq, Message)]
pub struct Request {
    /// The service.
    #[prost(string, tag = "1")]
    pub service: String,
    /// Its method.
    #[prost(string, tag = "2")]
    pub method: String,
    /// The message for it.
    #[prost(bytes = "vec", tag = "3")]
    pub payload: Vec<u8>,
}

/// The answer to a call.
#[derive(Clone, PartialEq, Message)]
pub struct Response {
    /// Why it failed; nothing if it did not.
    #[prost(message, optional, tag = "1")]
    pub status: Option<Status>,
    /// The message of the answer.
    #[prost(bytes = "vec", tag = "2")]
    pub payload: Vec<u8>,
}

/// Why a call failed (google.rpc.Status).
#[derive(Clone, PartialEq, Message)]
pub struct Status {
    /// A code of gRPC.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// For people.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// The first call of a plugin.
#[derive(Clone, PartialEq, Message)]
pub struct RegisterPlugin {
    /// Its name.
    #[prost(string, tag = "1")]
    pub plugin_name: String,
    /// Two digits: plugins are called in this order.
    #[prost(string, tag = "2")]
    pub plugin_idx: String,
}

/// Tells the plugin of its runtime.
#[derive(Clone, PartialEq, Message)]
pub struct Configure {
    /// The name of the runtime.
    #[prost(string, tag = "2")]
    pub runtime_name: String,
    /// Its version.
    #[prost(string, tag = "3")]
    pub runtime_version: String,
}

/// Which events the plugin wants.
#[derive(Clone, PartialEq, Message)]
pub struct Configured {
    /// A bit for each event.
    #[prost(int32, tag = "2")]
    pub events: i32,
}

/// The pods and containers that exist when the plugin connects.
#[derive(Clone, PartialEq, Message)]
pub struct Synchronize {
    /// Pods.
    #[prost(message, repeated, tag = "1")]
    pub pods: Vec<Pod>,
    /// Containers.
    #[prost(message, repeated, tag = "2")]
    pub containers: Vec<Container>,
    /// Whether another such call follows.
    #[prost(bool, tag = "3")]
    pub more: bool,
}

/// The answer to that.
#[derive(Clone, PartialEq, Message)]
pub struct Synchronized {
    /// Whether the plugin waits for another such call.
    #[prost(bool, tag = "2")]
    pub more: bool,
}

/// An event of one container: `CreateContainer` and `StartContainer`.
#[derive(Clone, PartialEq, Message)]
pub struct OfContainer {
    /// Its pod.
    #[prost(message, optional, tag = "1")]
    pub pod: Option<Pod>,
    /// The container.
    #[prost(message, optional, tag = "2")]
    pub container: Option<Container>,
}

/// An event in a message for all of them, of runtimes before NRI 0.11.
#[derive(Clone, PartialEq, Message)]
pub struct StateChange {
    /// The event.
    #[prost(int32, tag = "1")]
    pub event: i32,
    /// The pod.
    #[prost(message, optional, tag = "2")]
    pub pod: Option<Pod>,
    /// The container, if it is an event of one.
    #[prost(message, optional, tag = "3")]
    pub container: Option<Container>,
}

/// The answer to `CreateContainer`.
#[derive(Clone, PartialEq, Message)]
pub struct Created {
    /// Changes of the container.
    #[prost(message, optional, tag = "1")]
    pub adjust: Option<Adjustment>,
}

/// Changes of a container that is being made.
#[derive(Clone, PartialEq, Message)]
pub struct Adjustment {
    /// Annotations that are added.
    #[prost(btree_map = "string, string", tag = "2")]
    pub annotations: BTreeMap<String, String>,
    /// Hooks that are added.
    #[prost(message, optional, tag = "5")]
    pub hooks: Option<Hooks>,
}

/// A pod.
#[derive(Clone, PartialEq, Message)]
pub struct Pod {
    /// Its id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Its name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// The namespace of its name.
    #[prost(string, tag = "4")]
    pub namespace: String,
    /// Its annotations.
    #[prost(btree_map = "string, string", tag = "6")]
    pub annotations: BTreeMap<String, String>,
}

/// A container.
#[derive(Clone, PartialEq, Message)]
pub struct Container {
    /// Its id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// The id of its pod.
    #[prost(string, tag = "2")]
    pub pod_sandbox_id: String,
    /// Its name in the pod.
    #[prost(string, tag = "3")]
    pub name: String,
    /// Its state: [`CREATED`], [`STOPPED`] and others, in which its processes exist or may exist.
    #[prost(int32, tag = "4")]
    pub state: i32,
    /// Its own annotations.
    #[prost(btree_map = "string, string", tag = "6")]
    pub annotations: BTreeMap<String, String>,
    /// Its OCI hooks.
    #[prost(message, optional, tag = "10")]
    pub hooks: Option<Hooks>,
}

/// The states of a container in which it does not run: it was not started yet, or it has ended.
pub const CREATED: i32 = 1;
/// Likewise.
pub const STOPPED: i32 = 4;

/// OCI hooks.
#[derive(Clone, PartialEq, Message)]
pub struct Hooks {
    /// Those of createRuntime.
    #[prost(message, repeated, tag = "2")]
    pub create_runtime: Vec<Hook>,
    /// Those of poststop.
    #[prost(message, repeated, tag = "6")]
    pub poststop: Vec<Hook>,
}

/// An OCI hook.
#[derive(Clone, PartialEq, Message)]
pub struct Hook {
    /// The path of the executable.
    #[prost(string, tag = "1")]
    pub path: String,
    /// Its arguments, with its name.
    #[prost(string, repeated, tag = "2")]
    pub args: Vec<String>,
}
