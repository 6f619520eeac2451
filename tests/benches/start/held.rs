//! What the kernel holds for a fence, by its own account (`memlock` in /proc/PID/fdinfo).

use std::{
    collections::BTreeMap,
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    maps::{ArrayOfMaps, Map, MapData, MapError},
    programs::loaded_programs,
};

/// Bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// Those of all maps, also of those in maps.
    pub(crate) maps: u64,
    /// Those of all programs.
    pub(crate) programs: u64,
}

impl Held {
    /// For the fence of a running supervisor, which has all of its programs open.
    pub(crate) fn of(supervisor: u32) -> Result<Self> {
        let (mut maps, mut programs) = (BTreeMap::new(), BTreeMap::new());
        for entry in fs::read_dir(format!("/proc/{supervisor}/fdinfo"))? {
            // One that was closed meanwhile is none of those.
            let info = fs::read_to_string(entry?.path()).unwrap_or_default();
            // A link says what it is of, too, and no size.
            if let Some(bytes) = field(&info, "memlock:") {
                maps.extend(field(&info, "map_id:").map(|id| (id, bytes)));
                programs.extend(field(&info, "prog_id:").map(|id| (id, bytes)));
            }
        }
        ensure!(!programs.is_empty(), "the supervisor holds no programs");
        for id in maps.keys().copied().collect::<Vec<_>>() {
            if let Some((id, bytes)) = inner(u32::try_from(id)?)? {
                maps.insert(id, bytes);
            }
        }
        for program in loaded_programs().flatten() {
            if programs.contains_key(&u64::from(program.id())) {
                // Those that the supervisor does not need itself.
                for id in program.map_ids()?.unwrap_or_default() {
                    if !maps.contains_key(&u64::from(id)) {
                        let (id, bytes) = account(&MapData::from_id(id)?)?;
                        maps.insert(id, bytes);
                    }
                }
            }
        }
        Ok(Self {
            maps: maps.values().sum(),
            programs: programs.values().sum(),
        })
    }
}

/// The map in a map, which no descriptor of the supervisor need be of; `None` if there is none, or if it is another
/// kind of map.
fn inner(id: u32) -> Result<Option<(u64, u64)>> {
    let Map::ArrayOfMaps(outer) = Map::from_map_data(MapData::from_id(id)?)? else {
        return Ok(None);
    };
    let outer = ArrayOfMaps::<_, MapData>::try_from(Map::ArrayOfMaps(outer))?;
    let map: MapData = match outer.get(&0, 0) {
        Err(MapError::KeyNotFound) => return Ok(None),
        found => found.context("look into a map of maps")?,
    };
    account(&map).map(Some)
}

/// The id of a map, and its size in bytes.
fn account(map: &MapData) -> Result<(u64, u64)> {
    let fd = map.fd().as_fd().as_raw_fd();
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}"))?;
    let found = field(&info, "map_id:").zip(field(&info, "memlock:"));
    found.context("the kernel does not report the size of a map")
}

fn field(info: &str, name: &str) -> Option<u64> {
    let value = info.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().parse().ok()
}
