//! The names of a fence's current and former rules.

use crate::{
    policy::{Policy, names::Names},
    stored_policy::{FileVersion, PolicyFile},
};

/// The names of the rules of a running fence. Other processes can change its policy.
#[derive(Debug)]
pub struct RuleNames {
    names: Names,
    policy_file: PolicyFile,
    version: Option<FileVersion>,
}

impl RuleNames {
    /// The names of the rules in `policy`, and of rules that are later stored for the fence.
    #[must_use]
    pub fn new(policy: &Policy, policy_file: PolicyFile) -> Self {
        Self {
            names: Names::of(policy),
            policy_file,
            version: None,
        }
    }

    /// The current names.
    pub fn now(&mut self) -> &Names {
        let version = self.policy_file.file_version();
        if version != self.version
            && let Ok(Some(stored)) = self.policy_file.read()
        {
            self.names.learn(&stored.policy);
            self.version = version;
        }
        &self.names
    }
}
