//! The kernel objects of a whole fence, as text for another process that checks them.

use std::{fmt, fs, os::unix::fs::MetadataExt as _, path::Path, str::FromStr};

use anyhow::{Context as _, Error, Result};
use qfence_common::Hook;

/// The objects of one hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The hook.
    pub hook: Hook,
    /// The id of the attached program.
    pub program: u32,
    /// The inode of its link's pin, since another object could be pinned under its name. `None` if there was no pin.
    pub pin: Option<u64>,
}

/// The objects of all hooks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts(pub Vec<Part>);

impl Parts {
    /// The programs and their ids, with the pins that are in a directory now.
    #[must_use]
    pub fn new(programs: &[(Hook, u32)], pins: &Path) -> Self {
        let part = |(hook, program): &(Hook, u32)| Part {
            hook: *hook,
            program: *program,
            pin: fs::symlink_metadata(pins.join(hook.name()))
                .ok()
                .map(|pin| pin.ino()),
        };
        Self(programs.iter().map(part).collect())
    }

    /// The hooks at which the fence has programs.
    pub fn hooks(&self) -> impl Iterator<Item = Hook> {
        self.0.iter().map(|part| part.hook)
    }

    /// The objects of a hook.
    #[must_use]
    pub fn of(&self, hook: Hook) -> Option<Part> {
        self.0.iter().copied().find(|part| part.hook == hook)
    }
}

/// `HOOK:PROGRAM:PIN`, separated by commas.
impl fmt::Display for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Part { hook, program, pin }) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            // No inode has number 0.
            write!(f, "{comma}{}:{program}:{}", hook.name(), pin.unwrap_or(0))?;
        }
        Ok(())
    }
}

impl FromStr for Parts {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let part = |text: &str| -> Result<Part> {
            let mut fields = text.split(':');
            let mut next = || fields.next().context("a field is missing");
            let name = next()?;
            let mut hooks = Hook::ALL.into_iter().chain(Hook::LSM);
            let hook = hooks.find(|hook| hook.name() == name);
            Ok(Part {
                hook: hook.with_context(|| format!("there is no hook {name:?}"))?,
                program: next()?.parse()?,
                pin: Some(next()?.parse()?).filter(|inode| *inode != 0),
            })
        };
        let parts: Result<_> = text.split_terminator(',').map(part).collect();
        Ok(Self(parts?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_says_all_of_it() {
        let parts = Parts(vec![
            Part {
                hook: Hook::Connect4,
                program: 12,
                pin: Some(345),
            },
            Part {
                hook: Hook::Egress,
                program: u32::MAX,
                pin: None,
            },
            Part {
                hook: Hook::UnixMaySend,
                program: 7,
                pin: Some(8),
            },
        ]);
        let word = parts.to_string();
        assert_eq!(
            word,
            "connect4:12:345,egress:4294967295:0,unix_may_send:7:8"
        );
        assert_eq!(word.parse::<Parts>().unwrap(), parts);
        let hooks: Vec<_> = parts.hooks().collect();
        assert_eq!(hooks, [Hook::Connect4, Hook::Egress, Hook::UnixMaySend]);
        assert_eq!("".parse::<Parts>().unwrap(), Parts::default());
        for odd in ["connect4", "connect4:1", "nowhere:1:2", "connect4:x:2", ","] {
            assert!(odd.parse::<Parts>().is_err(), "{odd}");
        }
    }
}
