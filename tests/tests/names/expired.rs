//! An address whose time is over is refused, and the record says since when.

use aya::maps::{HashMap, Map, MapData};
use jiff::Timestamp;
use qfence_common::{Halves, abi::RESOLVED_MAP};
use qfence_user::kernel::pins::of_maps;

use super::*;

/// Ends the time of all addresses that names lead to. Otherwise it lasts half a minute at least.
fn end_all(fence: &Fence) -> Result<()> {
    let pins = Pins::new(Path::new("/sys/fs/bpf")).directory(fence.name());
    let map = MapData::from_pin(of_maps(&pins).join(RESOLVED_MAP))?;
    let mut map: HashMap<_, Halves, Resolved> = Map::from_map_data(map)?.try_into()?;
    let now = since_boot()?;
    let keys: Vec<Halves> = map.keys().collect::<Result<_, _>>()?;
    ensure!(!keys.is_empty(), "no address is in force");
    for key in keys {
        let of = map.get(&key, 0)?;
        let over = Resolved {
            expires_ns: now,
            until_ns: now,
            ..of
        };
        map.insert(key, over, 0)?;
    }
    Ok(())
}

#[test]
fn what_is_over_is_refused_and_the_record_says_since_when() -> Result<()> {
    let scene = Scene::new(&[("www.example.org", SERVER_V4)])?;
    let fence = locked("expired", &["www.example.org"])?;
    let mut shell = scene.shell(&fence)?;
    let query = "dns/127.0.0.53/www.example.org";
    assert_eq!(reply(&mut shell, query)?, SERVER_V4.to_string());
    let server = format!("tcp/{SERVER_V4}/{PORT}");
    // The control.
    assert!(one(&mut shell, &server)?.is_reached());
    end_all(&fence)?;
    // The kernel refuses it, whether the supervisor has noticed or not.
    assert!(one(&mut shell, &server)?.failed_with("ECONNREFUSED"));

    let pins = Pins::new(Path::new("/sys/fs/bpf")).directory(fence.name());
    let addresses = Addresses::open(&pins)?;
    wait_until("the supervisor has noticed", || {
        Ok(addresses.list()?.is_empty())
    })?;
    let other = one(&mut shell, &format!("tcp/{SERVER_V4}/{OTHER}"))?;
    assert!(other.failed_with("ECONNREFUSED"), "{other:?}");
    let is_it = |line: &serde_json::Value| line["port"] == OTHER;
    wait_until("the attempt is on record", || {
        Ok(fence.lines()?.iter().any(is_it))
    })?;
    let line = fence.lines()?.into_iter().find(is_it).unwrap_or_default();
    assert_eq!(line["names"][0], "www.example.org");
    let time = |field: &str| -> Result<Timestamp> {
        Ok(line[field].as_str().unwrap_or_default().parse()?)
    };
    assert!(time("expired")? <= time("time")?, "{line}");
    // A new look-up opens it again.
    assert_eq!(reply(&mut shell, query)?, SERVER_V4.to_string());
    assert!(one(&mut shell, &server)?.is_reached());
    Ok(())
}
