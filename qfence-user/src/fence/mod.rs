//! Fences: their registry, their cgroups, their limits, and whether they are whole.

pub mod cgroup;
pub mod cgroup_id;
pub mod description;
pub mod guard;
pub mod hierarchy;
pub mod integrity;
pub mod limits;
pub mod nested;
pub mod registry;
pub mod version;
