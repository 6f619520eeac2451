//! Parses the text of a profile.

use std::{fmt, path::Path};

use qfence_common::Action;
use serde::{
    Deserialize, Deserializer,
    de::{SeqAccess, Visitor, value::StringDeserializer},
};
use toml::Spanned;

use super::{
    MAX_COMMENT, Profile,
    position::{Fault, Lines},
};
use crate::policy::{
    grammar::of_action,
    rule::{Match, Rule, Source},
};

/// The content of the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    description: Option<Spanned<String>>,
    default: Option<Spanned<String>>,
    #[serde(default)]
    rule: Rules,
}

#[derive(Default)]
struct Rules(Vec<Spanned<RawRule>>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a rule, below a line [[rule]]")]
struct RawRule {
    allow: Option<Spanned<Texts>>,
    deny: Option<Spanned<Texts>>,
    comment: Option<Spanned<String>>,
}

/// The text of one match, or a list of them.
enum Texts {
    One(String),
    Many(Vec<Spanned<String>>),
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Texts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a destination in quotes, or a list of them in []")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Texts, E> {
                String::deserialize(StringDeserializer::new(text.to_owned())).map(Texts::One)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Texts, A::Error> {
                all_of(list).map(Texts::Many)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl<'de> Deserialize<'de> for Rules {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tables;

        impl<'de> Visitor<'de> for Tables {
            type Value = Rules;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("rules, each below a line [[rule]]")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Rules, A::Error> {
                all_of(list).map(Rules)
            }
        }

        deserializer.deserialize_any(Tables)
    }
}

fn all_of<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(mut list: A) -> Result<Vec<T>, A::Error> {
    let mut all = Vec::new();
    while let Some(next) = list.next_element()? {
        all.push(next);
    }
    Ok(all)
}

/// The TOML parser's message, with the remedy.
pub(super) fn explain(message: &str) -> String {
    // The parser reads a bare `tcp:…` as a misspelt `true`, and a bare address as a number.
    const NOT_QUOTED: [&str; 6] = [
        "invalid boolean",
        "invalid date",
        "invalid float",
        "invalid integer",
        "invalid time",
        "string values must be quoted",
    ];
    if NOT_QUOTED.iter().any(|known| message.starts_with(known)) {
        return "a value is missing here: write text in quotes".into();
    }
    let advice = match message {
        "duplicate key" => ": write it once",
        "cannot recurse further; max recursion depth met" => ": write no lists in lists",
        _ => "",
    };
    format!("{}{advice}", message.replace('\n', ", "))
}

pub(super) fn parse(name: &str, path: Option<&Path>, text: &str) -> Result<Profile, Fault> {
    let raw: Raw = toml::from_str(text).map_err(|error| Fault {
        span: error.span().unwrap_or_default(),
        message: explain(error.message()),
    })?;
    let lines = Lines::new(text);
    let description = raw.description.map(remark).transpose()?;
    let default = raw.default.ok_or_else(|| Fault {
        span: 0..0,
        message:
            "the profile has no default: write default = \"deny\" or default = \"allow\" above \
                  its rules"
                .into(),
    })?;
    let rules = raw.rule.0.into_iter().map(|raw| {
        let (action, texts, comment) = only_action(raw)?;
        let line = lines.number(texts.span().start);
        Ok(Rule {
            action,
            matches: matches(action, texts)?,
            comment: comment.map(remark).transpose()?,
            source: Source::Profile {
                name: name.to_owned(),
                path: path.map(Path::to_owned),
                line,
            },
        })
    });
    Ok(Profile {
        name: name.to_owned(),
        path: path.map(Path::to_owned),
        description,
        default: action(&default)?,
        default_line: lines.number(default.span().start),
        rules: rules.collect::<Result<_, _>>()?,
    })
}

fn action(word: &Spanned<String>) -> Result<Action, Fault> {
    match word.get_ref().as_str() {
        "allow" => Ok(Action::Allow),
        "deny" => Ok(Action::Deny),
        other => Err(Fault {
            span: word.span(),
            message: format!("{other:?} is no default: write \"deny\" or \"allow\""),
        }),
    }
}

type Said = (Action, Spanned<Texts>, Option<Spanned<String>>);

/// The action and the matches of a rule, which must have exactly one action.
fn only_action(raw: Spanned<RawRule>) -> Result<Said, Fault> {
    let span = raw.span();
    let RawRule {
        allow,
        deny,
        comment,
    } = raw.into_inner();
    match (allow, deny) {
        (Some(texts), None) => Ok((Action::Allow, texts, comment)),
        (None, Some(texts)) => Ok((Action::Deny, texts, comment)),
        (None, None) => Err(Fault {
            span,
            message: "the rule does nothing: write allow = \"…\" or deny = \"…\" in it".into(),
        }),
        (Some(allow), Some(deny)) => Err(Fault {
            span: if allow.span().start > deny.span().start {
                allow.span()
            } else {
                deny.span()
            },
            message: "the rule both allows and denies: make two of it, of which the first that \
                      matches decides"
                .into(),
        }),
    }
}

fn matches(action: Action, texts: Spanned<Texts>) -> Result<Vec<Match>, Fault> {
    let one = |text: &Spanned<String>| one(action, text);
    let span = texts.span();
    match texts.into_inner() {
        Texts::One(text) => Ok(vec![one(&Spanned::new(span, text))?]),
        Texts::Many(texts) if texts.is_empty() => Err(Fault {
            span,
            message: "the list is empty, and the rule would match nothing: write a destination in \
                      it, or take the rule out"
                .into(),
        }),
        Texts::Many(texts) => texts.iter().map(one).collect(),
    }
}

pub(super) fn one(action: Action, text: &Spanned<String>) -> Result<Match, Fault> {
    of_action(action, text.get_ref()).map_err(|error| Fault {
        span: text.span(),
        message: format!("{error}"),
    })
}

/// Checks a description or comment: one line for people, which appears in logs and on terminals.
fn remark(text: Spanned<String>) -> Result<String, Fault> {
    let fault = |message| Fault {
        span: text.span(),
        message,
    };
    if text.get_ref().chars().any(char::is_control) {
        return Err(fault(
            "the text has a line break or another control character in it: write one line".into(),
        ));
    }
    if text.get_ref().chars().count() > MAX_COMMENT {
        return Err(fault(format!(
            "the text is too long: write at most {MAX_COMMENT} characters, and the rest after a #"
        )));
    }
    Ok(text.into_inner())
}
