//! Names of units (systemd.unit(5)).

/// The most bytes of a name (`UNIT_NAME_MAX` in src/basic/unit-name.h).
const LONGEST: usize = 255;

/// The types of units that have a cgroup.
const WITH_CGROUP: [&str; 6] = ["service", "slice", "scope", "socket", "mount", "swap"];

/// The types of units that have none.
const WITHOUT: [&str; 5] = ["target", "device", "automount", "timer", "path"];

/// Why a name is no name of a unit that a fence can be attached to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NameError {
    /// It has other characters, or too many.
    #[error(
        "{0:?} is no name of a unit: it has at most {LONGEST} letters, digits and `:-_.\\@`; `systemd-escape` writes others"
    )]
    Invalid(String),
    /// It is a template.
    #[error("{0} is a template, which never runs: name an instance, such as {1}")]
    Template(String, String),
    /// Its type has no processes.
    #[error(
        "{0} has no processes, because it is a {1}: name the service, scope or slice that it starts"
    )]
    WithoutProcesses(String, &'static str),
}

/// The whole name: without a type it is a service, as for systemctl.
///
/// # Errors
/// If it is not the name of a unit that can have processes.
pub(super) fn whole(name: &str) -> Result<String, NameError> {
    let kind = name.rsplit_once('.').map_or("", |(_, kind)| kind);
    let whole = if WITH_CGROUP.contains(&kind) || WITHOUT.contains(&kind) {
        name.to_owned()
    } else {
        format!("{name}.service")
    };
    let is_valid = |character: char| {
        character.is_ascii_alphanumeric() || matches!(character, ':' | '-' | '_' | '.' | '\\' | '@')
    };
    let (stem, kind) = whole.rsplit_once('.').unwrap_or((&whole, ""));
    // A name cannot begin with the instance, and an option of systemctl's cannot be meant.
    let begins = !stem.is_empty() && !stem.starts_with('@');
    if !begins || whole.len() > LONGEST || !whole.chars().all(is_valid) {
        return Err(NameError::Invalid(name.to_owned()));
    }
    if stem.ends_with('@') {
        let instance = format!("{stem}INSTANCE.{kind}");
        return Err(NameError::Template(whole, instance));
    }
    match WITHOUT.into_iter().find(|without| *without == kind) {
        Some(kind) => Err(NameError::WithoutProcesses(whole, kind)),
        None => Ok(whole),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_type_it_is_a_service() {
        for (name, unit) in [
            ("web", "web.service"),
            ("web.service", "web.service"),
            (
                "dbus-org.freedesktop.login1",
                "dbus-org.freedesktop.login1.service",
            ),
            ("vm@guest1", "vm@guest1.service"),
            ("qfence-vms.slice", "qfence-vms.slice"),
            (
                r"machine-qemu\x2d1\x2dvm.scope",
                r"machine-qemu\x2d1\x2dvm.scope",
            ),
            ("-.slice", "-.slice"),
            ("run-u12.scope", "run-u12.scope"),
        ] {
            assert_eq!(whole(name).as_deref(), Ok(unit));
        }
    }

    #[test]
    fn a_template_is_no_unit() {
        let error = whole("vm@").unwrap_err().to_string();
        assert_eq!(
            error,
            "vm@.service is a template, which never runs: name an instance, such as vm@INSTANCE.service"
        );
        assert!(matches!(whole("vm@.service"), Err(NameError::Template(..))));
    }

    #[test]
    fn what_systemctl_would_escape_or_expand_is_refused() {
        let long = "x".repeat(LONGEST);
        for name in [
            "",
            ".service",
            "a b",
            "a/b",
            "/home",
            "a*",
            "a?",
            "[ab]",
            "a\n",
            "ä",
            "@x.service",
            &long,
        ] {
            assert!(
                matches!(whole(name), Err(NameError::Invalid(_))),
                "{name:?}"
            );
        }
    }

    #[test]
    fn a_unit_without_processes_is_refused() {
        for name in ["multi-user.target", "apt-daily.timer", "x.path", "x.device"] {
            let error = whole(name);
            assert!(
                matches!(error, Err(NameError::WithoutProcesses(..))),
                "{name}"
            );
        }
    }
}
