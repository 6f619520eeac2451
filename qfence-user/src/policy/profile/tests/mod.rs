mod files;

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::{shipped::SHIPPED, *};

fn parse(text: &str) -> Profile {
    match Profile::parse("web", Some(Path::new("web.toml")), text) {
        Ok(profile) => profile,
        Err(error) => panic!("{error}"),
    }
}

/// The rules of a profile, as text.
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
    let [host, internet_only, locked, names_only] =
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
    assert_eq!(names_only.default, Action::Deny);
    let matches = names_only.rules.iter().flat_map(|rule| &rule.matches);
    assert!(matches.clone().count() > 10 && matches.clone().all(|of| of.pattern().is_some()));
    for profile in [host, internet_only, locked, names_only] {
        assert!(profile.description.is_some());
    }
}

/// Invalid profiles, with lines `---` between them.
const BAD: &str = include_str!("bad.txt");

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
    let sets = SetName::ALL.map(SetName::name).join(", ");
    let messages = messages.collect::<Vec<_>>().join("\n");
    insta::assert_snapshot!(messages.replace(&sets, "(all sets)"));
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
        // A limit for hangs, not a measurement.
        assert!(took < Duration::from_secs(30), "it took {took:?}");
    }
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
