//! The command line of `attach` for a container: of the options of the hook, and of what the annotations ask for.

/// The length of the ids that engines make, and how much of one is the name of a fence.
const ID: usize = 64;
const SHORT: usize = 12;

/// The beginning of the option with the name of the fence.
const NAME: &str = "--name=";

/// The name of the fence of a container: what the annotations ask for, or the beginning of its id.
#[must_use]
pub fn name<'a>(id: &'a str, asked: &'a [String]) -> &'a str {
    let named = asked.iter().find_map(|word| word.strip_prefix(NAME));
    let short = match id.get(..SHORT) {
        Some(short) if id.len() == ID => short,
        _ => id,
    };
    named.unwrap_or(short)
}

/// The words after `attach`. Rules of annotations come first, except those that allow: these come last, so that no
/// annotation overrides a rule of the hook that denies.
#[must_use]
pub fn words(target: [&str; 2], id: &str, options: &[String], asked: &[String]) -> Vec<String> {
    let (allow, others): (Vec<_>, Vec<_>) = asked
        .iter()
        .filter(|word| !word.starts_with(NAME))
        .cloned()
        .partition(|word| word.starts_with("--allow="));
    let mut words = target.map(str::to_owned).to_vec();
    words.extend(["--detach".to_owned(), format!("{NAME}{}", name(id, asked))]);
    words.extend(others);
    words.extend(options.iter().cloned());
    words.extend(allow);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn an_annotation_does_not_override_a_rule_of_the_hook_that_denies() {
        let id = "ab".repeat(32);
        let options = owned(&["--deny", "any"]);
        let asked = owned(&["--deny=lan", "--allow=any", "--default=deny"]);
        assert_eq!(
            words(["--pid", "7"], &id, &options, &asked),
            [
                "--pid",
                "7",
                "--detach",
                "--name=abababababab",
                "--deny=lan",
                "--default=deny",
                "--deny",
                "any",
                "--allow=any"
            ]
        );
        let asked = owned(&["--name=web"]);
        assert_eq!(
            words(["--pid", "7"], "short", &[], &asked)[3..],
            ["--name=web"]
        );
        assert_eq!(name("short", &[]), "short");
    }
}
