//! The archives of Debian's packages: the same ones that this machine's apt uses.

use anyhow::{Context as _, Result};

use crate::shell;

/// The release that the machine runs.
pub(super) const RELEASE: &str = "bookworm";
/// The keys that sign Debian's archives.
pub(super) const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The lines of a `sources.list` for the release.
pub(super) fn sources() -> Result<String> {
    let mut query = shell::program("apt-get");
    query.args(["indextargets", "Created-By: Packages", "Origin: Debian"]);
    query.args(["--format", "$(LABEL) $(REPO_URI)"]);
    let archives = shell::output(&mut query).context("asking apt for its sources")?;
    sources_of(&archives).context(
        "the sources of this machine's apt have no Debian archive: add one (`deb URI SUITE main` \
         in /etc/apt/sources.list.d/debian.list), then run `apt-get update`",
    )
}

/// Makes the lines from a list of archives, each a line of label and URI. `None` if the main archive is missing. The
/// archive of security updates is used if there is one.
fn sources_of(archives: &str) -> Option<String> {
    let uri = |wanted: &str| {
        let mut archives = archives.lines().filter_map(|line| line.split_once(' '));
        archives.find_map(|(label, uri)| (label == wanted).then_some(uri))
    };
    let line = |uri: &str, suite: &str| format!("deb [signed-by={KEYRING}] {uri} {suite} main\n");
    let mut lines = line(uri("Debian")?, RELEASE);
    if let Some(uri) = uri("Debian-Security") {
        lines.push_str(&line(uri, &format!("{RELEASE}-security")));
    }
    Some(lines)
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
            sources_of(archives).unwrap(),
            format!(
                "deb [signed-by={KEYRING}] http://mirror.example/debian/ bookworm main\n\
                 deb [signed-by={KEYRING}] http://mirror.example/security/ bookworm-security main\n"
            )
        );
    }

    #[test]
    fn security_updates_may_be_missing_and_the_archive_may_not() {
        let sources = sources_of("Debian http://mirror.example/debian/\n").unwrap();
        assert_eq!(sources.lines().count(), 1);
        assert_eq!(
            sources_of("Debian-Security http://mirror.example/s/\n"),
            None
        );
        assert_eq!(sources_of(""), None);
    }
}
