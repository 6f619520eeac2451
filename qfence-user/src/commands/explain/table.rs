//! The table of `explain`.

use comfy_table::{Table, presets::NOTHING};

use super::{Answer, Explained};
use crate::{
    base::printable::printable,
    compile::explain::{Case, Explanation, NameExplanation},
    policy::guard::Struck,
};

/// The answers as a table.
pub(super) fn table(answers: &[Answer<'_>]) -> String {
    let mut table = Table::new();
    table.load_preset(NOTHING);
    table.set_header([
        "DESTINATION",
        "LAYER",
        "PROTOCOL, PORTS",
        "VERDICT",
        "RULE",
        "FROM",
        "MATCHED BY",
    ]);
    for Answer {
        destination,
        explained,
    } in answers
    {
        let mut name = (*destination).to_owned();
        let explanation = match explained {
            Explained::Address(explanation) => explanation,
            Explained::Name(explanation) => {
                for row in rows_of_name(name, explanation) {
                    table.add_row(row);
                }
                continue;
            }
        };
        for (layer, cases) in layers(explanation) {
            for case in cases {
                table.add_row(row(std::mem::take(&mut name), layer, case));
            }
        }
    }
    table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect::<Vec<_>>()
        .join("\n")
}

/// The rows of a name: its look-up, what rules allow at its addresses, the addresses in force, and those that were struck.
fn rows_of_name(destination: String, of: &NameExplanation) -> Vec<[String; 7]> {
    let row = |layer: &str, which: &str, verdict: &str, rule: &str, source: &str, by: &str| {
        [layer, which, verdict, rule, source, by].map(str::to_owned)
    };
    let lookup = words_of(of.lookup);
    let mut rows = vec![row("lookup", "A, AAAA", lookup, &of.rule, &of.source, "-")];
    for granted in &of.granted {
        let which = if granted.which.is_empty() {
            "all"
        } else {
            &granted.which
        };
        let (rule, source, by) = (&granted.rule, &granted.source, &granted.by);
        rows.push(row("addresses", which, "allow", rule, source, by));
    }
    if of.connection == "by-address" {
        let rest = match of.granted[..] {
            [] => "all",
            _ => "the rest",
        };
        let rule = "the other rules, by address";
        rows.push(row("addresses", rest, "-", rule, "-", "-"));
    }
    for found in &of.addresses {
        let layer = format!("{} ({} s)", found.address, found.seconds);
        for case in &found.by_address {
            let [_, cells @ ..] = self::row(String::new(), &layer, case);
            rows.push(cells);
        }
    }
    for Struck { address, set } in &of.struck {
        let layer = format!("{address} (struck)");
        let set = printable(set.as_bytes());
        let rule = format!("no name leads to {set}");
        rows.push(row(&layer, "all", "deny", &rule, "built in", &set));
    }
    let firsts = std::iter::once(destination).chain(std::iter::repeat(String::new()));
    firsts
        .zip(rows)
        .map(|(first, [a, b, c, d, e, f])| [first, a, b, c, d, e, f])
        .collect()
}

/// The cases of the two layers; of one, if they are equal.
fn layers(explanation: &Explanation) -> Vec<(&'static str, &[Case])> {
    let Explanation {
        by_address,
        through_loopback,
        ..
    } = explanation;
    let said = |case: &Case| {
        let Case {
            which,
            verdict,
            rule,
            unless_self,
            ..
        } = case.clone();
        (which, verdict, rule, unless_self)
    };
    if by_address
        .iter()
        .map(said)
        .eq(through_loopback.iter().map(said))
    {
        return vec![("both", by_address)];
    }
    vec![("address", by_address), ("loopback", through_loopback)]
}

/// A verdict in words.
fn words_of(verdict: &'static str) -> &'static str {
    match verdict {
        "monitored" => "allow (monitored: would deny)",
        verdict => verdict,
    }
}

fn row(destination: String, layer: &str, case: &Case) -> [String; 7] {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let matched = case.set.as_ref().map(|set| match &case.member {
        Some(member) if member != set => format!("{set} ({member})"),
        _ => set.clone(),
    });
    let mut rule = match &case.comment {
        Some(comment) => format!("{} ({comment})", case.rule),
        None => case.rule.clone(),
    };
    if let Some(own) = &case.unless_self {
        rule.push_str(&format!("; {own}, if the listener was made in the fence"));
    }
    [
        destination,
        layer.to_owned(),
        if case.which.is_empty() {
            "all".to_owned()
        } else {
            case.which.clone()
        },
        words_of(case.verdict).to_owned(),
        rule,
        or_dash(case.source.clone()),
        or_dash(matched),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::explain::{Granted, InForce};

    #[test]
    fn a_name_has_a_row_for_each_address_and_for_those_that_were_struck() {
        let case = Case {
            which: String::new(),
            verdict: "deny",
            rule: "deny 203.0.113.10".to_owned(),
            source: Some("--deny 203.0.113.10".to_owned()),
            comment: None,
            unless_self: None,
            set: None,
            member: None,
        };
        let explained = Explained::Name(NameExplanation {
            name: "www.example.org".to_owned(),
            lookup: "allow",
            rule: "allow *.example.org".to_owned(),
            source: "--allow *.example.org".to_owned(),
            connection: "allow",
            granted: vec![Granted {
                which: "tcp 443".to_owned(),
                rule: "allow *.example.org".to_owned(),
                source: "--allow *.example.org".to_owned(),
                by: "*.example.org".to_owned(),
            }],
            addresses: vec![InForce {
                address: "203.0.113.10".parse().unwrap(),
                seconds: 58,
                by_address: vec![case],
            }],
            struck: vec![Struck {
                address: "10.0.0.1".parse().unwrap(),
                set: "lan".into(),
            }],
        });
        let text = table(&[Answer {
            destination: "www.example.org",
            explained,
        }]);
        let rows: Vec<String> = text
            .lines()
            .skip(1)
            .map(|row| row.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(
            rows,
            [
                "www.example.org lookup A, AAAA allow allow *.example.org --allow *.example.org -",
                "addresses tcp 443 allow allow *.example.org --allow *.example.org *.example.org",
                "203.0.113.10 (58 s) all deny deny 203.0.113.10 --deny 203.0.113.10 -",
                "10.0.0.1 (struck) all deny no name leads to lan built in lan",
            ]
        );
    }
}
