//! The names of the rules that a fence has or had.

use crate::{
    policy::{Policy, names::Names},
    stored_policy::{FileVersion, PolicyFile},
};

/// The names of the rules of a running fence, whose policy others can change.
#[derive(Debug)]
pub struct RuleNames {
    names: Names,
    policy_file: PolicyFile,
    version: Option<FileVersion>,
}

impl RuleNames {
    /// The names of a policy's rules, and of those that come into the store of its fence.
    #[must_use]
    pub fn new(policy: &Policy, policy_file: PolicyFile) -> Self {
        Self {
            names: Names::of(policy),
            policy_file,
            version: None,
        }
    }

    /// The names as they are now.
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
