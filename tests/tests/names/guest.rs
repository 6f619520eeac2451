//! A guest behind QEMU's user network looks names up through the fence's resolver, whatever nameserver it asks.

use tests::guest::{Guest, Options};

use super::*;

#[test]
fn a_guest_reaches_the_names_of_rules_and_nothing_else() -> Result<()> {
    let scene = Scene::new(&[("www.example.org", SERVER_V4), ("other.example", SERVER_V4)])?;
    // libslirp answers at fec0::3 only if the host has a nameserver by IPv6. Nobody listens there.
    scene
        .world
        .write_resolv_conf("nameserver 127.0.0.53\nnameserver ::1\n")?;
    let rule = format!("tcp:www.example.org:{PORT}");
    let fence = locked("guest-names", &[&rule])?;
    let mut guest = Guest::boot(&scene.world, &fence.launcher(), &Options::default())?;
    let attempt = |guest: &mut Guest, attempt: &str| -> Result<ProbeResult> {
        let outcome = guest.attempt(attempt)?;
        Ok(outcome)
    };
    let server = format!("tcp/{SERVER_V4}/{PORT}");
    let refused = attempt(&mut guest, &server)?;
    assert!(!refused.is_reached(), "{refused:?}");
    for query in [
        "dns/10.0.2.3/www.example.org",
        "dns/fec0::3/www.example.org",
        "dns/198.51.100.99/www.example.org",
        "dns-tcp/198.51.100.99/www.example.org",
        "dns/2001:db8:7::99/www.example.org",
    ] {
        let outcome = attempt(&mut guest, query)?;
        assert!(outcome.says(&SERVER_V4.to_string()), "{query}: {outcome:?}");
    }
    for query in [
        "dns/10.0.2.3/other.example",
        "dns/198.51.100.99/other.example",
    ] {
        let outcome = attempt(&mut guest, query)?;
        assert!(outcome.says("rcode 3"), "{query}: {outcome:?}");
    }
    let reached = attempt(&mut guest, &server)?;
    assert!(reached.is_reached(), "{reached:?}");
    let other = attempt(&mut guest, &format!("tcp/{SERVER_V4}/{OTHER}"))?;
    assert!(!other.is_reached(), "{other:?}");
    let of_host = attempt(&mut guest, &format!("tcp/10.0.2.2/{PORT}"))?;
    assert!(!of_host.is_reached(), "{of_host:?}");
    Ok(())
}
