//! Programs that execute the program in their arguments, and how to find it there. Pure.

use std::ffi::OsString;

use super::name;

/// A program that executes another one.
struct Wrapper {
    name: &'static str,
    /// The options whose value is a word of its own, if it is not attached. The others have none.
    with_value: &'static [&'static str],
    /// The number of arguments before the program.
    arguments: usize,
}

const fn wrapper(
    name: &'static str,
    with_value: &'static [&'static str],
    arguments: usize,
) -> Wrapper {
    Wrapper {
        name,
        with_value,
        arguments,
    }
}

const WRAPPERS: [Wrapper; 20] = [
    wrapper(
        "chrt",
        &[
            "-T",
            "-P",
            "-D",
            "--sched-runtime",
            "--sched-period",
            "--sched-deadline",
        ],
        1,
    ),
    wrapper("command", &[], 0),
    wrapper("doas", &["-C", "-u"], 0),
    wrapper(
        "env",
        &["-u", "--unset", "-C", "--chdir", "-a", "--argv0"],
        0,
    ),
    wrapper("exec", &["-a"], 0),
    wrapper(
        "flock",
        &["-w", "--timeout", "--wait", "-E", "--conflict-exit-code"],
        1,
    ),
    wrapper("ionice", &["-c", "--class", "-n", "--classdata"], 0),
    wrapper("nice", &["-n", "--adjustment"], 0),
    wrapper("nohup", &[], 0),
    wrapper("numactl", &["-i", "-C", "-N", "-m", "-p", "-P", "-w"], 0),
    wrapper("prlimit", &[], 0),
    wrapper(
        "runuser",
        &["-u", "--user", "-g", "--group", "-G", "--supp-group", "-w"],
        0,
    ),
    wrapper(
        "setpriv",
        &[
            "--ambient-caps",
            "--inh-caps",
            "--bounding-set",
            "--ruid",
            "--euid",
            "--rgid",
            "--egid",
            "--reuid",
            "--regid",
            "--groups",
            "--securebits",
            "--pdeathsig",
            "--selinux-label",
            "--apparmor-profile",
        ],
        0,
    ),
    wrapper("setsid", &[], 0),
    wrapper(
        "stdbuf",
        &["-i", "--input", "-o", "--output", "-e", "--error"],
        0,
    ),
    wrapper(
        "strace",
        &[
            "-a", "-b", "-e", "-E", "-I", "-o", "-O", "-P", "-s", "-S", "-u", "-U", "-X",
        ],
        0,
    ),
    wrapper(
        "sudo",
        &[
            "-C",
            "--close-from",
            "-D",
            "--chdir",
            "-g",
            "--group",
            "-h",
            "--host",
            "-p",
            "--prompt",
            "-R",
            "--chroot",
            "-r",
            "--role",
            "-t",
            "--type",
            "-T",
            "--command-timeout",
            "-u",
            "--user",
            "-U",
            "--other-user",
        ],
        0,
    ),
    wrapper("taskset", &[], 1),
    wrapper("time", &["-f", "--format", "-o", "--output"], 0),
    wrapper("timeout", &["-k", "--kill-after", "-s", "--signal"], 1),
];

/// The words from the program on that the wrappers before it, if there are any, execute in the end.
pub(super) fn of_program(command: &[OsString]) -> Option<&[OsString]> {
    let mut words = command;
    loop {
        let (first, rest) = words.split_first()?;
        let Some(wrapper) = WRAPPERS.iter().find(|known| known.name == name(first)) else {
            return Some(words);
        };
        words = wrapper.executed(rest)?;
    }
}

impl Wrapper {
    /// The words that it executes.
    fn executed<'a>(&self, words: &'a [OsString]) -> Option<&'a [OsString]> {
        let mut words = words;
        while let Some((first, rest)) = words.split_first() {
            let text = first.to_string_lossy();
            if text == "--" {
                words = rest;
                break;
            }
            if !text.starts_with('-') {
                break;
            }
            let skipped = usize::from(self.takes_next(&text));
            words = rest.get(skipped..)?;
        }
        words = words.get(self.arguments..)?;
        // Variables of env and sudo. No program that is searched has such a name.
        let is_variable = |word: &&OsString| word.to_string_lossy().contains('=');
        let variables = words.iter().take_while(is_variable).count();
        words.get(variables..)
    }

    /// Whether the value of this option is the next word, as getopt(3) parses them.
    fn takes_next(&self, option: &str) -> bool {
        if option.starts_with("--") {
            return self.with_value.contains(&option);
        }
        // The first letter with a value ends a group of letters.
        let letters = option.char_indices().skip(1);
        let has_value = |letter: char| self.with_value.contains(&format!("-{letter}").as_str());
        let mut with_value = letters.filter(|(_, letter)| has_value(*letter));
        let first = with_value.next();
        first.is_some_and(|(at, letter)| at + letter.len_utf8() == option.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(line: &str) -> Option<String> {
        let command: Vec<_> = line.split(' ').map(OsString::from).collect();
        let words = of_program(&command)?;
        let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        Some(words.join(" "))
    }

    #[test]
    fn the_program_is_behind_the_options_and_arguments_of_wrappers() {
        for before in [
            "",
            "nice ",
            "nice -n 5 ",
            "nice -n5 ",
            "nice -5 ",
            "nice --adjustment 5 ",
            "nice --adjustment=5 ",
            "timeout 60 ",
            "timeout -k 5 -s KILL 60 ",
            "/usr/bin/timeout --foreground 60 ",
            "env -u A ",
            "env -iu A B=c ",
            "env - A=b ",
            "env -- A=b ",
            "taskset -c 1 ",
            "chrt -f 10 ",
            "ionice -c 2 -n 0 ",
            "stdbuf -oL -e 0 ",
            "strace -f -o log ",
            "flock -w 5 /run/lock ",
            "setpriv --reuid 1000 --clear-groups ",
            "sudo -u me -- ",
            "nohup nice -n 5 timeout 60 env -u A ",
        ] {
            let line = format!("{before}docker run -n x");
            assert_eq!(found(&line).as_deref(), Some("docker run -n x"), "{line}");
        }
    }

    #[test]
    fn an_argument_is_no_program() {
        for line in [
            "grep docker file",
            "man docker",
            "nice -n 5 grep docker file",
            "timeout 60 man docker",
            "env -u docker grep x",
        ] {
            let found = found(line).unwrap();
            let is_other = found.starts_with("grep") || found.starts_with("man");
            assert!(is_other, "{line}: {found}");
        }
        for line in [
            "nice",
            "timeout 60",
            "env -u",
            "env -u docker",
            "taskset -c",
        ] {
            assert_eq!(
                found(line).filter(|found| !found.is_empty()),
                None,
                "{line}"
            );
        }
    }
}
