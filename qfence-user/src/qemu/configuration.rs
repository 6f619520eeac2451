//! The configuration of a QEMU, from its arguments and its configuration files.

use std::{
    ffi::{OsStr, OsString},
    io,
    path::Path,
};

use super::{
    doors::Door,
    options::{Given, Part, split},
    parameters::Parameters,
    readconfig,
    syntax::{self, Syntax},
};
use crate::base::printable::printable;

/// The configuration files that QEMU reads by default: of distributions, and of a build from source.
const DEFAULT_FILES: [&str; 3] = [
    "/etc/qemu/qemu.conf",
    "/etc/qemu-kvm/qemu.conf",
    "/usr/local/etc/qemu/qemu.conf",
];

/// Where the parameters of an object are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In one word of QEMU's arguments, by its position.
    Word(usize),
    /// In one word, and a `-set` changes them.
    Changed,
    /// In a configuration file, or in a word that is no option.
    Elsewhere,
}

/// One object that QEMU is told to create, or one other option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The option without hyphens, or the name of the section.
    pub group: String,
    /// The parameters of the object.
    pub parameters: Parameters,
    /// The argument as the user wrote it.
    pub argument: String,
    /// Where it is written.
    pub place: Place,
}

impl Item {
    /// The value of an option that is one text.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        self.parameters.get(&self.group)
    }

    fn of_text(group: &str, text: &str, argument: String, place: Place) -> Self {
        let mut parameters = Parameters::default();
        parameters.set(group, text);
        Self {
            group: group.to_owned(),
            parameters,
            argument,
            place,
        }
    }
}

/// Reads QEMU's arguments and the files that they name. An unreadable file is a side door, because it could configure
/// any network.
pub fn gather(
    arguments: &[OsString],
    read: &dyn Fn(&Path) -> io::Result<String>,
) -> (Vec<Item>, Vec<Door>) {
    let mut gathered = Gathered {
        read,
        items: Vec::new(),
        doors: Vec::new(),
    };
    let parts = split(arguments);
    let skips_default = |part: &Part<'_>| match part {
        Part::Option(option) => matches!(option.name(), "no-user-config" | "nodefconfig"),
        Part::Image(_) => false,
    };
    if !parts.iter().any(skips_default) {
        for path in DEFAULT_FILES {
            gathered.read_default(Path::new(path));
        }
    }
    for part in &parts {
        match part {
            Part::Option(option) => gathered.take(option),
            // Its first disk, as with -hda.
            Part::Image(word) => gathered.items.push(Item::of_text(
                "hda",
                &word.to_string_lossy(),
                printable(word.as_encoded_bytes()),
                Place::Elsewhere,
            )),
        }
    }
    (gathered.items, gathered.doors)
}

struct Gathered<'a> {
    read: &'a dyn Fn(&Path) -> io::Result<String>,
    items: Vec<Item>,
    doors: Vec<Door>,
}

impl Gathered<'_> {
    fn take(&mut self, option: &Given<'_>) {
        let argument = written(option.word, option.value);
        let place = Place::Word(option.position);
        let (Some(value), name) = (option.value, option.name()) else {
            if let Some((group, Syntax::Flag)) = syntax::of(option.name()) {
                self.items.push(Item {
                    group: group.to_owned(),
                    parameters: Parameters::default(),
                    argument,
                    place,
                });
            }
            return;
        };
        let text = value.to_string_lossy();
        match (name, syntax::of(name)) {
            ("set", _) => self.change(&text, &argument),
            (_, Some((group, Syntax::Network(implied)))) => {
                match Parameters::parse(&text, implied) {
                    Ok(parameters) => self.items.push(Item {
                        group: group.to_owned(),
                        parameters,
                        argument,
                        place,
                    }),
                    Err(error) => self.doors.push(Door::unreadable_json(argument, &error)),
                }
            }
            (_, Some((group, Syntax::Keys(implied)))) => {
                // A value that cannot be read leads to no network. Nothing is known of it.
                if let Ok(parameters) = Parameters::parse(&text, implied) {
                    self.items.push(Item {
                        group: group.to_owned(),
                        parameters,
                        argument,
                        place,
                    });
                }
            }
            (_, Some((group, Syntax::Text))) => {
                if group == "readconfig" {
                    self.read_file(Path::new(value), argument.clone());
                }
                self.items
                    .push(Item::of_text(group, &text, argument, place));
            }
            // A flag has no value.
            (_, Some((_, Syntax::Flag)) | None) => {}
        }
    }

    /// Applies `-set group.id.key=value` to an earlier object.
    fn change(&mut self, text: &str, argument: &str) {
        let Some((path, value)) = text.split_once('=') else {
            return;
        };
        let mut path = path.splitn(3, '.');
        let (Some(group), Some(id), Some(key)) = (path.next(), path.next(), path.next()) else {
            return;
        };
        // If there is no such object, QEMU exits.
        let named = |item: &&mut Item| item.group == group && item.parameters.get("id") == Some(id);
        if let Some(item) = self.items.iter_mut().find(named) {
            item.parameters.set(key, value);
            item.place = match item.place {
                Place::Word(_) => Place::Changed,
                other => other,
            };
            item.argument.push_str(" with ");
            item.argument.push_str(argument);
        }
    }

    fn read_default(&mut self, path: &Path) {
        let argument = format!("{} (-no-user-config skips it)", path.display());
        match (self.read)(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => self.add_sections(result, &argument),
        }
    }

    fn read_file(&mut self, path: &Path, argument: String) {
        let result = (self.read)(path);
        self.add_sections(result, &argument);
    }

    fn add_sections(&mut self, text: io::Result<String>, argument: &str) {
        let text = match text {
            Ok(text) => text,
            Err(error) => return self.doors.push(Door::unreadable_file(argument, &error)),
        };
        match readconfig::sections(&text) {
            Ok(sections) => self.items.extend(sections.into_iter().map(|section| Item {
                argument: format!("{} in {argument}", printable(section.heading.as_bytes())),
                group: section.group,
                parameters: section.parameters,
                place: Place::Elsewhere,
            })),
            Err(line) => self.doors.push(Door::unreadable_line(argument, line)),
        }
    }
}

fn written(word: &OsStr, value: Option<&OsStr>) -> String {
    let safe = |text: &OsStr| printable(text.as_encoded_bytes());
    match value {
        Some(value) => format!("{} {}", safe(word), safe(value)),
        None => safe(word),
    }
}
