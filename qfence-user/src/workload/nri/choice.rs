//! Whether a container is to be fenced, and how it is made then.

use std::collections::BTreeMap;

use super::{
    call::Refusal,
    messages::{Adjustment, Container, Created, Hook, Hooks, Pod},
};
use crate::workload::oci::{annotations, bundle, giver::Giver};

/// How the plugin has containers fenced.
#[derive(Clone, Debug)]
pub struct Choice {
    /// The path of qfence-user on the node.
    pub program: String,
    /// Whether annotations may widen what a container reaches.
    pub is_trusting: bool,
    /// The policy of the fences: options of `attach`.
    pub options: Vec<String>,
}

/// What the annotations of a pod and of its container ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The annotations of qfence's.
    pub annotations: BTreeMap<String, String>,
    /// The options of `attach` that they are.
    pub options: Vec<String>,
}

impl Choice {
    /// What the annotations ask for; `None` if no fence.
    ///
    /// # Errors
    /// If they cannot be heeded.
    pub fn asked(&self, pod: &Pod, container: &Container) -> Result<Option<Asked>, Refusal> {
        let mut all = BTreeMap::new();
        for (key, value) in pod.annotations.iter().chain(&container.annotations) {
            if !annotations::is_ours(key) {
                continue;
            }
            let other = all.insert(key.clone(), value.clone());
            if other.is_some_and(|other| other != *value) {
                return Err(refused(
                    pod,
                    container,
                    &format!("the annotation {key} of the pod and that of the container differ"),
                ));
            }
        }
        if all.is_empty() {
            return Ok(None);
        }
        let giver = match self.is_trusting {
            true => Giver::Trusted,
            false => Giver::Pods,
        };
        let options = annotations::options(&all, giver)
            .map_err(|error| refused(pod, container, &error.to_string()))?;
        Ok(Some(Asked {
            annotations: all,
            options,
        }))
    }

    /// How a container is made: with the hooks, and with the annotations, which the hooks read.
    ///
    /// # Errors
    /// If it must not be made.
    pub fn create(&self, pod: &Pod, container: &Container) -> Result<Created, Refusal> {
        let Some(asked) = self.asked(pod, container)? else {
            return Ok(Created::default());
        };
        // Another plugin of qfence's was asked before.
        if let Some(options) = self.options_of(container) {
            if options == self.options() {
                return Ok(Created::default());
            }
            let reason = format!(
                "it has a hook of qfence's with other options ({options:?}) than those of this plugin ({:?}); both policies \
                 cannot hold, so give the plugins the same options",
                self.options
            );
            return Err(refused(pod, container, &reason));
        }
        let mut added = asked.annotations;
        added.retain(|key, _| !container.annotations.contains_key(key));
        let [create, stop] = bundle::STAGES.map(|stage| self.hook(stage));
        let hooks = Hooks {
            create_runtime: vec![create],
            poststop: vec![stop],
        };
        Ok(Created {
            adjust: Some(Adjustment {
                annotations: added,
                hooks: Some(hooks),
            }),
        })
    }

    /// Whether a container must have a fence before it starts, and has no hook that would make it.
    ///
    /// # Errors
    /// If it must not start.
    pub fn is_missing(&self, pod: &Pod, container: &Container) -> Result<Option<Asked>, Refusal> {
        let asked = self.asked(pod, container)?;
        Ok(asked.filter(|_| !self.is_hooked(container)))
    }

    /// Whether a container has the hook that fences it.
    #[must_use]
    pub fn is_hooked(&self, container: &Container) -> bool {
        self.options_of(container).is_some()
    }

    /// The options of the hook that fences a container. They may be those of another plugin of qfence's.
    fn options_of<'a>(&self, container: &'a Container) -> Option<&'a [String]> {
        let command = self.command(&[]);
        let hooks = &container.hooks.as_ref()?.create_runtime;
        let mut hooks = hooks.iter();
        hooks.find_map(|hook| command.options_of(&hook.path, &hook.args, bundle::STAGES[0]))
    }

    fn hook(&self, stage: &str) -> Hook {
        Hook {
            path: self.program.clone(),
            args: self.command(&self.options()).words(stage),
        }
    }

    fn command<'a>(&'a self, options: &'a [String]) -> bundle::Command<'a> {
        bundle::Command {
            path: &self.program,
            arguments: &["oci-hook"],
            options,
        }
    }

    /// The options of the hook.
    fn options(&self) -> Vec<String> {
        let trust = self.is_trusting.then(|| "--trust-annotations".to_owned());
        trust.into_iter().chain(self.options.clone()).collect()
    }
}

/// A container of a pod must not be made or started.
#[must_use]
pub fn refused(pod: &Pod, container: &Container, reason: &str) -> Refusal {
    Refusal::of_container(format!(
        "qfence: the container {} of the pod {}: {reason}",
        container.name,
        words(pod)
    ))
}

