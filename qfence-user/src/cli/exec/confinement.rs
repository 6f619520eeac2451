//! The options of `--strict`.

use std::{ffi::OsString, path::PathBuf};

use clap::{
    Args,
    builder::{OsStringValueParser, TypedValueParser as _},
};
use qfence_common::Protocol;

use crate::confinement::{Closure, Grants, Listener, Strict, UnixName};

/// More ways out that are closed, and what the command keeps.
#[derive(Clone, Debug, Default, Args)]
pub struct ConfinementArgs {
    /// Close more ways out of the fence, for a QEMU whose guest may break out, and for untrusted jobs
    ///
    /// Without a list, all are closed. If this kernel cannot close one of them, `exec` fails. A QEMU keeps what its
    /// arguments name: images, firmware, servers of sockets, display, audio. Other commands keep public
    /// files for reading, and what the options below allow. `sockets` includes `files` and `syscalls`.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        num_args = 0..=1,
        require_equals = true,
        value_name = "CLOSURE,..."
    )]
    strict: Option<Vec<Closure>>,

    /// Let the command read a file, or all files below a directory, under --strict; can be repeated
    #[arg(long, value_name = "PATH", value_parser = path())]
    allow_read: Vec<PathBuf>,

    /// Let the command read and change a file, or all files below a directory, under --strict; can be
    /// repeated
    ///
    /// A device, such as /dev/ptmx, can be opened.
    #[arg(long, value_name = "PATH", value_parser = path())]
    allow_write: Vec<PathBuf>,

    /// Let the command listen on a port, or a range of them, under --strict; can be repeated
    ///
    /// Without a protocol, TCP and UDP. Port 0, for which the kernel chooses a free port, is allowed, unless the
    /// socket may share its port (SO_REUSEPORT, for UDP also SO_REUSEADDR).
    #[arg(long, value_name = "[tcp:|udp:]PORT[-PORT]", value_parser = listen)]
    allow_listen: Vec<(Option<Protocol>, u16, u16)>,

    /// Let the command keep an environment variable that --strict removes; can be repeated
    #[arg(long, value_name = "NAME", value_parser = variable)]
    allow_env: Vec<String>,

    /// Let the command use one Unix socket that is closed otherwise; can be repeated
    ///
    /// An abstract name begins with @. If a manager makes its socket anew, the command does not see the new
    /// one, unless the socket lies in a directory with other sockets.
    #[arg(long, value_name = "PATH|@NAME", value_parser = OsStringValueParser::new().try_map(UnixName::parse))]
    allow_unix: Vec<UnixName>,
}

impl ConfinementArgs {
    /// The closures of `--strict`; none without the option.
    #[must_use]
    pub fn strict(&self) -> Strict {
        match self.strict.as_deref() {
            None => Strict::default(),
            Some([]) => Strict::of(&Closure::ALL),
            Some(list) => Strict::of(list),
        }
    }

    /// What the options let the command keep.
    #[must_use]
    pub fn grants(&self) -> Grants {
        let listen = self
            .allow_listen
            .iter()
            .flat_map(|(protocol, first, last)| {
                let both = [Protocol::TCP, Protocol::UDP];
                let named = both
                    .into_iter()
                    .filter(move |one| protocol.is_none_or(|only| only == *one));
                named.map(|protocol| Listener {
                    protocol,
                    first: *first,
                    last: *last,
                })
            });
        Grants {
            read: self.allow_read.iter().cloned().collect(),
            write: self.allow_write.iter().cloned().collect(),
            connect: self.allow_unix.iter().cloned().collect(),
            listen: listen.collect(),
            ..Grants::default()
        }
    }

    /// The environment variables that `--allow-env` keeps.
    #[must_use]
    pub fn environment(&self) -> &[String] {
        &self.allow_env
    }

    /// The names that `--allow-unix` allows.
    #[must_use]
    pub fn unix_names(&self) -> &[UnixName] {
        &self.allow_unix
    }

    /// The paths among those names.
    #[must_use]
    pub fn unix_paths(&self) -> Vec<PathBuf> {
        let path = |name: &UnixName| match name {
            UnixName::Path(path) => Some(path.clone()),
            UnixName::Abstract(_) => None,
        };
        self.allow_unix.iter().filter_map(path).collect()
    }

