//! Keys, and what they change.

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

/// What fences are ordered by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Their names.
    #[default]
    Name,
    /// Attempts a second.
    Rate,
    /// Attempts so far.
    Attempts,
    /// Bytes a second, in both directions.
    Traffic,
}

impl Order {
    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Rate => "attempts/s",
            Self::Attempts => "attempts",
            Self::Traffic => "traffic",
        }
    }

    /// The one after it, in a circle.
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

/// What lies over the view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Over {
    /// Nothing.
    #[default]
    Nothing,
    /// The keys.
    Help,
    /// The rules that refused.
    Rules,
}
