//! The names of addresses (PTR). Rules name no such names, so in a fence an address has none.

use super::{table::GLIBC, *};

#[test]
fn addresses_have_no_names_and_nobody_is_asked_for_them() -> Result<()> {
    let mut bed = Bed::new(RESOLV_CONFS[0])?;
    let reverse = Client {
        line: "getent hosts NAME",
        ..GLIBC
    };
    for is_fenced in [true, false] {
        let host = bed.place.next("plain", ALLOWED, Family::V4);
        let [address] = host.addresses[..] else {
            anyhow::bail!("{host:?}");
        };
        let address = Host {
            name: address.to_string(),
            addresses: vec![address],
        };
        let outcome = if is_fenced {
            bed.fenced(&GLIBC, &host)?;
            bed.fenced(&reverse, &address)?
        } else {
            bed.open(&reverse, &address)?
        };
        ensure!(!outcome.is_success, "{address:?}: {outcome:?}");
        let mut labels: Vec<_> = address.name.split('.').collect();
        labels.reverse();
        let asked = format!("{}.in-addr.arpa", labels.join("."));
        ensure!(bed.place.nameserver.knows(&asked) != is_fenced, "{asked}");
    }
    Ok(())
}
