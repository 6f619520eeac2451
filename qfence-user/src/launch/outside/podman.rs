//! Whether a podman is a client of its service. Pure.

use std::ffi::OsString;

use super::ENGINE;

/// The options with a value that make podman a client (`IsRemote` in cmd/podman/registry/remote.go), and that of the key
/// for the service.
const WITH_VALUE: [&str; 7] = [
    "-c",
    "--connection",
    "-H",
    "--host",
    "--url",
    "--context",
    "--identity",
];

/// The options without a value, or with a boolean one.
const FLAGS: [&str; 2] = ["-r", "--remote"];

/// Whether a podman with these arguments and variables is a client.
pub(super) fn is_client(arguments: &[OsString], has_variable: impl Fn(&str) -> bool) -> bool {
    // The options of its commands are others.
    let is_command = |word: &OsString| ENGINE.iter().any(|known| word == *known);
    let end = arguments.iter().position(is_command);
    let global = &arguments[..end.unwrap_or(arguments.len())];
    global
        .iter()
        .any(|word| makes_client(&word.to_string_lossy()))
        || has_variable("CONTAINER_HOST")
        || has_variable("CONTAINER_CONNECTION")
}

fn makes_client(word: &str) -> bool {
    let (option, value) = match word.split_once('=') {
        Some((option, value)) => (option, Some(value)),
        None => (word, None),
    };
    let is_attached = |known: &&str| !known.starts_with("--") && word.starts_with(*known);
    let is_false = value.is_some_and(|value| ["0", "f", "false"].contains(&value));
    let has_value = WITH_VALUE.contains(&option) || WITH_VALUE.iter().any(is_attached);
    has_value || FLAGS.contains(&option) && !is_false
}

#[cfg(test)]
mod tests {
    use super::super::tests::found;

    #[test]
    fn podman_is_a_client_by_each_of_its_options() {
        for options in [
            "--remote=true",
            "-r",
            "--url unix:///run/podman/podman.sock",
            "--url=ssh://me@192.0.2.1/run/podman/podman.sock",
            "--connection r",
            "--connection=r",
            "-c r",
            "-cr",
            "--identity key",
            "--log-level debug --remote",
        ] {
            let line = format!("podman {options} run alpine");
            assert_eq!(found(&line), Some("podman --remote"), "{line}");
            // A list starts nothing.
            assert_eq!(found(&format!("podman {options} ps")), None);
        }
        for line in [
            "env CONTAINER_HOST=unix:///x podman run alpine",
            "env CONTAINER_CONNECTION=r podman run alpine",
        ] {
            assert_eq!(found(line), Some("podman --remote"), "{line}");
        }
        for line in [
            "podman --remote=false run alpine",
            // Shares of the processor, and options of what runs in the container.
            "podman run -c 512 alpine",
            "podman run alpine tool --remote --url x",
            "podman --log-level debug run alpine",
        ] {
            assert_eq!(found(line), None, "{line}");
        }
    }
}
