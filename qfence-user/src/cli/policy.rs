//! The options that make a policy.

use std::ffi::OsString;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, error::ErrorKind};
use qfence_common::Action;

use crate::policy::{
    grammar::of_action,
    rule::{Match, Rule, Source},
};

/// The options that define a policy.
#[derive(Clone, Debug, Args)]
pub struct PolicyArgs {
    /// The rules that precede the profile's
    #[command(flatten)]
    pub rules: RuleFlags,

    /// Action for destinations that no rule matches [default: the profile's]
    #[arg(
        long,
        value_enum,
        value_name = "allow|deny",
        hide_possible_values = true
    )]
    pub default: Option<DefaultAction>,

    /// Profile, whose rules follow those of --allow and --deny: host, internet-only, locked, names-only, a
    /// file in /etc/qfence/profiles.d, or a path. `qfence-user policy show --profile NAME` prints it
    #[arg(long, value_name = "NAME|PATH")]
    pub profile: Option<OsString>,
}

impl PolicyArgs {
    /// Whether no option was given.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.default.is_none() && self.profile.is_none()
    }
}

/// The values of `--default`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum DefaultAction {
    /// Allow
    Allow,
    /// Deny
    Deny,
}

impl From<DefaultAction> for Action {
    fn from(action: DefaultAction) -> Self {
        match action {
            DefaultAction::Allow => Self::Allow,
            DefaultAction::Deny => Self::Deny,
        }
    }
}

/// `--allow` and `--deny`, in the order in which they were given. Derived clap options would lose the order
/// between the two options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleFlags(Vec<(Action, Match)>);

const FLAGS: [(&str, Action, &str); 2] = [
    (
        "allow",
        Action::Allow,
        "Allow a destination, such as tcp:127.0.0.1:5432, host:3000-3010 or lan; see below",
    ),
    ("deny", Action::Deny, "Deny a destination"),
];

impl RuleFlags {
    /// Whether there are no rules.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The rules, in order. `source` converts the text of a flag with its value to the rule's source.
    pub fn rules(&self, source: fn(String) -> Source) -> Vec<Rule> {
        self.0
            .iter()
            .map(|(action, of)| {
                let flag = match action {
                    Action::Allow => "--allow",
                    Action::Deny => "--deny",
                };
                Rule {
                    action: *action,
                    matches: vec![of.clone()],
                    comment: None,
                    source: source(format!("{flag} {of}")),
                }
            })
            .collect()
    }
}

impl Args for RuleFlags {
    fn augment_args(command: Command) -> Command {
        FLAGS
            .into_iter()
            .fold(command, |command, (name, action, help)| {
                command.arg(
                    Arg::new(name)
                        .long(name)
                        .value_name("RULE")
                        .help(help)
                        .action(ArgAction::Append)
                        .value_parser(move |text: &str| of_action(action, text)),
                )
            })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for RuleFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut given = Vec::new();
        for (name, action, _) in FLAGS {
            let rules = matches
                .try_get_many::<Match>(name)
                .map_err(|error| clap::Error::raw(ErrorKind::InvalidValue, error))?;
            let indices = matches.indices_of(name);
            let placed = indices
                .into_iter()
                .flatten()
                .zip(rules.into_iter().flatten());
            given.extend(placed.map(|(index, rule)| (index, action, rule.clone())));
        }
        given.sort_by_key(|(index, ..)| *index);
        Ok(Self(
            given
                .into_iter()
                .map(|(_, action, rule)| (action, rule))
                .collect(),
        ))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        policy: PolicyArgs,
    }

    fn rules(line: &[&str]) -> Result<Vec<String>, clap::Error> {
        let line = Line::try_parse_from(["line"].iter().chain(line))?;
        let rules = line.policy.rules.rules(|text| Source::Flag { text });
        Ok(rules.iter().map(|rule| rule.source.to_string()).collect())
    }

    #[test]
    fn rules_stay_in_the_order_in_which_they_were_given() {
        let line = [
            "--deny",
            "lan",
            "--allow",
            "tcp:any:80",
            "--default",
            "deny",
            "--deny=10.0.0.0/8",
            "--allow",
            "any",
        ];
        assert_eq!(
            rules(&line).unwrap(),
            [
                "--deny lan",
                "--allow tcp:any:80",
                "--deny 10.0.0.0/8",
                "--allow any"
            ]
        );
        assert!(rules(&[]).unwrap().is_empty());
    }

    #[test]
    fn self_can_be_allowed_only() {
        assert_eq!(
            rules(&["--allow", "tcp:self:8000"]).unwrap(),
            ["--allow tcp:self:8000"]
        );
        for of in ["self", "tcp:self:8000"] {
            let error = rules(&["--deny", of]).unwrap_err().to_string();
            assert!(error.contains("cannot be denied"), "{error}");
        }
    }

    #[test]
    fn what_is_no_rule_is_an_error_that_names_it() {
        let error = rules(&["--allow", "tcp:localhost:80"])
            .unwrap_err()
            .to_string();
        assert!(error.contains("localhost"), "{error}");
    }
}
