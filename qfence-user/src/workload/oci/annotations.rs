//! Annotations of a container that choose its fence.
//!
//! | annotation | meaning |
//! |---|---|
//! | `qfence` | fence the container. `off` and the like are errors |
//! | `qfence.name` | the name of the fence |
//! | `qfence.profile` | the profile |
//! | `qfence.deny`, `qfence.allow` | rules, with blanks between them |
//! | `qfence.default` | `allow` or `deny` |
//! | `qfence.device` | `pod`: fence the host's ends of the container's veth pairs too |
//!
//! Podman adds the annotations of the image to those of its command line, so they are not the administrator's alone.
//! Only those that take something away are heeded unless the hook trusts all. Those of a pod are given by whoever may make
//! pods: a name could be one that others need.

use std::collections::BTreeMap;

use super::giver::Giver;

/// The beginning of the annotations.
const PREFIX: &str = "qfence.";

/// The annotation that asks for a fence and nothing more.
const ASKS: &str = "qfence";

/// Its values that mean the opposite to who writes them. They could be the image's, so they cannot turn a fence off.
const OFF: [&str; 7] = ["off", "false", "no", "0", "none", "disable", "disabled"];

/// The most bytes of a name.
const LONGEST: usize = 64;

/// Why annotations are refused. The container does not start then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnnotationError {
    /// There is no such annotation.
    #[error(
        "there is no annotation {0:?}: qfence has qfence.name, .profile, .deny, .allow, .default and .device"
    )]
    Unknown(String),
    /// It asks for no fence.
    #[error(
        "the annotation qfence={0} does not turn the fence off, because it could be the image's: to leave the container \
         unfenced, give no annotation that begins with qfence, or qfence=on to fence it"
    )]
    Off(String),
    /// It has no value.
    #[error("the annotation {0} is empty: give it a value, or leave it out")]
    Empty(String),
    /// It names devices that are not known.
    #[error("the annotation qfence.device has the value `pod`, and not {0:?}")]
    Device(String),
    /// It is a name that could pass for another, or for more than a name, where names are shown.
    #[error(
        "the annotation {0}: {1:?} cannot be the name of a fence: there, it has at most {LONGEST} letters of ASCII, digits, \
         dots, hyphens and underscores"
    )]
    Name(String, String),
    /// It takes a name away from others.
    #[error(
        "the annotation qfence.name of a pod could take a name that others on the node need: leave it out, or give \
         --trust-annotations to the plugin, or to the hook, if all who may make pods are trusted"
    )]
    Taken,
    /// It may be the image's.
    #[error(
        "the annotation {0} could be the image's, and it widens what the container may reach: give --trust-annotations \
         to the hook if images are trusted, or the option --{1} itself"
    )]
    Untrusted(String, &'static str),
}

/// An annotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Name,
    Profile,
    Deny,
    Allow,
    Default,
    Device,
}

/// The value of the annotation for devices.
const POD: &str = "pod";

impl Kind {
    /// In the order in which the options are given. Rules that deny come first, because the first match decides.
    const ALL: [Self; 6] = [
        Self::Name,
        Self::Profile,
        Self::Deny,
        Self::Allow,
        Self::Default,
        Self::Device,
    ];

    const fn word(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Profile => "profile",
            Self::Deny => "deny",
            Self::Allow => "allow",
            Self::Default => "default",
            Self::Device => "device",
        }
    }

    /// Whether it can only take away from what the container may reach.
    const fn is_harmless(self) -> bool {
        matches!(self, Self::Name | Self::Deny | Self::Device)
    }
}

/// Whether an annotation asks for a fence, by its key.
#[must_use]
pub fn is_ours(key: &str) -> bool {
    key == ASKS || key.starts_with(PREFIX)
}

/// The options of a fence that the annotations ask for.
///
/// # Errors
/// If one is unknown or empty, or is not trusted.
pub fn options(
    annotations: &BTreeMap<String, String>,
    giver: Giver,
) -> Result<Vec<String>, AnnotationError> {
    let asks = annotations.get(ASKS).map(|value| value.trim());
    if let Some(value) = asks.filter(|value| OFF.iter().any(|off| off.eq_ignore_ascii_case(value)))
    {
        return Err(AnnotationError::Off(value.to_owned()));
    }
    let known = |name: &str| Kind::ALL.into_iter().find(|kind| kind.word() == name);
    let ours = annotations
        .iter()
        .filter_map(|(key, value)| Some((key, key.strip_prefix(PREFIX)?, value)));
    let mut given = Vec::new();
    for (key, name, value) in ours {
        let kind = known(name).ok_or_else(|| AnnotationError::Unknown(key.clone()))?;
        if value.trim().is_empty() {
            return Err(AnnotationError::Empty(key.clone()));
        }
        if kind == Kind::Name && !is_name(value.trim()) {
            return Err(AnnotationError::Name(key.clone(), value.clone()));
        }
        if kind == Kind::Device && value.trim() != POD {
            return Err(AnnotationError::Device(value.clone()));
        }
        if giver != Giver::Trusted && !kind.is_harmless() {
            return Err(AnnotationError::Untrusted(key.clone(), kind.word()));
        }
        if giver == Giver::Pods && kind == Kind::Name {
            return Err(AnnotationError::Taken);
        }
        given.push((kind, value));
    }
    let mut options = Vec::new();
    for kind in Kind::ALL {
        let Some((_, value)) = given.iter().find(|(other, _)| *other == kind) else {
            continue;
        };
        let option = format!("--{}", kind.word());
        match kind {
            Kind::Deny | Kind::Allow => {
                let rules = value.split_whitespace();
                options.extend(rules.map(|rule| format!("{option}={rule}")));
            }
            Kind::Device => options.push("--pod-device".into()),
            Kind::Name | Kind::Profile | Kind::Default => {
                options.push(format!("{option}={}", value.trim()));
            }
        }
    }
    Ok(options)
}

