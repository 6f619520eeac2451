//! The command line of `nri-plugin`, which containerd and CRI-O start or talk to.

use std::path::PathBuf;

use clap::Args;

const NOTES: &str = "\
containerd (since 1.7) and CRI-O ask this plugin about each container of a pod before they make it, over the Node Resource \
Interface. If the pod has an annotation of qfence's, the plugin adds the hook of `oci-hook` to the container, which makes the \
fence before the container's first instruction. A container that cannot be fenced is not made, or does not start.

Annotations of the pod:
  qfence=on              fence all containers of the pod
  qfence.deny=RULES      rules that come before those of the plugin, with blanks between them
  qfence.device=pod      also fence the node's ends of the pod's veth pairs (--pod-device)
  qfence.allow=RULES, qfence.profile=PROFILE, qfence.default=allow|deny
                         with --trust-annotations only: whoever may create pods can give them
  qfence.name=NAME       likewise: name of the fence, for a pod with one container [default: the first 12 characters of its id]

The runtime starts the plugin if it is in /opt/nri/plugins; contrib/nri/10-qfence is such a file. Messages then go to the \
system's log. Started by hand, it connects to the runtime's socket, and again whenever the connection ends. Containers that \
run by then without a fence that they should have are fenced late, with a message.

Without the plugin, the annotations have no effect. docs/kubernetes.md shows how the runtime refuses such pods.

Exit status: 0 when the runtime that has started the plugin ends, or
  125  qfence failed";

/// `qfence-user nri-plugin`.
#[derive(Debug, Args)]
#[command(after_help = NOTES)]
pub struct NriPlugin {
    /// The socket of the runtime, if the runtime has not started the plugin
    #[arg(long, value_name = "PATH", default_value = "/var/run/nri/nri.sock")]
    pub socket: PathBuf,

    /// The place among the runtime's plugins, two digits, if the runtime has not started the plugin
    #[arg(long, value_name = "NN", default_value = "10", value_parser = index)]
    pub index: String,

    /// The path of qfence-user on the node, where the runtime executes it [default: that of this program]
    #[arg(long, value_name = "PATH")]
    pub program: Option<PathBuf>,

    /// Heed annotations that widen what a container may reach or name its fence, too
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

/// Parses a place among plugins.
fn index(text: &str) -> Result<String, String> {
    match text.as_bytes() {
        [b'0'..=b'9', b'0'..=b'9'] => Ok(text.to_owned()),
        _ => Err("it has two digits, such as 10".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        plugin: NriPlugin,
    }

    #[test]
    fn the_options_of_attach_follow_those_of_the_plugin() {
        let parse = |words: &[&str]| Line::try_parse_from([&["x"], words].concat());
        let words = ["--index", "05", "--profile", "host", "--deny", "lan"];
        let plugin = parse(&words).unwrap().plugin;
        assert_eq!(plugin.index, "05");
        assert_eq!(plugin.options, words[2..]);
        for index in ["5", "005", "1a", ""] {
            assert!(parse(&["--index", index]).is_err(), "{index}");
        }
    }
}
