//! A cell of the tables: what one kernel has of one thing, from what `doctor`, `verify` and the tests said there.

use serde_json::Value;

use super::list;

/// A row of the tables.
pub(super) struct Row {
    /// What the row is about.
    pub(super) what: &'static str,
    cell: Cell,
}

/// Where the cells of a row come from.
enum Cell {
    /// The finding of `doctor` with this name is as required: the word for the first of these texts that it contains.
    Finding(&'static str, &'static [(&'static str, &'static str)]),
    /// All programs that each fence needs are loaded and attached.
    Programs,
    /// A command with these words has succeeded.
    Command(&'static str),
    /// So many rows of a part of what `verify` says have this verdict.
    Verdicts(&'static str, &'static str),
    /// `exec --strict` starts a command.
    Strict,
}

const YES: &str = "yes";

/// The rows.
pub(super) const ROWS: [Row; 19] = [
    row("smoke test", Cell::Command("smoke")),
    row("rules by name", Cell::Command("names")),
    row(
        "a guest that is fenced by its device",
        Cell::Command("device"),
    ),
    row("`doctor`: nothing is missing", Cell::Command("doctor")),
    row("`verify` ends with status 0", Cell::Command("verify")),
    row("the programs of each fence load and attach", Cell::Programs),
    row(
        "`--deny-with` chooses the error of a refused call",
        Cell::Finding("bpf_set_retval", &[]),
    ),
    row(
        "packets that leave are judged (egress)",
        Cell::Finding("program egress", &[]),
    ),
    row(
        "Unix sockets are judged by their names (connect_unix)",
        Cell::Finding("program connect_unix", &[]),
    ),
    row(
        "frames of guests, layer 1",
        Cell::Finding(
            "network devices",
            &[("tcx", "tcx"), ("traffic control", "traffic control")],
        ),
    ),
    row(
        "frames of guests, layer 2",
        Cell::Finding(
            "packets from guests",
            &[("nftables", "nftables"), ("netfilter", "netfilter")],
        ),
    ),
    row(
        "other processes cannot be traced or signalled",
        Cell::Finding("other processes", &[]),
    ),
    row(
        "managers cannot be used",
        Cell::Finding(
            "managers",
            &[
                ("security module BPF", "by lsm_cgroup"),
                ("Landlock", "by Landlock"),
            ],
        ),
    ),
    row("`exec --strict` starts", Cell::Strict),
    row(
        "attempts to reach the host: stopped",
        Cell::Verdicts("attempts", "stopped"),
    ),
    row(
        "attempts to reach the host: untried",
        Cell::Verdicts("attempts", "untried"),
    ),
    row(
        "what must work: works",
        Cell::Verdicts("must_work", "works"),
    ),
    row(
        "frames of guests: stopped",
        Cell::Verdicts("devices", "stopped"),
    ),
    row(
        "ways out that are no packets: closed",
        Cell::Verdicts("closures", "stopped"),
    ),
];

const fn row(what: &'static str, cell: Cell) -> Row {
    Row { what, cell }
}

impl Row {
    /// The cell of this row for a result.
    pub(super) fn of(&self, result: &Value) -> String {
        match self.cell {
            Cell::Finding(name, words) => finding(result, name, words),
            Cell::Programs => programs(result),
            Cell::Command(words) => command(result, words),
            Cell::Verdicts(part, verdict) => verdicts(result, part, verdict),
            Cell::Strict => strict(result),
        }
    }
}

fn finding(result: &Value, name: &str, words: &[(&str, &str)]) -> String {
    let Some(finding) = list(&result["doctor"]).find(|finding| finding["name"] == name) else {
        return "unknown".into();
    };
    if finding["state"] != "ok" {
        return "no".into();
    }
    let found = finding["found"].as_str().unwrap_or_default();
    let word = words.iter().find(|(part, _)| found.contains(part));
    word.map_or(YES, |(_, word)| word).into()
}

fn programs(result: &Value) -> String {
    let mut missing = Vec::new();
    let mut is_known = false;
    for finding in list(&result["doctor"]) {
        let name = finding["name"].as_str().unwrap_or_default();
        let Some(name) = name.strip_prefix("program ") else {
            continue;
        };
        is_known = true;
        if finding["state"] == "missing" {
            missing.push(name);
        }
    }
    match (is_known, missing.is_empty()) {
        (false, _) => "unknown".into(),
        (true, true) => YES.into(),
        (true, false) => format!("not {}", missing.join(", ")),
    }
}

fn command(result: &Value, words: &str) -> String {
    let is_it = |command: &&Value| {
        let line = command["command"].as_str().unwrap_or_default();
        line.split(' ').any(|word| word == words)
    };
    match list(&result["commands"]).find(is_it) {
        Some(command) if command["status"] == 0 => YES.into(),
        Some(_) => "no".into(),
        None => "unknown".into(),
    }
}

fn strict(result: &Value) -> String {
    let closures = &result["verify"]["closures"];
    match (&closures["rows"], &closures["strict_error"]) {
        (Value::Array(rows), Value::Null) if !rows.is_empty() => YES.into(),
        (Value::Array(_), Value::String(_)) => "no".into(),
        _ => "unknown".into(),
    }
}

fn verdicts(result: &Value, part: &str, verdict: &str) -> String {
    let rows = rows(result, part);
    if rows.is_empty() {
        return "none tried".into();
    }
    let are = |row: &&&Value| verdicts_of(row).any(|found| found == verdict);
    format!("{} of {}", rows.iter().filter(are).count(), rows.len())
}

/// The rows of a part of what `verify` says: a list, or an object with a list.
pub(super) fn rows<'a>(result: &'a Value, part: &str) -> Vec<&'a Value> {
    let part = &result["verify"][part];
    list(part).chain(list(&part["rows"])).collect()
}

