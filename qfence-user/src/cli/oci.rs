//! The command lines of `oci-hook` and `oci-runtime`, which container engines call.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

const HOOK_NOTES: &str = "\
Podman and CRI-O call this command if a file in their hooks.d names it; contrib/oci/qfence.json is such a file. The \
state of the container is read from standard input.

Annotations of the container (podman run --annotation KEY=VALUE):
  qfence=on              fence the container
  qfence.name=NAME       name of the fence [default: the first 12 characters of the container's id]
  qfence.deny=RULES      rules that come before those of the hook, with blanks between them
  qfence.device=pod      also fence the host's ends of the container's veth pairs (--pod-device)
  qfence.allow=RULES, qfence.profile=PROFILE, qfence.default=allow|deny
                         with --trust-annotations only: podman adds the annotations of an image to these
In a pod of Kubernetes, qfence.name needs --trust-annotations too.

The fence has no supervisor (see `attach --detach`).

Exit status: 0, or
  125  qfence failed. The runtime then does not start the container, and shows the message";

const RUNTIME_NOTES: &str = "\
Docker has no hooks of its own, but runtimes, in /etc/docker/daemon.json:
  { \"runtimes\": { \"qfence\": { \"path\": \"/usr/local/bin/qfence-runc\" } } }
where qfence-runc is contrib/docker/qfence-runc. Then `docker run --runtime qfence IMAGE` fences a container.

Example:
  qfence-user oci-runtime --runtime /usr/sbin/runc --profile internet-only -- create --bundle . web

Exit status: that of the runtime, or
  125  qfence failed. The container does not start";

/// When the runtime calls the hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Stage {
    /// Before anything of the image is executed: fences the container
    #[value(name = "createRuntime")]
    CreateRuntime,
    /// After the container has ended: removes the fence
    #[value(name = "poststop")]
    Poststop,
}

/// `qfence-user oci-hook`.
#[derive(Debug, Args)]
#[command(after_help = HOOK_NOTES)]
pub struct OciHook {
    /// When the runtime calls the hook
    pub stage: Stage,

    /// Heed annotations that widen what the container may reach, too
    #[arg(long)]
    pub trust_annotations: bool,

    /// Options of `attach`, except a target
    #[arg(
        value_name = "OPTIONS OF ATTACH",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub options: Vec<String>,
}

/// `qfence-user oci-runtime`.
#[derive(Debug, Args)]
#[command(
    after_help = RUNTIME_NOTES,
    override_usage = "qfence-user oci-runtime [--runtime PATH] [OPTIONS OF ATTACH] -- [ARGUMENTS OF THE RUNTIME]"
)]
pub struct OciRuntime {
    /// The runtime to execute
    #[arg(long, default_value = "/usr/bin/runc")]
    pub runtime: PathBuf,

    /// Options of `attach`, except a target; then `--` and the arguments of the runtime
    #[arg(
        value_name = "WORDS",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub words: Vec<String>,
}
