//! Fences: their registry, places, limits and integrity.

pub mod beneath;
pub mod cgroup;
pub mod description;
pub mod devices;
pub mod guard;
pub mod hierarchy;
pub mod id;
pub mod integrity;
pub mod limits;
pub mod nested;
pub mod place;
pub mod registry;
pub mod version;
pub mod wired;
