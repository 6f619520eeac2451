use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    time::{Duration, Instant},
};

use nix::{
    sys::stat::Mode,
    unistd::{Gid, Uid, chown, geteuid, mkfifo},
};
use proptest::prelude::*;
use tempfile::TempDir;

use super::{shipped::SHIPPED, *};

fn parse(text: &str) -> Profile {
    match Profile::parse("web", Some(Path::new("web.toml")), text) {
        Ok(profile) => profile,
        Err(error) => panic!("{error}"),
    }
}

/// What was asked for, and by which rule.
fn texts(profile: &Profile) -> Vec<String> {
    profile.rules.iter().map(ToString::to_string).collect()
}

#[test]
fn rules_come_in_order_with_their_lines_and_comments() {
    let profile = parse(
        "description = \"the web\"\ndefault = 'deny' # as it should be\n\n[[rule]]\n\
         allow = \"tcp:192.0.2.1:443\"\ncomment = \"the mirror\"\n\n[[rule]]\n\
         comment = 'nearby'\ndeny = [\n  \"lan\",\n  \"[fd00::/8]:80\", # all of it\n]\n",
    );
    assert_eq!(profile.description.as_deref(), Some("the web"));
    assert_eq!((profile.default, profile.default_line), (Action::Deny, 2));
    assert_eq!(
        texts(&profile),
        ["allow tcp:192.0.2.1:443", "deny lan [fd00::/8]:80"]
    );
    let comments: Vec<_> = profile
        .rules
        .iter()
        .map(|rule| rule.comment.as_deref())
        .collect();
    assert_eq!(comments, [Some("the mirror"), Some("nearby")]);
    let sources: Vec<_> = profile
        .rules
        .iter()
        .map(|rule| rule.source.to_string())
        .collect();
    assert_eq!(sources, ["web (web.toml:5)", "web (web.toml:10)"]);
}

#[test]
fn the_default_is_the_rule_behind_all_others() {
    let rule = parse("default = \"allow\"").default_rule();
    assert_eq!(rule.to_string(), "allow any");
    assert_eq!(rule.source.to_string(), "default of web (web.toml:1)");
}

#[test]
fn other_spellings_of_toml_are_the_same() {
    let tables = parse("default = \"allow\"\n[[rule]]\ndeny = \"lan\"\n[[rule]]\nallow = \"any\"");
    let inline = parse("default = '''allow'''\r\nrule = [{deny = ['lan']}, {allow = '''any'''}]");
    let marked = parse("\u{feff}rule = [{deny = ['lan']}, {allow = ['any']}]\ndefault = 'allow'");
    assert_eq!(texts(&tables), ["deny lan", "allow any"]);
    assert_eq!(texts(&inline), texts(&tables));
    assert_eq!(texts(&marked), texts(&tables));
}

#[test]
fn the_shipped_profiles_are_what_the_documents_say() {
    let [host, internet_only, locked] =
        SHIPPED.map(|shipped| Profile::parse(shipped.name, None, shipped.text).unwrap());
    assert_eq!(texts(&host), ["allow dns", "deny host"]);
    assert_eq!(host.default, Action::Allow);
    assert_eq!(
        texts(&internet_only),
        ["allow dns", "deny host lan link-local metadata multicast"]
    );
    assert_eq!(internet_only.default, Action::Allow);
    assert_eq!(texts(&locked), [""; 0]);
    assert_eq!(locked.default, Action::Deny);
    assert_eq!(host.rules[0].source.to_string(), "host (shipped, line 12)");
    for profile in [host, internet_only, locked] {
        assert!(profile.description.is_some());
    }
}

/// Texts that are no profile, with a line `---` between them.
const BAD: &str = include_str!("tests/bad.txt");

#[test]
fn every_error_in_a_text_points_at_it() {
    let long = format!(
        "default = \"deny\"\ndescription = \"{}\"",
        "x".repeat(MAX_COMMENT + 1)
    );
    let deep = format!("default = \"deny\"\nrule = {}", "[".repeat(500));
    let list = (0..300).map(|_| "\"192.0.2.1\", ").collect::<String>();
    let wide = format!("default = \"deny\"\n[[rule]]\nallow = [{list}\"192.0.2\", {list}]");
    let cases = BAD.split("---\n").chain([&*long, &*deep, &*wide]);
    let messages =
        cases.map(
            |text| match Profile::parse("web", Some(Path::new("web.toml")), text) {
                Ok(profile) => panic!("{text:?} was taken for {profile:?}"),
                Err(error) => format!("{error}\n"),
            },
        );
    insta::assert_snapshot!(messages.collect::<Vec<_>>().join("\n"));
}

#[test]
fn an_error_in_a_shipped_profile_would_say_so() {
    let error = Profile::parse("host", None, "").unwrap_err();
    assert!(error.to_string().starts_with("host (shipped):1:1: "));
}

#[test]
fn ten_thousand_prefixes_are_read_at_once() {
    let prefixes = (0..10_000u32).map(|n| {
        let [_, a, b, _] = n.to_be_bytes();
        match n % 2 {
            0 => format!("\"tcp:10.{a}.{b}.{}/32:80,443\"", n & 0xff),
            _ => format!("\"tcp:[fd00:{n:x}::/32]:80,443\""),
        }
    });
    let prefixes: Vec<_> = prefixes.collect();
    let list = format!(
        "default = 'deny'\n[[rule]]\nallow = [{}]",
        prefixes.join(",\n")
    );
    let rules: String = prefixes
        .iter()
        .map(|prefix| format!("[[rule]]\nallow = {prefix}\n"))
        .collect();
    for (text, rules) in [(list, 1), (format!("default = 'deny'\n{rules}"), 10_000)] {
        let started = Instant::now();
        let profile = parse(&text);
        let took = started.elapsed();
        println!("{} rules: {took:?}", profile.rules.len());
        assert_eq!(profile.rules.len(), rules);
        assert_eq!(
            profile
                .rules
                .iter()
                .map(|rule| rule.matches.len())
                .sum::<usize>(),
            10_000
        );
        // A hang, not a measure.
        assert!(took < Duration::from_secs(30), "it took {took:?}");
    }
}

/// A directory of profiles of the caller's.
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

    /// What it says, with its cause, and without the name of the directory.
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
    // The administrator's goes before the shipped one, whatever is wrong with it.
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
    // What ends in .toml is a path without a slash, too.
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
    assert_eq!(names, ["host", "internet-only", "locked"]);
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
        // It is the caller's; who else calls is not to believe it.
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

proptest! {
    #[test]
    fn anything_is_a_profile_or_an_error(text in ".*") {
        let _ = Profile::parse("web", None, &text).map_err(|error| error.to_string());
    }

    #[test]
    fn what_looks_like_a_profile_is_one_or_an_error(
        text in "((default|description|allow|deny|comment|rule) ?= ?\
                 (\"(deny|lan|tcp:|[0-9.:/]{0,8}|\\\\n)\"|\\[|\\]|\\{|\\}|1|,|\"\"\")\\r?\\n|\
                 \\[\\[rule\\]\\]\\n|# é\\n){0,8}",
    ) {
        let _ = Profile::parse("web", None, &text).map_err(|error| error.to_string());
    }
}
