//! OCI runtimes (runc, crun): the state that they give to a hook, the annotations of a container that choose its fence,
//! and the hooks and the resolv.conf in the configuration of a bundle.
//!
//! The hook createRuntime is called when the container's first process is in its cgroup and has its network, and before
//! anything of the image is executed (github.com/opencontainers/runtime-spec, config.md, "POSIX-platform Hooks").

pub mod annotations;
pub mod attach;
pub mod bundle;
pub mod giver;
pub mod resolver;
pub mod runtime;
pub mod state;
