//! docs/kernels.md: the tables and reasons between two marks. What is around them is written by hand.

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{
    cells::{ROWS, rows, verdicts_of},
    list,
};

/// The lines around what is written here.
const BEGIN: &str = "<!-- begin: written by `cargo xtask vm --kernel all` -->";
const END: &str = "<!-- end -->";

/// The parts of what `verify` says, and the field that names a row of each.
const PARTS: [(&str, &str); 4] = [
    ("attempts", "attempt"),
    ("must_work", "attempt"),
    ("devices", "frame"),
    ("closures", "attempt"),
];

/// The verdicts that make `verify` fail.
const BAD: [&str; 3] = ["passed", "broken", "unproven"];

/// A kernel's name, and its result.
type Named = (&'static str, Value);

/// The page with the tables of these results in place of those that it has.
pub(super) fn with_tables(page: &str, results: &[Named]) -> Result<String> {
    let (before, rest) = page
        .split_once(BEGIN)
        .with_context(|| format!("it has no line {BEGIN}"))?;
    let (_, after) = rest
        .split_once(END)
        .with_context(|| format!("it has no line {END}"))?;
    let mut made = table(results);
    for (name, result) in results {
        let reasons = reasons(result, results);
        if !reasons.is_empty() {
            made.push_str(&format!("\n### {name}\n\n"));
            for reason in reasons {
                made.push_str(&format!("- {}\n", in_one_line(&reason)));
            }
        }
    }
    Ok(format!("{before}{BEGIN}\n\n{made}\n{END}{after}"))
}

fn table(results: &[Named]) -> String {
    let line = |first: &str, cell: &dyn Fn(&Value) -> String| {
        let cells = results.iter().map(|(_, result)| cell(result));
        let cells: Vec<_> = std::iter::once(first.to_owned()).chain(cells).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let names: Vec<_> = results.iter().map(|(name, _)| *name).collect();
    let mut table = format!("| | {} |\n", names.join(" | "));
    table.push_str(&format!("|---|{}\n", "---|".repeat(results.len())));
    table.push_str(&line("release", &release));
    table.push_str(&line("tried at commit", &|result| text(&result["commit"])));
    for row in ROWS {
        table.push_str(&line(row.what, &|result| row.of(result)));
    }
    table
}

/// The kernel's release, as `doctor` or `verify` said.
fn release(result: &Value) -> String {
    let finding = list(&result["doctor"]).find(|finding| finding["name"] == "kernel");
    let found = finding.map(|finding| text(&finding["found"]));
    let found = found.unwrap_or_else(|| text(&result["verify"]["kernel"]));
    found.trim_start_matches("Linux ").to_owned()
}

/// Why a kernel has not what others have.
fn reasons(result: &Value, results: &[Named]) -> Vec<String> {
    let mut reasons = Vec::new();
    if let Some(error) = result["error"].as_str() {
        reasons.push(format!("It was not tried to the end: {error}"));
    }
    for command in list(&result["commands"]) {
        if command["status"] != 0 {
            let said: Vec<_> = list(&command["said"]).map(text).collect();
            let said = match said.as_slice() {
                [] => String::new(),
                said => format!(": {}", said.join(" / ")),
            };
            let (command, status) = (text(&command["command"]), &command["status"]);
            reasons.push(format!("`{command}` ends with status {status}{said}"));
        }
    }
    for finding in list(&result["doctor"]) {
        if finding["state"] != "ok" {
            let [name, state, found] =
                ["name", "state", "found"].map(|field| text(&finding[field]));
            reasons.push(format!("`doctor`, {name}: {state}: {found}"));
        }
    }
    if let Some(error) = result["verify"]["closures"]["strict_error"].as_str() {
        reasons.push(format!("`exec --strict` starts nothing: {error}"));
    }
    if let Some(why) = result["verify"]["devices"]["untried"].as_str() {
        reasons.push(format!("`verify` tries no frame of a guest: {why}"));
    }
    for (part, name) in PARTS {
        for verdict in BAD {
            let bad = with_verdict(result, part, name, &[verdict]);
            if !bad.is_empty() {
                reasons.push(format!("`verify`, {verdict}: {}", bad.join(", ")));
            }
        }
        let only = untried_only_here(result, results, part, name);
        if !only.is_empty() {
            reasons.push(format!(
                "`verify`, cannot be tried here: {}",
                only.join(", ")
            ));
        }
    }
    reasons
}

/// The names of the rows of a part that another kernel can try, and this one cannot.
fn untried_only_here(result: &Value, results: &[Named], part: &str, name: &str) -> Vec<String> {
    let others = results.iter().map(|(_, other)| other);
    let others: Vec<_> = others
        .filter(|other| !rows(other, part).is_empty())
        .map(|other| with_verdict(other, part, name, &["untried"]))
        .collect();
    let mut only = with_verdict(result, part, name, &["untried"]);
    only.retain(|row| !others.iter().all(|rows| rows.contains(row)));
    only
}

/// The names of the rows of a part with one of these verdicts, each once.
fn with_verdict(result: &Value, part: &str, name: &str, verdicts: &[&str]) -> Vec<String> {
    let mut names = Vec::new();
    for row in rows(result, part) {
        let is_one = verdicts_of(row).any(|verdict| verdicts.contains(&verdict));
        let name = text(&row[name]);
        if is_one && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Text that Markdown shows as it is.
fn in_one_line(text: &str) -> String {
    let words: Vec<_> = text.split_whitespace().collect();
    words.join(" ").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn results() -> Vec<Named> {
        let of = |release: &str, state: &str, verdict: &str| {
            json!({
                "commit": "abc",
                "commands": [{ "command": "smoke", "status": 1, "said": ["not", "so"] }],
                "doctor": [
                    { "name": "kernel", "state": "ok", "found": format!("Linux {release}") },
                    { "name": "managers", "state": state, "found": "no\nLandlock" },
                ],
                "verify": { "attempts": [{ "attempt": "sctp/::1/1", "verdict": verdict }] },
            })
        };
        vec![
            ("old", of("5.10.1", "degraded", "untried")),
            ("new", of("7.3.4", "ok", "passed")),
        ]
    }

    #[test]
    fn the_page_has_the_tables_and_what_was_around_them() {
        let page = format!("# Kernels\n\n{BEGIN}\nbefore\n{END}\n\nmore\n");
        let made = with_tables(&page, &results()).unwrap();
        assert!(made.starts_with("# Kernels\n\n<!-- begin"), "{made}");
        assert!(made.ends_with("<!-- end -->\n\nmore\n"), "{made}");
        assert!(!made.contains("before"), "{made}");
        assert!(made.contains("| release | 5.10.1 | 7.3.4 |"), "{made}");
        let again = with_tables(&made, &results()).unwrap();
        assert_eq!(made, again);
        assert!(with_tables("# Kernels\n", &results()).is_err());
    }

    #[test]
    fn reasons_are_given_for_what_is_not_so_elsewhere() {
        let results = results();
        let old = reasons(&results[0].1, &results).join("\n");
        assert!(old.contains("status 1: not / so"), "{old}");
        assert!(old.contains("managers: degraded: no\nLandlock"), "{old}");
        assert!(old.contains("cannot be tried here: sctp/::1/1"), "{old}");
        let new = reasons(&results[1].1, &results).join("\n");
        assert!(new.contains("`verify`, passed: sctp/::1/1"), "{new}");
        assert!(!new.contains("managers"), "{new}");
    }
}