    /// An option that has no effect without `--strict`, if one is given.
    #[must_use]
    pub fn without_effect(&self) -> Option<&'static str> {
        let given = [
            ("--allow-read", self.allow_read.is_empty()),
            ("--allow-write", self.allow_write.is_empty()),
            ("--allow-listen", self.allow_listen.is_empty()),
            ("--allow-env", self.allow_env.is_empty()),
        ];
        let first = given.into_iter().find(|(_, is_absent)| !is_absent)?;
        self.strict.is_none().then_some(first.0)
    }
}

/// Parses a path, which may be relative to the working directory.
fn path() -> impl clap::builder::TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().try_map(|text: OsString| std::path::absolute(text))
}

/// Parses the name of a variable.
fn variable(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Err(format!(
            "it takes the name of a variable, which keeps its value: write --allow-env {name}; to set it, let the command \
             be env {name}={value} COMMAND"
        )),
        None if !text.is_empty() => Ok(text.to_owned()),
        _ => Err("the name of the variable is empty".into()),
    }
}

/// Parses a port or a range of them, with an optional protocol.
fn listen(text: &str) -> Result<(Option<Protocol>, u16, u16), String> {
    let (protocol, ports) = match text.split_once(':') {
        None => (None, text),
        Some(("tcp", ports)) => (Some(Protocol::TCP), ports),
        Some(("udp", ports)) => (Some(Protocol::UDP), ports),
        Some(_) => return Err("a protocol is tcp or udp".into()),
    };
    let port = |text: &str| match text.parse() {
        Ok(0) | Err(_) => Err(format!("{text:?} is not a port (1-65535)")),
        Ok(port) => Ok(port),
    };
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return Err(format!("the range {first}-{last} is empty"));
    }
    Ok((protocol, first, last))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ConfinementArgs,
        rest: Vec<String>,
    }

    fn parse(words: &[&str]) -> ConfinementArgs {
        let line = Line::parse_from([&["x"], words].concat());
        assert!(line.rest.is_empty());
        line.args
    }

    #[test]
    fn strict_takes_a_list_only_after_an_equals_sign() {
        assert!(parse(&[]).strict().is_empty());
        assert_eq!(parse(&["--strict"]).strict(), Strict::of(&Closure::ALL));
        let strict = parse(&["--strict=rights,devices"]).strict();
        assert_eq!(strict.to_string(), "devices,rights");
        let line = Line::parse_from(["x", "--strict", "files"]);
        assert_eq!(line.rest, ["files"]);
        assert!(Line::try_parse_from(["x", "--strict=bus"]).is_err());
        assert!(Line::try_parse_from(["x", "--strict="]).is_err());
    }

    #[test]
    fn a_port_is_one_of_both_protocols_or_of_one() {
        let of = |text: &str| parse(&["--allow-listen", text]).grants().listen;
        assert_eq!(of("80").len(), 2);
        let only = Listener {
            protocol: Protocol::UDP,
            first: 5,
            last: 7,
        };
        assert_eq!(of("udp:5-7").into_iter().collect::<Vec<_>>(), [only]);
        for wrong in ["0", "x", "7-5", "sctp:1", "65536"] {
            assert!(listen(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_variable_is_a_name_without_a_value() {
        assert_eq!(parse(&["--allow-env", "FOO"]).environment(), ["FOO"]);
        for wrong in ["", "=", "=bar"] {
            assert!(variable(wrong).is_err(), "{wrong}");
        }
        let error = variable("FOO=bar=x").unwrap_err();
        assert!(error.contains("write --allow-env FOO;"), "{error}");
        assert!(error.contains("env FOO=bar=x COMMAND"), "{error}");
    }

    #[test]
    fn paths_become_absolute() {
        let here = std::env::current_dir().unwrap();
        let grants = parse(&["--allow-write", ".", "--allow-read", "/x"]).grants();
        assert!(grants.write.contains(&here));
        assert!(grants.read.contains(&PathBuf::from("/x")));
    }

    #[test]
    fn an_option_without_effect_is_found() {
        assert_eq!(
            parse(&["--allow-read", "/x"]).without_effect(),
            Some("--allow-read")
        );
        assert_eq!(
            parse(&["--strict", "--allow-read", "/x"]).without_effect(),
            None
        );
        assert_eq!(parse(&["--allow-unix", "/x"]).without_effect(), None);
    }
}
