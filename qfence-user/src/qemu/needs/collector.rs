//! Collects the needs, and makes paths absolute.

use std::{
    ffi::{OsStr, OsString},
    path::{Component, Path, PathBuf},
};

use qfence_common::Protocol;

use super::{
    Kind, Needs, Setting,
    refused::{Reason, Refused},
};
use crate::{
    confinement::{Listener, UnixName},
    qemu::configuration::Item,
};

/// Collects the needs of one QEMU.
pub(super) struct Collector<'a> {
    setting: &'a Setting<'a>,
    /// All of its options.
    pub(super) items: &'a [Item],
    /// The option whose needs are collected.
    pub(super) item: Option<&'a Item>,
    /// What was collected.
    pub(super) needs: Needs,
}

impl<'a> Collector<'a> {
    pub(super) fn new(setting: &'a Setting<'a>, items: &'a [Item]) -> Self {
        Self {
            setting,
            items,
            item: None,
            needs: Needs::default(),
        }
    }

    /// A file that is only read, or a directory of such files.
    pub(super) fn read(&mut self, text: &str) {
        let path = self.absolute(text);
        self.needs.grants.read.extend(path);
    }

    /// A file or a device that is read and written, or a directory of such files.
    pub(super) fn write(&mut self, text: &str) {
        let path = self.absolute(text);
        self.needs.grants.write.extend(path);
    }

    /// A file that is read, and unless `read_only` written.
    pub(super) fn file(&mut self, text: &str, read_only: bool) {
        if read_only {
            self.read(text);
        } else {
            self.write(text);
        }
    }

    /// A file that the command did not name: only if it exists.
    pub(super) fn read_if_present(&mut self, path: &Path) {
        if self.is_path_present(path) {
            self.needs.grants.read.insert(path.to_owned());
        }
    }

    /// A device or directory that the command did not name: only if it exists.
    pub(super) fn write_if_present(&mut self, path: &Path) {
        if self.is_path_present(path) {
            self.needs.grants.write.insert(path.to_owned());
        }
    }

    /// A file that is written, and made if it does not exist.
    pub(super) fn output(&mut self, text: &str) {
        let Some(path) = self.absolute(text) else {
            return;
        };
        if !self.is_path_present(&path) {
            self.make_beside(text);
        }
        self.needs.grants.write.insert(path);
    }

    /// A socket or a file that is made and removed, so that its directory changes.
    pub(super) fn make_beside(&mut self, text: &str) {
        let path = self.absolute(text);
        let directory = path.as_deref().and_then(Path::parent);
        self.needs.grants.make.extend(directory.map(Path::to_owned));
    }

    /// A Unix socket that QEMU connects to, by its path.
    pub(super) fn connect(&mut self, text: &str) {
        let Some(path) = self.absolute(text) else {
            return;
        };
        // A name of a socket has no `..`.
        let mut plain = PathBuf::new();
        for part in path.components() {
            match part {
                Component::ParentDir => {
                    plain.pop();
                }
                part => plain.push(part),
            }
        }
        self.connect_name(plain.into_os_string());
    }

    /// A Unix socket that QEMU connects to: an absolute path, or `@NAME`. QEMU reports names that are invalid.
    pub(super) fn connect_name(&mut self, name: OsString) {
        let name = UnixName::parse(name).ok();
        self.needs.grants.connect.extend(name);
    }

    /// A port that QEMU binds. A service's name or 0 is none.
    pub(super) fn listen(&mut self, protocol: Protocol, port: &str) {
        if let Ok(port) = port.parse() {
            self.listen_to(protocol, port, port);
        }
    }

    /// Ports of which QEMU binds the first that is free.
    pub(super) fn listen_to(&mut self, protocol: Protocol, first: u16, last: u16) {
        if first != 0 && first <= last {
            self.needs.grants.listen.insert(Listener {
                protocol,
                first,
                last,
            });
        }
    }

    /// The option that is collected cannot work under some closures.
    pub(super) fn refuse(&mut self, reason: &'static Reason) {
        let argument = self.item.map_or("QEMU", |item| item.argument.as_str());
        if let Some(refused) = Refused::new(argument, reason, self.setting.strict)
            && !self.needs.refused.contains(&refused)
        {
            self.needs.refused.push(refused);
        }
    }

    /// A variable of the environment that the command keeps. Returns its value, unless it is empty.
    pub(super) fn keep(&mut self, name: &'static str) -> Option<&'a OsStr> {
        let value = self.variable(name)?;
        self.needs.grants.environment.insert(name);
        Some(value)
    }

    /// A variable of the environment, unless it is empty.
    pub(super) fn variable(&self, name: &str) -> Option<&'a OsStr> {
        let value = self.setting.environment.get(OsStr::new(name))?;
        (!value.is_empty()).then_some(value)
    }

    /// A file in the user's home directory.
    pub(super) fn in_home(&self, name: &str) -> Option<PathBuf> {
        let home = Path::new(self.variable("HOME")?);
        home.is_absolute().then(|| home.join(name))
    }

    /// What a path leads to.
    pub(super) fn kind(&self, text: &str) -> Kind {
        let path = self.absolute(text);
        path.map_or(Kind::Missing, |path| (self.setting.kind)(&path))
    }

    fn is_path_present(&self, path: &Path) -> bool {
        (self.setting.kind)(path) != Kind::Missing
    }

    /// The absolute path. `None` for a path that is no file (a descriptor), and for one that cannot be known, because
    /// its bytes are not UTF-8 and were replaced.
    fn absolute(&self, text: &str) -> Option<PathBuf> {
        let is_none = text.is_empty()
            || text.starts_with("/dev/fdset/")
            || text.contains(['\0', char::REPLACEMENT_CHARACTER]);
        (!is_none).then(|| {
            let path = self.setting.directory.join(text);
            // Without `.` and empty components. `..` remains: it is resolved where the path is opened.
            path.components().collect()
        })
    }
}
