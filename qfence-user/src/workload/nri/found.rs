//! The containers that exist when the plugin connects: those that run, and that no hook has fenced.

use std::collections::BTreeMap;

use super::{
    call::Refusal,
    choice::{Asked, Choice, refused, words},
    messages::{CREATED, Container, Pod, STOPPED, Synchronize},
};

/// The most pods and containers that are kept.
const MOST: usize = 1 << 16;

/// Collects them: a runtime may need several calls.
#[derive(Debug, Default)]
pub struct Collected {
    pods: BTreeMap<String, Pod>,
    containers: Vec<Container>,
}

/// A running container that is to be fenced and was made without the hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Late {
    /// Its id.
    pub id: String,
    /// Its name and that of its pod.
    pub words: String,
    /// What the annotations ask for, or why that is refused.
    pub asked: Result<Asked, Refusal>,
}

impl Collected {
    /// Adds those of one call. Only what runs without the hook is kept.
    ///
    /// # Errors
    /// If there are too many.
    pub fn add(&mut self, call: Synchronize, choice: &Choice) -> Result<(), Refusal> {
        let pods = call.pods.into_iter();
        self.pods.extend(pods.map(|pod| (pod.id.clone(), pod)));
        // In a state that is not known, it may run.
        let runs = |container: &Container| ![CREATED, STOPPED].contains(&container.state);
        let containers = call.containers.into_iter();
        let kept = containers.filter(|container| runs(container) && !choice.is_hooked(container));
        self.containers.extend(kept.map(|container| Container {
            hooks: None,
            ..container
        }));
        if self.pods.len() > MOST || self.containers.len() > MOST {
            return Err(Refusal::of_container(format!(
                "qfence can look at {MOST} pods and containers at most"
            )));
        }
        Ok(())
    }

    /// Those that are to be fenced, and those of which that cannot be known.
    #[must_use]
    pub fn late(self, choice: &Choice) -> Vec<Late> {
        let mut found = Vec::new();
        for container in self.containers {
            let known = self.pods.get(&container.pod_sandbox_id);
            let unknown = Pod {
                name: format!("with the id {}", container.pod_sandbox_id),
                ..Pod::default()
            };
            let pod = known.unwrap_or(&unknown);
            let asked = choice.asked(pod, &container).transpose();
            let nothing_known = || {
                let reason = "the runtime does not name its pod: its annotations are not known";
                Err(refused(pod, &container, reason))
            };
            let asked = match known {
                Some(_) => asked,
                None => asked.or_else(|| Some(nothing_known())),
            };
            let Some(asked) = asked else {
                continue;
            };
            found.push(Late {
                words: format!("the container {} of the pod {}", container.name, words(pod)),
                id: container.id,
                asked,
            });
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::nri::messages::Hooks;

    const RUNNING: i32 = 3;
    const PAUSED: i32 = 2;

    fn choice() -> Choice {
        Choice {
            program: "/q".into(),
            is_trusting: false,
            options: Vec::new(),
        }
    }

    fn pod(id: &str, key: &str, value: &str) -> Pod {
        Pod {
            id: id.into(),
            name: format!("name-of-{id}"),
            annotations: [(key.to_owned(), value.to_owned())].into(),
            ..Pod::default()
        }
    }

    fn container(id: &str, pod: &str, state: i32) -> Container {
        Container {
            id: id.into(),
            pod_sandbox_id: pod.into(),
            name: "main".into(),
            state,
            ..Container::default()
        }
    }

    #[test]
    fn what_runs_and_is_to_be_fenced_is_found_in_any_order() {
        let mut hooked = container("hooked", "asks", RUNNING);
        let created = choice().create(&pod("asks", "qfence", "on"), &hooked);
        let hooks: Option<Hooks> = created.unwrap().adjust.unwrap().hooks;
        hooked.hooks = hooks;
        let mut collected = Collected::default();
        let calls = [
            Synchronize {
                containers: vec![
                    container("late", "asks", RUNNING),
                    container("plain", "does-not", RUNNING),
                    container("paused", "asks", PAUSED),
                    container("created", "asks", CREATED),
                    container("ended", "asks", STOPPED),
                    container("in no known state", "asks", 0),
                    container("of another", "not-listed", RUNNING),
                ],
                more: true,
                ..Synchronize::default()
            },
            Synchronize {
                pods: vec![
                    pod("asks", "qfence.deny", "lan"),
                    pod("does-not", "x", ""),
                    pod("asks-wrong", "qfence", "off"),
                ],
                containers: vec![hooked, container("wrong", "asks-wrong", RUNNING)],
                more: false,
            },
        ];
        for call in calls {
            collected.add(call, &choice()).unwrap();
        }
        let late = collected.late(&choice());
        let ids: Vec<_> = late.iter().map(|late| late.id.as_str()).collect();
        assert_eq!(
            ids,
            ["late", "paused", "in no known state", "of another", "wrong"]
        );
        assert_eq!(late[0].asked.as_ref().unwrap().options, ["--deny=lan"]);
        assert_eq!(late[0].words, "the container main of the pod /name-of-asks");
        let unknown = late[3].asked.as_ref().unwrap_err().message();
        assert!(unknown.contains("with the id not-listed"), "{unknown}");
        assert!(unknown.contains("are not known"), "{unknown}");
        assert!(late[4].asked.is_err());
    }

    #[test]
    fn their_number_is_bounded() {
        let mut collected = Collected::default();
        let call = Synchronize {
            containers: vec![container("c", "p", RUNNING); MOST],
            ..Synchronize::default()
        };
        collected.add(call.clone(), &choice()).unwrap();
        assert!(collected.add(call, &choice()).is_err());
    }
}
