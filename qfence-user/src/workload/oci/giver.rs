//! Who may have given the annotations of a container.

use std::collections::BTreeMap;

/// Who may have given annotations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Giver {
    /// Someone who is trusted.
    Trusted,
    /// The user of an engine, or an image.
    User,
    /// Whoever may make pods.
    Pods,
}

/// The beginnings of annotations that containerd and CRI-O, or their kubelet, add to each container of a pod.
const OF_PODS: [&str; 3] = [
    "io.kubernetes.cri.",
    "io.kubernetes.pod.",
    "io.kubernetes.container.",
];

impl Giver {
    /// Who may have given all annotations of a container.
    #[must_use]
    pub fn of(annotations: &BTreeMap<String, String>, are_trusted: bool) -> Self {
        let is_of_pod = |key: &String| OF_PODS.iter().any(|begin| key.starts_with(begin));
        match are_trusted {
            true => Self::Trusted,
            false if annotations.keys().any(is_of_pod) => Self::Pods,
            false => Self::User,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::annotations::{AnnotationError, tests::of};

    #[test]
    fn a_pod_takes_no_name_that_others_need() {
        for of_pod in [
            "io.kubernetes.cri.sandbox-id",
            "io.kubernetes.pod.terminationGracePeriod",
            "io.kubernetes.container.hash",
        ] {
            let pairs = [(of_pod, "x"), ("qfence.name", "web")];
            assert_eq!(of(&pairs, false), Err(AnnotationError::Taken), "{of_pod}");
            assert_eq!(of(&pairs, true).unwrap(), ["--name=web"]);
            let others = [(of_pod, "x"), ("qfence.deny", "lan")];
            assert_eq!(of(&others, false).unwrap(), ["--deny=lan"]);
        }
        let pairs = [("io.kubernetes", "x"), ("qfence.name", "web")];
        assert_eq!(of(&pairs, false).unwrap(), ["--name=web"]);
    }
}
