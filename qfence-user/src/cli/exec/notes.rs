//! The text after the options of `exec --help`. clap wraps its paragraphs, but not its tables.

use qfence_common::{
    HOOKS, Hook,
    hook::{FRAME_HOOKS, LSM_HOOKS},
};

use crate::policy::{names::WITHOUT_RULE, set::SetName};

/// The width of a table.
const WIDTH: usize = 79;

/// Examples, the syntax of rules, the exit statuses, and the fields of a log line.
pub(super) fn notes() -> String {
    let sets = SetName::ALL.map(|set| row(&format!("    {:<12}", set.name()), set.description()));
    // Nothing is recorded of frames to a guest.
    let rows = HOOKS.iter().chain(&LSM_HOOKS).chain(&FRAME_HOOKS);
    let recorded = rows.filter(|row| row.hook != Hook::FrameOut);
    let hooks: Vec<&str> = recorded.map(|row| row.name).collect();
    let hooks = row("  hook         ", &hooks.join(", "));
    NOTES
        .replace("{sets}", &sets.concat())
        .replace("{hooks}", &hooks)
        .replace(
            "{without_rule}",
            &WITHOUT_RULE.map(|(_, name)| name).join(", "),
        )
}

/// A row of a table: `text` beside `name`, in as many lines as it needs.
fn row(name: &str, text: &str) -> String {
    let indent = name.chars().count();
    let mut lines = String::new();
    let mut line = name.to_owned();
    for word in text.split(' ') {
        if line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push_str(&line);
            lines.push('\n');
            line = " ".repeat(indent);
        }
        line.push(' ');
        line.push_str(word);
    }
    lines + &line + "\n"
}

/// The text, in which `{sets}` and `{hooks}` are rows of tables, and `{without_rule}` is a list.
const NOTES: &str = "\
Examples:
  sudo qfence-user exec -- qemu-system-x86_64 -enable-kvm -m 1024 -hda disk.qcow2
  sudo qfence-user exec --name ci --memory-max 4G --pids-max 500 -- ./run-job.sh
  sudo qfence-user exec --allow tcp:127.0.0.1:5432 -- qemu-system-x86_64 -m 1024 -hda disk.qcow2
  sudo qfence-user exec --profile internet-only --deny any:25 -- ./agent
  sudo qfence-user exec --profile locked --allow dns --allow tcp:192.0.2.7:443 -- ./fetch
  sudo qfence-user exec --dns deny --deny-with unreachable --log none -- curl http://localhost
  sudo qfence-user exec --keep -- qemu-system-x86_64 -daemonize -display none -hda disk.qcow2

A RULE is [PROTOCOL:]DESTINATION[:PORTS]. The first rule that matches decides.
  PROTOCOL     tcp, udp, icmp, sctp, dccp, udplite, gre, esp, …, proto-N;
               default: any
  DESTINATION  an address, a prefix (10.0.0.0/8, [fd00::/8]), a name (github.com,
               or *.github.com for all names below it), or a set:
{sets}  PORTS        80,443,8000-8080; default: all
With a protocol or ports, write an IPv6 address in brackets: udp:[fd00::1]:53.

Ctrl-Z stops the command and qfence. While they are stopped, another process (`qfence-user stand-in`) \
follows this host's addresses and nameservers and checks the fence for damage. If that process cannot be \
started, the command continues immediately. If root stops qfence with `kill -STOP`, nothing follows the \
host until qfence continues.

Exit status: that of the command, or 128 + N if signal N ended the command or its start, or
  125  qfence failed, or ended the command (--on-damage kill). Nothing runs any
       more, except a killed process that does not end; it stays fenced.
  126  the command cannot be executed
  127  the command was not found

Identical attempts (same process, protocol, destination, port, rule and hook) are grouped. The first is \
logged immediately. Repeats are summarised once per second. At most 95 lines per second are logged; one \
more line then summarises the rest. After 1,900 lines of a flood, summaries and this limit are per minute. \
The counts of all lines add up to the number of attempts.

Fields of a JSON log line. A field is null if its value is not known.
  v             the version of this format, 1; it changes if a field is added,
                removed or redefined
  time          RFC 3339, UTC; in repeats, the time of the last attempt
  fence         the name of the fence
  workload      with `attach`: kind and name of the unit, container, domain,
                pod or cgroup that made the attempt
  seq           the number of the line in the fence's record
  kind          attempt, repeats, folded, lost, dropped, allowed,
                traffic, lookup or open
  count         the number of attempts that this line reports
  total         the number of attempts that this and all earlier lines report
