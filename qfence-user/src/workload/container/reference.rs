//! What a user calls a container: `NAME`, `ID`, the beginning of an id, `ENGINE:NAME`, and for containerd
//! `NAMESPACE/ID`.

use super::{Container, Engine};
use crate::base::printable::printable;

/// The most containers that an error lists.
const LISTED: usize = 10;

/// Why no container is meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotChosen {
    /// Nothing was given.
    #[error("a container has a name or an id: give --container NAME")]
    Empty,
    /// There is none.
    #[error("there is no container \"{wanted}\"; {}", what_there_is(.there, .engines))]
    None {
        /// What was asked for.
        wanted: String,
        /// The engines that were looked at.
        engines: String,
        /// Those that there are.
        there: Vec<String>,
    },
    /// There are several.
    #[error("{wanted} may be any of {}: give more of the id, or ENGINE:NAME", listed(.there))]
    Several {
        /// What was asked for.
        wanted: String,
        /// Those that it may be.
        there: Vec<String>,
    },
}

/// The containers that there are, or where there are none.
fn what_there_is(there: &[String], engines: &str) -> String {
    match there {
        [] => format!("there is none at all, of {engines}"),
        some => format!("there are: {}", listed(some)),
    }
}

/// Names in a row.
fn listed(names: &[String]) -> String {
    let more = names.len().saturating_sub(LISTED);
    let first = names[..names.len() - more].join(", ");
    match more {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

/// A reference to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reference<'a> {
    engine: Option<Engine>,
    name: &'a str,
}

impl<'a> Reference<'a> {
    /// # Errors
    /// If it is empty.
    pub(super) fn parse(text: &'a str) -> Result<Self, NotChosen> {
        let qualified = text.split_once(':').and_then(|(word, name)| {
            let engine = Engine::ALL.into_iter().find(|engine| engine.name() == word);
            Some((engine?, name))
        });
        let (engine, name) = match qualified {
            Some((engine, name)) => (Some(engine), name),
            None => (None, text),
        };
        if name.is_empty() {
            return Err(NotChosen::Empty);
        }
        Ok(Self { engine, name })
    }

    /// The engines to ask.
    pub(super) fn engines(&self) -> Vec<Engine> {
        let is_asked = |engine: &Engine| self.engine.is_none_or(|wanted| wanted == *engine);
        Engine::ALL.into_iter().filter(is_asked).collect()
    }

    /// The container that is meant. A name or a whole id goes before the beginning of an id, as in the engines.
    ///
    /// # Errors
    /// If there is none, or more than one.
    pub(super) fn choose<'c>(&self, all: &'c [Container]) -> Result<&'c Container, NotChosen> {
        let exact: Vec<_> = all.iter().filter(|one| self.is(one)).collect();
        let meant = if exact.is_empty() {
            all.iter().filter(|one| self.is_beginning_of(one)).collect()
        } else {
            exact
        };
        let wanted = printable(self.name.as_bytes());
        match meant[..] {
            [one] => Ok(one),
            [] => Err(NotChosen::None {
                wanted,
                engines: self
                    .engines()
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(" or "),
                there: all.iter().map(safe).collect(),
            }),
            _ => Err(NotChosen::Several {
                wanted,
                there: meant.into_iter().map(safe).collect(),
            }),
        }
    }

    fn is(&self, container: &Container) -> bool {
        let in_namespace = container.namespace.as_ref().is_some_and(|namespace| {
            self.name
                .strip_prefix(namespace.as_str())
                .and_then(|rest| rest.strip_prefix('/'))
                == Some(container.id.as_str())
        });
        in_namespace
            || container.id == self.name
            || container.names.iter().any(|name| name == self.name)
    }

    /// Whether it is the beginning of an id that is a number. Ids that people chose are not abbreviated.
    fn is_beginning_of(&self, container: &Container) -> bool {
        container.id.len() == 64 && container.id.starts_with(self.name)
    }
}

fn safe(container: &Container) -> String {
    printable(container.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(engine: Engine, id: &str, names: &[&str]) -> Container {
        Container {
            engine,
            namespace: (engine == Engine::Containerd).then(|| "k8s.io".into()),
            id: id.to_owned(),
            names: names.iter().map(ToString::to_string).collect(),
        }
    }

    fn some() -> Vec<Container> {
        vec![
            container(Engine::Podman, &"ab".repeat(32), &["web"]),
            container(Engine::Podman, &"ac".repeat(32), &["abab"]),
            container(Engine::Docker, &"cd".repeat(32), &["web", "second"]),
            container(Engine::Containerd, "plain", &[]),
        ]
    }

    fn chosen(text: &str) -> Result<String, NotChosen> {
        let all = some();
        let chosen = Reference::parse(text)?.choose(&all)?;
        Ok(format!("{} {}", chosen.engine, &chosen.id[..2]))
    }

    #[test]
    fn a_container_is_called_by_name_id_or_the_beginning_of_one() {
        for (text, meant) in [
            ("second", "docker cd"),
            ("docker:web", "docker cd"),
            ("cd", "docker cd"),
            ("abababab", "podman ab"),
            // A name goes before the beginning of an id.
            ("abab", "podman ac"),
            (&"ab".repeat(32), "podman ab"),
            ("plain", "containerd pl"),
            ("k8s.io/plain", "containerd pl"),
            ("containerd:k8s.io/plain", "containerd pl"),
        ] {
            // The engine is only looked at among those that were read.
            let all: Vec<_> = some()
                .into_iter()
                .filter(|one| {
                    Reference::parse(text)
                        .unwrap()
                        .engines()
                        .contains(&one.engine)
                })
                .collect();
            let chosen = Reference::parse(text).unwrap();
            let chosen = chosen.choose(&all).unwrap();
            assert_eq!(
                format!("{} {}", chosen.engine, &chosen.id[..2]),
                meant,
                "{text}"
            );
        }
    }

    #[test]
    fn what_may_be_several_is_an_error_that_names_them() {
        let error = chosen("web").unwrap_err().to_string();
        assert_eq!(
            error,
            "web may be any of podman:web (abababababab), docker:web (cdcdcdcdcdcd): give more of the id, or ENGINE:NAME"
        );
        let error = chosen("a").unwrap_err();
        assert!(
            matches!(&error, NotChosen::Several { there, .. } if there.len() == 2),
            "{error}"
        );
    }

    #[test]
    fn what_is_not_there_is_an_error_that_names_what_is() {
        let error = chosen("pla").unwrap_err().to_string();
        assert_eq!(
            error,
            "there is no container \"pla\"; there are: podman:web (abababababab), podman:abab \
             (acacacacacac), docker:web (cdcdcdcdcdcd), containerd:k8s.io/plain"
        );
        for text in ["k8s.io/", "other/plain", "docker:none", "web "] {
            assert!(
                matches!(chosen(text), Err(NotChosen::None { .. })),
                "{text}"
            );
        }
        for text in ["", "podman:"] {
            assert_eq!(chosen(text), Err(NotChosen::Empty), "{text}");
        }
        let none = Reference::parse("x").unwrap().choose(&[]).unwrap_err();
        assert_eq!(
            none.to_string(),
            "there is no container \"x\"; there is none at all, of podman or docker or containerd"
        );
    }

    #[test]
    fn a_long_list_is_cut() {
        let many: Vec<_> = (0..30)
            .map(|number| container(Engine::Podman, &format!("{number:064x}"), &[]))
            .collect();
        let error = Reference::parse("00").unwrap().choose(&many).unwrap_err();
        assert!(error.to_string().contains(" and 20 more: "), "{error}");
    }
}