/// Whether a text is a name that an annotation may give.
fn is_name(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    text.len() <= LONGEST && text.bytes().all(is_plain)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The options that annotations are for this giver.
    pub(in super::super) fn of(
        pairs: &[(&str, &str)],
        are_trusted: bool,
    ) -> Result<Vec<String>, AnnotationError> {
        let pairs = pairs.iter();
        let annotations = pairs.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let annotations = annotations.collect();
        options(&annotations, Giver::of(&annotations, are_trusted))
    }

    #[test]
    fn annotations_are_options_and_denials_come_first() {
        let given = of(
            &[
                ("io.container.manager", "libpod"),
                ("org.qfence.allow", "any"),
                ("qfence", ""),
                ("qfence.allow", "tcp:any:443  udp:dns\n"),
                ("qfence.default", "deny"),
                ("qfence.deny", "lan 192.0.2.0/24"),
                ("qfence.name", "web"),
                ("qfence.profile", "internet-only"),
            ],
            true,
        );
        assert_eq!(
            given.unwrap(),
            [
                "--name=web",
                "--profile=internet-only",
                "--deny=lan",
                "--deny=192.0.2.0/24",
                "--allow=tcp:any:443",
                "--allow=udp:dns",
                "--default=deny"
            ]
        );
        assert_eq!(of(&[("qfence", "on")], false).unwrap(), [""; 0]);
    }

    #[test]
    fn what_is_not_known_keeps_the_container_from_starting() {
        for key in ["qfence.alow", "qfence.", "qfence.allow.1", "qfence.Allow"] {
            let error = of(&[(key, "any")], true);
            assert_eq!(error, Err(AnnotationError::Unknown(key.into())));
        }
        for value in ["", " \t"] {
            let error = of(&[("qfence.deny", value)], true);
            assert_eq!(error, Err(AnnotationError::Empty("qfence.deny".into())));
        }
    }

    #[test]
    fn off_is_an_error_and_no_fence_that_is_missing() {
        for value in ["off", "OFF", "false", " no ", "0"] {
            let error = of(&[("qfence", value)], true);
            assert_eq!(error, Err(AnnotationError::Off(value.trim().into())));
        }
        for value in ["on", "", "yes", "host"] {
            assert_eq!(of(&[("qfence", value)], false).unwrap(), [""; 0], "{value}");
        }
    }

    #[test]
    fn an_image_cannot_widen_what_its_container_may_reach() {
        for (key, word) in [
            ("qfence.allow", "allow"),
            ("qfence.profile", "profile"),
            ("qfence.default", "default"),
        ] {
            let error = of(&[("qfence.deny", "lan"), (key, "any")], false);
            assert_eq!(error, Err(AnnotationError::Untrusted(key.into(), word)));
        }
        assert_eq!(
            of(&[("qfence.deny", "lan")], false).unwrap(),
            ["--deny=lan"]
        );
    }

    #[test]
    fn devices_are_those_of_the_pod() {
        let given = of(&[("qfence.device", " pod ")], false);
        assert_eq!(given.unwrap(), ["--pod-device"]);
        for value in ["eth0", "pod eth0", "Pod"] {
            let error = of(&[("qfence.device", value)], true);
            assert_eq!(error, Err(AnnotationError::Device(value.into())));
        }
    }

    #[test]
    fn a_value_cannot_be_another_option() {
        let given = of(
            &[("qfence.deny", "--allow any"), ("qfence.name", "--x")],
            true,
        );
        assert_eq!(
            given.unwrap(),
            ["--name=--x", "--deny=--allow", "--deny=any"]
        );
    }

    #[test]
    fn a_name_has_nothing_that_could_pass_for_more() {
        let longest = "a".repeat(LONGEST);
        for name in ["web", "a.B-c_9", " web ", longest.as_str()] {
            assert!(of(&[("qfence.name", name)], false).is_ok(), "{name}");
        }
        let longer = "a".repeat(LONGEST + 1);
        for name in [
            "web   enforced",
            "a/b",
            "w\u{435}b",
            "web\u{200b}",
            "web\n",
            longer.as_str(),
        ] {
            let refused = of(&[("qfence.name", &format!("x{name}x"))], true);
            assert!(
                matches!(refused, Err(AnnotationError::Name(..))),
                "{name:?}: {refused:?}"
            );
        }
    }
}
