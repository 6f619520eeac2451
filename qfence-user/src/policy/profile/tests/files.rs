use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
};

use nix::{
    sys::stat::Mode,
    unistd::{Gid, Uid, chown, geteuid, mkfifo},
};
use tempfile::TempDir;

use super::*;

/// A directory of profiles that belongs to the caller.
struct Directory(TempDir);

impl Directory {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    fn write(&self, file: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(file);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        path
    }

    fn find(&self, name: impl AsRef<OsStr>) -> Result<Profile, ProfileError> {
        Profiles::new(self.0.path(), [geteuid()]).find(name.as_ref())
    }

    /// The error with its cause, and without the name of the directory.
    fn error(&self, name: impl AsRef<OsStr>) -> String {
        let error = self.find(name).unwrap_err();
        let chain = format!("{:#}", anyhow::Error::new(error));
        chain.replace(&self.0.path().display().to_string(), "DIR")
    }
}

const DENY: &str = "default = \"deny\"";

#[test]
fn a_name_is_a_file_in_the_directory_or_a_shipped_profile() {
    let directory = Directory::new();
    assert_eq!(directory.find("host").unwrap().path, None);
    let path = directory.write("web.toml", DENY);
    let web = directory.find("web").unwrap();
    assert_eq!((web.name.as_str(), web.path), ("web", Some(path)));
    // The administrator's profile overrides the shipped one, even if it is invalid.
    let path = directory.write("host.toml", DENY);
    let host = directory.find("host").unwrap();
    assert_eq!((host.default, host.path), (Action::Deny, Some(path)));
    directory.write("host.toml", "");
    assert!(directory.find("host").is_err());
    symlink("nowhere", directory.path("locked.toml")).unwrap();
    assert!(directory.find("locked").is_err());
}

#[test]
fn a_path_is_a_file_wherever_it_is() {
    let directory = Directory::new();
    let path = directory.write("My profile.toml", DENY);
    let profile = directory.find(&path).unwrap();
    assert_eq!(
        (profile.name.as_str(), profile.path),
        ("My profile", Some(path))
    );
    let path = directory.write("no-ending", DENY);
    assert_eq!(directory.find(path).unwrap().name, "no-ending");
    // Text that ends in .toml is a path, even without a slash.
    assert!(
        directory
            .error("no-such.toml")
            .starts_with("cannot read no-such.toml: ")
    );
}

#[test]
fn without_a_directory_there_are_the_shipped_profiles() {
    let directory = Directory::new();
    let profiles = Profiles::new(&directory.path("none"), []);
    assert!(profiles.find(OsStr::new("host")).is_ok());
    let names: Vec<_> = profiles.names().unwrap().into_iter().collect();
    assert_eq!(names, ["host", "internet-only", "locked", "names-only"]);
}

#[test]
fn the_text_of_a_profile_is_that_of_the_file_that_counts() {
    let directory = Directory::new();
    let profiles = Profiles::new(directory.0.path(), [geteuid()]);
    let text = || profiles.text(OsStr::new("locked")).unwrap();
    let shipped = text();
    assert_eq!(
        Profile::parse("locked", None, &shipped)
            .unwrap()
            .rules
            .len(),
        0
    );
    directory.write("locked.toml", DENY);
    assert_eq!(text(), DENY);
    assert_ne!(text(), shipped);
    assert!(profiles.text(OsStr::new("no-such")).is_err());
}

#[test]
fn every_error_with_a_file_says_what_it_is() {
    let directory = Directory::new();
    directory.write("web.toml", DENY);
    directory.write("Not a name.toml", DENY);
    let unknown = [
        "no-such",
        "Web",
        "",
        "a b",
        "../web",
        "/no/such.toml",
        "caf\u{e9}",
        "\u{1b}[m",
    ];
    let mut errors: Vec<_> = unknown.iter().map(|name| directory.error(name)).collect();

    directory.write("binary.toml", b"# \n\xff\xfe");
    fs::create_dir(directory.path("directory.toml")).unwrap();
    mkfifo(&directory.path("fifo.toml"), Mode::S_IRUSR).unwrap();
    symlink("/dev/null", directory.path("device.toml")).unwrap();
    symlink("nowhere", directory.path("link.toml")).unwrap();
    let large = directory.write("large.toml", "");
    fs::File::options()
        .write(true)
        .open(large)
        .and_then(|file| file.set_len(MAX_BYTES + 1))
        .unwrap();
    let world = directory.write("world.toml", DENY);
    fs::set_permissions(world, fs::Permissions::from_mode(0o646)).unwrap();
    directory.write("text.toml", "default = \"maybe\"");
    for name in [
        "binary",
        "directory",
        "fifo",
        "device",
        "link",
        "large",
        "world",
        "text",
    ] {
        errors.push(directory.error(name));
    }
    insta::assert_snapshot!(errors.join("\n\n"));
}

#[test]
fn only_root_and_the_caller_are_believed() {
    let directory = Directory::new();
    let path = directory.write("web.toml", DENY);
    if !geteuid().is_root() {
        // It is the caller's, and other callers must not trust it.
        let others = Profiles::new(directory.0.path(), []);
        let error = others.find(OsStr::new("web")).unwrap_err();
        assert!(matches!(error, ProfileError::Owner { .. }), "{error}");
        return;
    }
    let somebody = Uid::from_raw(65_534);
    chown(&path, Some(somebody), Some(Gid::from_raw(65_534))).unwrap();
    let error = directory.find("web").unwrap_err();
    assert!(
        matches!(error, ProfileError::Owner { owner: 65_534, .. }),
        "{error}"
    );
    let theirs = Profiles::new(directory.0.path(), [somebody]);
    assert!(theirs.find(OsStr::new("web")).is_ok());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).unwrap();
    let error = theirs.find(OsStr::new("web")).unwrap_err();
    assert!(matches!(error, ProfileError::Writable { .. }), "{error}");
}

#[test]
fn a_file_of_the_largest_size_is_read() {
    let directory = Directory::new();
    let padding = usize::try_from(MAX_BYTES).unwrap() - DENY.len() - 1;
    directory.write("web.toml", format!("{DENY}#{}", "x".repeat(padding)));
    assert!(directory.find("web").is_ok());
    directory.write("web.toml", format!("{DENY}#{}", "x".repeat(padding + 1)));
    assert!(matches!(
        directory.find("web"),
        Err(ProfileError::TooLarge { .. })
    ));
}
