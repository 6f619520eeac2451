//! Makes and removes the pair of links of a network namespace, with their maps. Where a table of nftables takes the place of
//! the links, the maps have its members.

use std::{
    fs, io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use aya::Ebpf;
use qfence_common::{
    Hook,
    local_in::{LOCAL_IN_OFFSETS, Offsets},
};

use super::{
    Method,
    link::{self, Family},
    maps::{Maps, NAMES},
    nft::{Guard, Table},
    place::{self, Place},
};
use crate::{
    base::{
        files::directory::{Directory, Others},
        version,
    },
    kernel::{
        LOCAL_IN_OBJECT, bpffs, by_path, cast, device, link_info,
        load::{make_loader, take},
        maps::pinned,
        offsets,
        own_program::{OwnProgram, Source},
        pins,
        within::{find, within},
    },
};

/// The names of the links' pins.
const LINKS: [(Family, &str); 2] = [(Family::V4, "local_in4"), (Family::V6, "local_in6")];

const NO_LINKS: &str =
    "the kernel did not make a link for netfilter (Linux 6.4, CONFIG_NETFILTER_BPF_LINK)";

fn links(place: &Place) -> [PathBuf; 2] {
    LINKS.map(|(_, name)| place.path().join(name))
}

/// The maps of a pair that is whole; `None` if there is no pair.
///
/// # Errors
/// If the pair is of another version, or parts of it were removed although it has members.
pub(super) fn open(place: &Place, netns: Option<BorrowedFd<'_>>) -> Result<Option<Maps>> {
    let Some(maps) = open_maps(place)? else {
        return Ok(None);
    };
    if is_whole(place, netns)? {
        return Ok(Some(maps));
    }
    let members = maps.members()?;
    if members.is_empty() {
        // Its maker was killed.
        return Ok(None);
    }
    let names: Vec<String> = members.into_iter().map(|(_, name)| name).collect();
    Err(anyhow!(
        "links in {} were removed, although there are fences with network devices ({}): end them first",
        place.path().display(),
        names.join(", ")
    ))
}

/// Opens the links of a pair, so that they outlive their pins; none if a table of nftables takes their place.
pub(super) fn open_links(place: &Place) -> Result<Vec<OwnedFd>> {
    if place.nft().exists() {
        return Ok(Vec::new());
    }
    let open = |path: PathBuf| {
        by_path::open(&path).with_context(|| format!("cannot open {}", path.display()))
    };
    links(place).into_iter().map(open).collect()
}

/// Whether a pair is of another version of qfence, which knows its maps.
pub(super) fn is_of_another_version(place: &Place) -> Result<bool> {
    let version = pins::version_of(place.path())?;
    Ok(version.is_some_and(|found| found != version::abi()))
}

/// The maps of a pair, whether its links exist or not; `None` if there are none.
///
/// # Errors
/// If they are of another version, or cannot be read.
pub(super) fn open_maps(place: &Place) -> Result<Option<Maps>> {
    bpffs::check_parent(place.parent())?;
    if Directory::trusted(place.path(), Others::Read)?.is_none() {
        return Ok(None);
    }
    match pins::version_of(place.path())? {
        None => return Ok(None),
        Some(found) => ensure!(
            found == version::abi(),
            "fences with network devices of another version of qfence (ABI {found}, and this is ABI {}) are in this \
             network namespace ({}): end them first",
            version::abi(),
            place.path().display()
        ),
    }
    let directory = pins::of_maps(place.path());
    if NAMES.iter().any(|name| !directory.join(name).exists()) {
        return Ok(None);
    }
    Maps::from(|name| pinned(&directory, name)).map(Some)
}

/// Whether a pair is whole, and its table of nftables, if it has one, guards what the maps say. The latter is compared under
/// the lock, because the maps are changed before the table. This does not wait for the lock: while another process changes
/// the pair, only the rules of the table are looked at.
pub(super) fn is_whole_and_guards(place: &Place, netns: Option<BorrowedFd<'_>>) -> Result<bool> {
    if !place.nft().exists() {
        return is_whole(place, netns);
    }
    let Some(_lock) = place::try_lock(place.parent())? else {
        return is_whole(place, netns);
    };
    if !has_maps(place)? {
        return Ok(false);
    }
    let directory = pins::of_maps(place.path());
    let maps = Maps::from(|name| pinned(&directory, name))?;
    Table { netns }.is_whole(&guarded(&maps)?)
}

/// Whether both links, or the table of nftables, and all maps are there, and the links are attached. `netns` is the network
/// namespace of the place; the caller's for `None`.
fn is_whole(place: &Place, netns: Option<BorrowedFd<'_>>) -> Result<bool> {
    if !has_maps(place)? {
        return Ok(false);
    }
    if place.nft().exists() {
        return Table { netns }.is_in_force();
    }
    for path in links(place) {
        if !is_attached(&path, netns)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether all maps are pinned.
fn has_maps(place: &Place) -> Result<bool> {
    let directory = pins::of_maps(place.path());
    for name in NAMES {
        if open_pin(&directory.join(name))?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a link is pinned at a path, and attached.
fn is_attached(path: &Path, netns: Option<BorrowedFd<'_>>) -> Result<bool> {
    let Some(link) = open_pin(path)? else {
        return Ok(false);
    };
    within(netns, || Ok(link::is_attached(&link)?))
        .with_context(|| format!("cannot query the link {}", path.display()))
}

/// Opens what is pinned at a path; `None` if nothing is.
fn open_pin(path: &Path) -> Result<Option<OwnedFd>> {
    match by_path::open(path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot open {}", path.display())),
    }
}

/// Puts back what somebody removed of a pair: its links, of which `opened` are open, or its table of nftables, with all
/// members. Returns whether the table was made anew, which counts from zero.
///
/// # Errors
/// If the maps are not pinned any more, or the kernel fails to.
pub(super) fn mend(
    place: &Place,
    netns: BorrowedFd<'_>,
    opened: &mut [OwnedFd],
    maps: &Maps,
) -> Result<bool> {
    ensure!(
        has_maps(place)?,
        "maps in {} were removed",
        place.path().display()
    );
    let netns = Some(netns);
    if place.nft().exists() {
        let table = Table { netns };
        let guarded = guarded(maps)?;
        let is_damaged = !table.is_whole(&guarded)?;
        if is_damaged {
            table.make(&guarded)?;
        }
        return Ok(is_damaged);
    }
    for (((family, _), path), link) in LINKS.into_iter().zip(links(place)).zip(opened) {
        if is_attached(&path, netns)? {
            continue;
        }
        // The new one first: nothing is let through in between.
        let new = within(netns, || Ok(link::attach_again(link, family)?)).context(NO_LINKS)?;
        device::unpin(&path)?;
        // Without a pin it may be attached.
        link_info::detach(link).context("cannot detach a link")?;
        pin(&new, &path)?;
        *link = new;
    }
    Ok(false)
}

/// What the table of nftables drops for all members.
fn guarded(maps: &Maps) -> Result<Vec<Guard>> {
    let mut guards = Vec::new();
    for (slot, _) in maps.members()? {
        guards.extend(guarded_for(slot, maps)?);
    }
    Ok(guards)
}

/// What it drops for one.
fn guarded_for(slot: u32, maps: &Maps) -> Result<Vec<Guard>> {
    let (devices, macs) = maps.guarded(slot)?;
    let devices = devices.into_iter().map(|index| Guard::Device(slot, index));
    let macs = macs.into_iter().map(|mac| Guard::Mac(slot, mac));
    Ok(devices.chain(macs).collect())
}

fn pin(link: &OwnedFd, path: &Path) -> Result<()> {
    by_path::pin(link, path).with_context(|| format!("cannot pin a link at {}", path.display()))
}

/// Makes the pair, in place of what remained of one without members.
///
/// # Errors
/// If the kernel has no such programs or links. Nothing is left then.
pub(super) fn make(
    method: Method,
    place: &Place,
    run: &Path,
    netns: Option<BorrowedFd<'_>>,
) -> Result<Maps> {
    remove(place)?;
    let made = try_make(method, place, run, netns);
    made.inspect_err(|_| {
        // The first error is reported.
        let _ = remove(place);
    })
}

/// Makes the maps, and loads the program if it is needed.
fn load(
    method: Method,
    found: impl FnOnce() -> Result<offsets::Offsets>,
) -> Result<(Ebpf, Vec<OwnProgram>)> {
    let offsets = match method {
        Method::Links => found()?
            .local_in
            .context("this kernel's type information lacks the types of packets")?,
        // No program uses them.
        Method::Nft => Offsets::default(),
    };
    let (object, offsets) = cast::prepare_local_in(LOCAL_IN_OBJECT, offsets)?;
    let mut loader = make_loader()?;
    loader
        .btf(None)
        .override_global(LOCAL_IN_OFFSETS, &offsets, true);
    let ebpf = loader
        .load(&object)
        .context("the kernel rejected the maps of the second layer for frames")?;
    let programs = match method {
        Method::Links => Source::of(&object, &ebpf).load(&[Hook::LocalIn])?,
        Method::Nft => Vec::new(),
    };
    Ok((ebpf, programs))
}

/// Loads the program, and attaches it in the caller's network namespace for a moment.
///
/// # Errors
/// If the kernel rejects it.
pub(super) fn attempt() -> Result<()> {
    let (_ebpf, programs) = load(Method::Links, offsets::read_anew)?;
    let program = &programs.first().context("no program was loaded")?.fd;
    for (family, _) in LINKS {
        link::attach(program, family).context(NO_LINKS)?;
    }
    Ok(())
}

fn try_make(
    method: Method,
    place: &Place,
    run: &Path,
    netns: Option<BorrowedFd<'_>>,
) -> Result<Maps> {
    let (mut ebpf, programs) = load(method, || offsets::of_this_kernel(run))?;
    bpffs::make(place.path())?;
    let directory = pins::of_maps(place.path());
    bpffs::make(&directory)?;
    for name in NAMES {
        let path = directory.join(name);
        let map = ebpf.map(name).ok_or_else(|| crate::kernel::no_map(name))?;
        map.pin(&path)
            .with_context(|| format!("cannot pin a map at {}", path.display()))?;
    }
    let maps = Maps::from(|name| take(&mut ebpf, name))?;
    if method == Method::Nft {
        bpffs::make(&place.nft())?;
        Table { netns }.make(&[])?;
        return Ok(maps);
    }
    let program = &programs.first().context("no program was loaded")?.fd;
    for ((family, _), path) in LINKS.into_iter().zip(links(place)) {
        let link = within(netns, || Ok(link::attach(program, family)?)).context(NO_LINKS)?;
        pin(&link, &path)?;
    }
    Ok(maps)
}

/// The number of packets that were dropped because of a fence.
pub(super) fn drops(place: &Place, maps: &Maps, slot: u32) -> Result<u64> {
    if place.nft().exists() {
        let counted = with_table(place, |table| table.drops(slot))?;
        return Ok(counted.unwrap_or_default());
    }
    maps.drops(slot)
}

/// Removes a fence from a pair.
pub(super) fn remove_member(place: &Place, maps: &mut Maps, slot: u32) -> Result<()> {
    if place.nft().exists() {
        let guards = guarded_for(slot, maps)?;
        with_table(place, |table| {
            // Without the table, which somebody may have removed, there is nothing to remove.
            if !table.exists()? {
                return Ok(());
            }
            for guard in guards {
                table.unguard(guard)?;
            }
            table.forget(slot)
        })?;
    }
    maps.remove(slot)
}

/// Does something with the table of a network namespace; `None` if the namespace is not found. It is gone with its table
/// then, because no process is in it and it has no name.
fn with_table<T>(place: &Place, work: impl FnOnce(Table<'_>) -> Result<T>) -> Result<Option<T>> {
    let netns = place.netns().and_then(find);
    netns
        .map(|netns| {
            work(Table {
                netns: Some(netns.as_fd()),
            })
        })
        .transpose()
}

/// Removes a pair that has no members.
pub(super) fn remove_if_empty(place: &Place, maps: &Maps) -> Result<()> {
    if maps.members()?.is_empty() {
        remove(place)?;
    }
    Ok(())
}

/// Removes a pair, or what remained of one. Its network namespace is free then.
pub(super) fn remove(place: &Place) -> Result<()> {
    bpffs::check_parent(place.parent())?;
    for path in links(place) {
        device::unpin(&path)?;
    }
    if place.nft().exists() {
        with_table(place, |table| table.remove())?;
    }
    match fs::remove_dir_all(place.path()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", place.path().display()))
        }
        _ => Ok(()),
    }
}
