//! Findings as a table.

use comfy_table::{ContentArrangement, Table, presets::NOTHING};

use super::finding::{Finding, State};

/// The table, at most `width` columns wide, followed by a summary.
#[must_use]
pub fn table(findings: &[Finding], width: u16) -> String {
    let mut table = Table::new();
    table.load_preset(NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(width);
    table.set_header(["CHECK", "STATE", "RESULT, AND WHAT TO DO"]);
    for finding in findings {
        let text = match &finding.fix {
            Some(fix) => format!("{}\n→ {fix}", finding.found),
            None => finding.found.clone(),
        };
        table.add_row([finding.name.as_str(), finding.state.name(), text.as_str()]);
    }
    let lines: Vec<String> = table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    format!("{}\n\n{}", lines.join("\n"), verdict(findings))
}

/// The summary of the findings.
fn verdict(findings: &[Finding]) -> String {
    let count = |state| findings.iter().filter(|f| f.state == state).count();
    match (count(State::Missing), count(State::Degraded)) {
        (0, 0) => "This host has everything that qfence needs.".to_owned(),
        (0, degraded) => {
            format!("This host has what qfence needs; {degraded} of the checks are degraded.")
        }
        (missing, _) => {
            format!("qfence cannot work on this host: {missing} of the checks are missing.")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finding_is_in_it_and_what_to_do() {
        let findings = [
            Finding::ok("kernel", "Linux 6.1"),
            Finding::missing("cgroup2", "not mounted", "mount it"),
            Finding::degraded("lockdown", "unknown", "look"),
        ];
        let text = table(&findings, 80);
        for word in ["kernel", "ok", "cgroup2", "missing", "→ mount it", "→ look"] {
            assert!(text.contains(word), "{word}: {text}");
        }
        assert!(text.ends_with("1 of the checks are missing."), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80));
        let text = table(&findings[2..], 80);
        assert!(text.ends_with("1 of the checks are degraded."), "{text}");
    }
}
