//! The identity of a fence. A name can be used again, and a place can get another fence later.

use serde::{Deserialize, Serialize};

use crate::base::random;

/// The id of a fence. Successive fences of one name have different ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FenceId(String);

impl FenceId {
    /// The id of a new fence.
    #[must_use]
    pub fn random() -> Self {
        Self(format!("{:016x}", random::number()))
    }
}

/// The ids of a fence.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    /// Its own id. Some versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<FenceId>,
    /// The id of its cgroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fence_has_another_id() {
        let id = FenceId::random();
        assert_ne!(id, FenceId::random());
        let ids = Ids {
            id: Some(id),
            cgroup: Some(7),
        };
        let text = serde_json::to_string(&ids).unwrap();
        assert_eq!(serde_json::from_str::<Ids>(&text).unwrap(), ids);
    }
}
