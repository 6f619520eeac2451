//! The profiles that come with qfence.

/// A shipped profile.
#[derive(Clone, Copy, Debug)]
pub struct Shipped {
    /// Its name.
    pub name: &'static str,
    /// The text of its file.
    pub text: &'static str,
}

/// All of them, by name.
pub const SHIPPED: [Shipped; 4] = [
    Shipped {
        name: "host",
        text: include_str!("../../../profiles/host.toml"),
    },
    Shipped {
        name: "internet-only",
        text: include_str!("../../../profiles/internet-only.toml"),
    },
    Shipped {
        name: "locked",
        text: include_str!("../../../profiles/locked.toml"),
    },
    Shipped {
        name: "names-only",
        text: include_str!("../../../profiles/names-only.toml"),
    },
];
