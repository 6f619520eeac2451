//! Completions for bash, zsh and fish. `qfence` is a link to qfence-user, and is completed like it.

use anyhow::{Context as _, Result};
use clap::Command;
use clap_complete::{Shell, generate};

/// The short name of qfence-user.
const SHORT: &str = "qfence";

/// The program that has a short name.
const LONG: &str = "qfence-user";

/// The files of a program: path and text.
pub(super) fn files(program: &Command) -> Result<Vec<(String, String)>> {
    let name = program.get_name();
    let has_short = name == LONG;
    let script = |shell| -> Result<String> {
        let mut script = Vec::new();
        generate(shell, &mut program.clone(), name, &mut script);
        String::from_utf8(script).context("a completion that is no text")
    };
    let (mut bash, mut zsh) = (script(Shell::Bash)?, script(Shell::Zsh)?);
    // clap_complete writes a hyphen of the program's name in two ways, so no verb would be found (clap's issue 6421).
    bash = bash.replace(&name.replace('-', "__subcmd__"), &name.replace('-', "__"));
    let mut files = Vec::new();
    if has_short {
        // As clap_complete names it.
        let function = format!("_{}", LONG.replace('-', "__"));
        bash.push_str(&format!(
            "\ncomplete -F {function} -o nosort -o bashdefault -o default {SHORT}\n"
        ));
        let (first, rest) = zsh.split_once('\n').context("an empty completion")?;
        zsh = format!("{first} {SHORT}\n{rest}");
        let fish = format!("complete -c {SHORT} -w {LONG}\n");
        files.push((format!("completions/{SHORT}.fish"), fish));
    }
    files.push((format!("completions/{name}.bash"), bash));
    files.push((format!("completions/_{name}"), zsh));
    files.push((format!("completions/{name}.fish"), script(Shell::Fish)?));
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs, process};

    use super::*;
    use crate::programs;

    fn all() -> BTreeMap<String, String> {
        let files = |program: &Command| files(program).unwrap();
        programs().iter().flat_map(files).collect()
    }

    #[test]
    fn every_shell_completes_both_programs() {
        let files = all();
        let names: Vec<_> = files.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "completions/_qfence-user",
                "completions/_qfence-verify",
                "completions/qfence-user.bash",
                "completions/qfence-user.fish",
                "completions/qfence-verify.bash",
                "completions/qfence-verify.fish",
                "completions/qfence.fish",
            ]
        );
        assert!(files["completions/_qfence-user"].starts_with("#compdef qfence-user qfence\n"));
        for (name, text) in &files {
            assert!(
                !text.contains("stand-in") && !text.contains("dead-man"),
                "{name}"
            );
        }
    }

    /// What bash offers for a line, by the function that the script registers.
    fn offered(script: &str, words: &[&str]) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("script");
        fs::write(&file, script).unwrap();
        let words = words.join(" ");
        let line = format!(
            "source {file}; COMP_WORDS=({words}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 )); \
             current=${{COMP_WORDS[COMP_CWORD]}}; before=${{COMP_WORDS[COMP_CWORD-1]}}; \
             function=$(complete -p $COMP_WORDS | sed 's/.*-F \\([^ ]*\\).*/\\1/'); \
             $function $COMP_WORDS \"$current\" \"$before\"; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            file = file.display()
        );
        let said = process::Command::new("bash")
            .args(["--norc", "-u", "-c", &line])
            .output()
            .unwrap();
        assert!(said.status.success() && said.stderr.is_empty(), "{said:?}");
        let text = String::from_utf8(said.stdout).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn bash_completes_verbs_and_options_by_either_name() {
        let files = all();
        let user = &files["completions/qfence-user.bash"];
        for name in ["qfence-user", "qfence"] {
            assert_eq!(offered(user, &[name, "exe"]), ["exec"]);
            let options = offered(user, &[name, "exec", "--deny"]);
            assert!(options.contains(&"--deny-with".to_owned()), "{options:?}");
            assert_eq!(offered(user, &[name, "policy", "sug"]), ["suggest"]);
        }
        let verify = &files["completions/qfence-verify.bash"];
        assert_eq!(offered(verify, &["qfence-verify", "--js"]), ["--json"]);
    }
}
