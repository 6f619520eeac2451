//! Keys, and the settings that they change.

/// A key that was pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A character.
    Char(char),
    /// The arrow up.
    Up,
    /// The arrow down.
    Down,
    /// Enter.
    Enter,
    /// Escape.
    Escape,
    /// Backspace.
    Backspace,
    /// Ctrl-C.
    Interrupt,
}

/// The order of the fences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// By name.
    #[default]
    Name,
    /// By attempts per second.
    Rate,
    /// By total attempts.
    Attempts,
    /// By bytes per second, in both directions.
    Traffic,
}

impl Order {
    /// The name of the order, as shown.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Rate => "attempts/s",
            Self::Attempts => "attempts",
            Self::Traffic => "traffic",
        }
    }

    /// The next order; after the last, the first.
    #[must_use]
    pub fn next(self) -> Self {
        match self {
            Self::Name => Self::Rate,
            Self::Rate => Self::Attempts,
            Self::Attempts => Self::Traffic,
            Self::Traffic => Self::Name,
        }
    }
}

/// The overlay over the view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Over {
    /// No overlay.
    #[default]
    Nothing,
    /// The list of keys.
    Help,
    /// The rules that refused.
    Rules,
}