In lines of kind attempt and repeats:
  verdict       denied, or would-deny with --monitor
  layer         call, packet, socket, device or frame
{hooks}  protocol      tcp, udp, …, or a number; unix at unix_stream_connect and
                unix_may_send
  destination   the address
  port          the destination port; 0 if the protocol has no ports
  names         the names that the fence looked up and that led there
  socket        replaces destination and port if making a socket, or allowing
                it to broadcast, or (at unix_stream_connect and unix_may_send)
                the use of a manager's socket was refused: the type of the
                socket
  local         replaces destination and port if binding a socket was refused:
                the local address
  local_port    the local port, with local
  unix          replaces protocol, destination and port if the use of a name of
                a Unix socket was refused: the name; an abstract one begins with @;
                empty if it is not known
  manager       the manager that has this name, such as D-Bus, with unix
  device        replaces protocol, destination and port if opening a device, or
                (at file_receive) getting one from another process, was
                refused: its path
  frame         replaces protocol, destination and port if a frame of a guest
                was refused that is not IP: arp, or the number of its type
  target        with ARP the address that is asked for, with frame
  source        the source address
  source_port   the source port
  interface     the network device of the guest, at frame and local_in
  source_mac    the source MAC address, at frame
  expired       since when the names do not allow the destination any more
  dialled       the address that the guest dialled, if the command is a QEMU
                that translated it
  self          whether a rule such as --allow self would allow it, since the
                listener was made in this fence
  rule          the rule that decided, such as \"deny host\"
  comment       the comment of the rule in its profile
  pid           the process, in the initial pid namespace; at egress, the
                process that made the socket; none at frame and local_in
  tid           the thread
  uid           the user
  command       the name of the thread, with control and invisible characters
                as \\xNN; the process can forge it
  executable    the path of the executable; a process that can have a user
                namespace can forge it
  cgroup        the id of the cgroup of the process, or of the socket
  cgroup_path   the path of the cgroup
  netns         the inode of the network namespace of the process
  netns_cookie  the cookie of the network namespace of the socket
In lines of kind folded:
  lines         the number of lines that this line replaces
In lines of kind dropped (count is 0 if they are about no attempt):
  lines         the number of lines that are missing in this log
In lines of kind open, with attach --restart (count is 0):
  milliseconds  how long the target, started anew, was not fenced, at most
In lines of kind allowed and traffic, with --log-allowed (count is 0):
  calls         allowed connect() and sends to an address, since the last
                line about this protocol, destination and port
  sent_packets  packets to the destination since then
  sent_bytes    their bytes, with IP headers
  received_packets  packets from the destination since then
  received_bytes    their bytes, with IP headers
  destinations  replaces the destination if the line is about several
In lines of kind lookup, with rules by name (count is 0):
  verdict       denied, would-deny with --monitor, struck (answered without
                some addresses), failed (no nameserver gave an answer), full (without those for which there is no
                room), error (without those that the kernel failed to put in
                force), or allowed with --log-allowed
  name          the name; null if the line is about many names
  type          the type that was asked for, such as A or AAAA
  addresses     the addresses in the answer
  struck        the addresses that were taken out of the answer: address, and
                the set that it belongs to
  error         why no nameserver gave an answer
  lookups       the number of look-ups that this line reports
  again         whether an earlier line is about the same

In repeats, source, source_port, tid, uid, command and cgroup are those of the first attempt. Once the \
pid belongs to another process, or the process has executed another file, tid and uid are null and \
command is empty.

Refusals without a rule have one of these names in `rule`: {without_rule}; look-ups of what no rule by name can \
have, such as a name of one label: deny-name.

Attempts are `lost` if the kernel had no room to record them. They are `dropped` if this log was too \
slow, or if writing to it failed.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_all_sets_and_hooks() {
        let notes = notes();
        assert!(!notes.contains('{') && !notes.contains('}'), "{notes}");
        for set in SetName::ALL {
            assert!(notes.contains(&format!("\n    {set} ")), "{set}");
        }
        let hooks = "  hook          connect4, connect6, sendmsg4, sendmsg6, egress, ingress,\n";
        assert!(notes.contains(hooks), "{notes}");
        assert!(notes.contains(" local_in\n  protocol "), "{notes}");
        assert!(notes.contains(": deny-raw, deny-broadcast, "), "{notes}");
    }

    #[test]
    fn a_row_is_broken_between_words() {
        let long = "x".repeat(40);
        let text = format!("{long} {long} y");
        let expected = format!("  a {long}\n    {long} y\n");
        assert_eq!(row("  a", &text), expected);
    }
}