/// The verdicts of a row of `verify`. A row of the closures has one for each kind of fence.
pub(super) fn verdicts_of(row: &Value) -> impl Iterator<Item = &str> {
    let cells = [row, &row["default"], &row["strict"]];
    cells
        .into_iter()
        .filter_map(|cell| cell["verdict"].as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn result() -> Value {
        json!({
            "commands": [
                { "command": "smoke", "status": 0 },
                { "command": "qfence-user verify --json", "status": 1 },
            ],
            "doctor": [
                { "name": "program egress", "state": "ok", "found": "loaded" },
                { "name": "program connect_unix", "state": "degraded", "found": "not" },
                { "name": "network devices", "state": "ok", "found": "attach (tcx)" },
            ],
            "verify": {
                "attempts": [{ "verdict": "stopped" }, { "verdict": "untried" }],
                "closures": {
                    "rows": [{ "default": { "verdict": "open" }, "strict": { "verdict": "stopped" } }],
                    "strict_error": null,
                },
            },
        })
    }

    #[test]
    fn a_cell_is_what_was_said() {
        let result = result();
        let words = [("tcx", "tcx")];
        assert_eq!(finding(&result, "network devices", &words), "tcx");
        assert_eq!(finding(&result, "program egress", &words), "yes");
        assert_eq!(finding(&result, "program connect_unix", &[]), "no");
        assert_eq!(command(&result, "smoke"), "yes");
        assert_eq!(command(&result, "verify"), "no");
        assert_eq!(programs(&result), "yes");
        assert_eq!(verdicts(&result, "attempts", "stopped"), "1 of 2");
        assert_eq!(verdicts(&result, "closures", "stopped"), "1 of 1");
        assert_eq!(strict(&result), "yes");
    }

    #[test]
    fn what_was_not_said_is_not_guessed() {
        let nothing = json!({ "error": "it does not boot" });
        for row in ROWS {
            let cell = row.of(&nothing);
            assert!(["unknown", "none tried"].contains(&cell.as_str()), "{cell}");
        }
        let missing = json!({ "doctor": [{ "name": "program egress", "state": "missing" }] });
        assert_eq!(programs(&missing), "not egress");
    }
}
