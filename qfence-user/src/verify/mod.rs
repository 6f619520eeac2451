//! Shows on the user's own kernel that a fence holds, in a private network that ends with the process.
pub mod listeners;
pub mod netns;
pub mod scene;
pub mod wire;
pub mod witness;