/// A pod in words.
#[must_use]
pub fn words(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace, pod.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice() -> Choice {
        Choice {
            program: "/usr/local/bin/qfence-user".into(),
            is_trusting: false,
            options: vec!["--profile=host".into()],
        }
    }

    fn pod(annotations: &[(&str, &str)]) -> Pod {
        Pod {
            name: "web".into(),
            namespace: "shop".into(),
            annotations: map(annotations),
            ..Pod::default()
        }
    }

    fn map(annotations: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        annotations.iter().map(owned).collect()
    }

    #[test]
    fn a_pod_with_an_annotation_gets_the_hooks_in_all_its_containers() {
        let pod = pod(&[("qfence.deny", "lan"), ("other", "x"), ("qfencer", "x")]);
        let created = choice().create(&pod, &Container::default()).unwrap();
        let adjust = created.adjust.unwrap();
        assert_eq!(adjust.annotations, map(&[("qfence.deny", "lan")]));
        let hooks = adjust.hooks.unwrap();
        let [create] = &hooks.create_runtime[..] else {
            panic!("{hooks:?}")
        };
        let [stop] = &hooks.poststop[..] else {
            panic!("{hooks:?}")
        };
        let program = "/usr/local/bin/qfence-user";
        assert_eq!(create.path, program);
        assert_eq!(
            create.args,
            [program, "oci-hook", "createRuntime", "--profile=host"]
        );
        assert_eq!(stop.args, [program, "oci-hook", "poststop"]);
    }

    #[test]
    fn other_pods_are_left_alone() {
        for annotations in [&[][..], &[("qfencer", "on"), ("x/qfence", "on")]] {
            let created = choice().create(&pod(annotations), &Container::default());
            assert_eq!(created, Ok(Created::default()));
        }
    }

    #[test]
    fn a_container_that_has_the_hook_does_not_get_it_twice() {
        let pod = pod(&[("qfence", "on")]);
        let mut container = Container::default();
        let first = choice().create(&pod, &container).unwrap().adjust.unwrap();
        assert!(choice().is_missing(&pod, &container).unwrap().is_some());
        container.hooks = first.hooks;
        container.annotations = first.annotations;
        assert_eq!(choice().create(&pod, &container), Ok(Created::default()));
        assert_eq!(choice().is_missing(&pod, &container), Ok(None));
        // It was made as another plugin says. That is decided when it is made.
        let mut other = choice();
        other.options = vec!["--profile=internet-only".into()];
        assert_eq!(other.is_missing(&pod, &container), Ok(None));
        // /usr/local can be a link, and the plugins can see it in different ways.
        let mut linked = choice();
        linked.program = "/var/usrlocal/bin/qfence-user".into();
        assert_eq!(linked.create(&pod, &container), Ok(Created::default()));
        assert_eq!(linked.is_missing(&pod, &container), Ok(None));
        linked.program = "/usr/local/bin/qfence".into();
        assert!(linked.is_missing(&pod, &container).unwrap().is_some());
        // Only this hook counts.
        let hook = &mut container.hooks.as_mut().unwrap().create_runtime[0];
        hook.args[2] = "poststop".into();
        assert!(choice().is_missing(&pod, &container).unwrap().is_some());
    }

    #[test]
    fn two_plugins_with_different_policies_make_no_container() {
        let pod = pod(&[("qfence", "on")]);
        let mut container = Container::default();
        let first = choice().create(&pod, &container).unwrap().adjust.unwrap();
        container.hooks = first.hooks;
        let mut stricter = choice();
        stricter.options = vec!["--profile=internet-only".into()];
        let mut trusting = choice();
        trusting.is_trusting = true;
        let mut none = choice();
        none.options = Vec::new();
        for other in [stricter, trusting, none] {
            let refused = other.create(&pod, &container).unwrap_err();
            assert!(refused.message().contains("other options"), "{refused:?}");
        }
    }

    #[test]
    fn what_cannot_be_heeded_keeps_the_container_from_being_made() {
        for annotations in [
            &[("qfence", "off")][..],
            &[("qfence.alow", "any")],
            &[("qfence.allow", "any")],
            &[("qfence.deny", " ")],
            &[("qfence.name", "web")],
        ] {
            let pod = pod(annotations);
            let refused = choice().create(&pod, &Container::default()).unwrap_err();
            assert!(refused.message().contains("shop/web"), "{refused:?}");
            assert!(choice().is_missing(&pod, &Container::default()).is_err());
        }
        let container = Container {
            annotations: map(&[("qfence.deny", "any")]),
            ..Container::default()
        };
        let refused = choice().create(&pod(&[("qfence.deny", "lan")]), &container);
        assert!(refused.unwrap_err().message().contains("differ"));
    }

    #[test]
    fn trust_is_passed_on_to_the_hook() {
        let mut choice = choice();
        choice.is_trusting = true;
        let pod = pod(&[("qfence.allow", "any"), ("qfence.name", "web")]);
        let created = choice.create(&pod, &Container::default()).unwrap();
        let hooks = created.adjust.unwrap().hooks.unwrap();
        assert_eq!(
            hooks.create_runtime[0].args[2..],
            ["createRuntime", "--trust-annotations", "--profile=host"]
        );
    }
}
