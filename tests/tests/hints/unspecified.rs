//! Servers at 0.0.0.0 and `::`, for which Linux connects to loopback.

use anyhow::Result;
use tests::{listener::Listeners, run::wait_until, world::World};

use super::{PORT, QEMU, lines, run};

#[test]
fn the_rules_of_a_hint_on_the_unspecified_address_let_it_work() -> Result<()> {
    let world = World::new()?;
    let services = Listeners::everywhere(&world.host, PORT)?;
    let user = &["--user", "nobody"][..];
    let bare = "-nodefaults -no-user-config -display none -machine none -nic none -monitor stdio";
    let bare: Vec<_> = bare.split(' ').collect();
    for (given, loopback) in [("0.0.0.0", "127.0.0.1"), ("[::]", "[::1]")] {
        let proxy = format!("http://{given}:{PORT}");
        let host = given.trim_matches(['[', ']']);
        let chardev = format!("socket,id=c,host={host},port={PORT}");
        let connect = format!("echo > /dev/tcp/{host}/{PORT}");
        let of_shell = ["bash", "-c", &connect];
        let of_qemu = [&[QEMU][..], &bare, &["-chardev", &chardev]].concat();
        let target = format!("{given}:{PORT}, on Linux {loopback}:{PORT}");
        let advice = format!("--allow tcp:{given}:{PORT} --allow tcp:{loopback}:{PORT}");
        for (variables, words, start) in [
            (
                &[("http_proxy", proxy.as_str())][..],
                &of_shell[..],
                format!("hint: http_proxy leads to {target}, "),
            ),
            (
                &[],
                &of_qemu,
                format!("hint: QEMU connects to {target} (-chardev {chardev}), "),
            ),
        ] {
            let ended = run(&world, user, variables, words)?;
            let hint = format!("{start}which is refused; give {advice} to allow it");
            assert_eq!(lines(&ended, "hint: "), [hint], "{ended:?}");
            let rules: Vec<_> = advice.split(' ').collect();
            // One of the rules is not enough, and then the hint is about the other one.
            for (options, missing) in [
                (&[][..], &rules[..]),
                (&rules[..2], &rules[2..]),
                (&rules[2..], &rules[..2]),
                (&rules[..], &[]),
            ] {
                let before = services.arrivals().len();
                let ended = run(&world, &[user, options].concat(), variables, words)?;
                let hints = lines(&ended, "hint: ");
                let is_allowed = missing.is_empty();
                assert_eq!(hints.is_empty(), is_allowed, "{ended:?}");
                let advice = format!("give {} to allow it", missing.join(" "));
                assert!(
                    hints.iter().all(|hint| hint.ends_with(&advice)),
                    "{ended:?}"
                );
                if is_allowed {
                    wait_until("an arrival", || Ok(services.arrivals().len() > before))?;
                }
                let has_arrived = services.arrivals().len() > before;
                assert_eq!(has_arrived, is_allowed, "{options:?}: {ended:?}");
            }
        }
    }
    Ok(())
}
