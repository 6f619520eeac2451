//! The archives of Debian's packages: the same ones that this machine's apt uses.

use std::collections::HashMap;

use anyhow::{Context as _, Result};

use crate::shell;

/// The release that the machine runs.
pub(super) const RELEASE: &str = "bookworm";
/// The keys that sign Debian's archives.
pub(super) const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The label of the main archive.
pub(super) const MAIN: &str = "Debian";
/// The label of the archive of security updates.
pub(super) const SECURITY: &str = "Debian-Security";

/// The addresses of the archives, by their labels. The main archive is among them.
#[derive(Debug)]
pub(super) struct Archives(HashMap<String, String>);

impl Archives {
    /// The archives of this machine's apt.
    pub(super) fn of_apt() -> Result<Self> {
        let mut query = shell::program("apt-get");
        query.args(["indextargets", "Created-By: Packages", "Origin: Debian"]);
        query.args(["--format", "$(LABEL) $(REPO_URI)"]);
        let archives = shell::output(&mut query).context("asking apt for its sources")?;
        Self::of(&archives).context(
            "the sources of this machine's apt have no Debian archive: add one (`deb URI SUITE main` \
             in /etc/apt/sources.list.d/debian.list), then run `apt-get update`",
        )
    }

    /// Reads a list of archives, each a line of label and URI. `None` if the main archive is missing.
    fn of(archives: &str) -> Option<Self> {
        let mut found = HashMap::new();
        for (label, uri) in archives.lines().filter_map(|line| line.split_once(' ')) {
            let entry = found.entry(label.to_owned());
            entry.or_insert_with(|| uri.to_owned());
        }
        found.contains_key(MAIN).then_some(Self(found))
    }

    /// The line of a `sources.list` for a suite of the archive with this label; `None` if there is no such archive.
    pub(super) fn line(&self, label: &str, suite: &str) -> Option<String> {
        let uri = self.0.get(label)?;
        Some(format!("deb [signed-by={KEYRING}] {uri} {suite} main\n"))
    }

    /// The lines of a `sources.list` for the machine's release. The archive of security updates is used if there is one.
    pub(super) fn of_release(&self) -> String {
        let main = self.line(MAIN, RELEASE);
        let security = self.line(SECURITY, &format!("{RELEASE}-security"));
        [main, security].into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archives_are_those_of_apt() {
        let archives = "Debian http://mirror.example/debian/\n\
            Debian http://mirror.example/debian/\n\
            Debian-Security http://mirror.example/security/\n";
        assert_eq!(
            Archives::of(archives).unwrap().of_release(),
            format!(
                "deb [signed-by={KEYRING}] http://mirror.example/debian/ bookworm main\n\
                 deb [signed-by={KEYRING}] http://mirror.example/security/ bookworm-security main\n"
            )
        );
    }

    #[test]
    fn security_updates_may_be_missing_and_the_archive_may_not() {
        let archives = Archives::of("Debian http://mirror.example/debian/\n").unwrap();
        assert_eq!(archives.of_release().lines().count(), 1);
        assert_eq!(archives.line(SECURITY, "bullseye-security"), None);
        assert!(Archives::of("Debian-Security http://mirror.example/s/\n").is_none());
        assert!(Archives::of("").is_none());
    }
}
