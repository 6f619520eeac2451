//! Disks, block nodes, and names of images.

use std::collections::BTreeMap;

use super::{
    collector::Collector,
    refused::{FAMILY, IO_URING},
};
use crate::qemu::{
    configuration::Item,
    parameters::{self, Parameters},
};

/// The most names of images within names (`json:`, `blkdebug:`).
const DEEPEST: u32 = 8;

/// What one disk depends on in other options.
#[derive(Debug)]
pub(super) struct Images<'a> {
    /// Whether `-snapshot` is given: it applies to all disks but `-blockdev`.
    snapshot: bool,
    /// The names of block nodes that `-blockdev`s have as their `file`: whether all of these are read-only.
    readers: BTreeMap<&'a str, bool>,
}

impl<'a> Images<'a> {
    /// Of all options.
    pub(super) fn of(items: &'a [Item]) -> Self {
        let mut readers = BTreeMap::new();
        for item in items.iter().filter(|item| item.group == "blockdev") {
            let parameters = &item.parameters;
            if let Some(node) = parameters.get("file") {
                let is_reader = parameters.is_on("read-only") == Some(true);
                *readers.entry(node).or_insert(true) &= is_reader;
            }
        }
        Self {
            snapshot: items.iter().any(|item| item.group == "snapshot"),
            readers,
        }
    }
}

/// Collects what one option needs.
pub(super) fn collect(item: &Item, images: &Images<'_>, needs: &mut Collector<'_>) {
    let parameters = &item.parameters;
    match item.group.as_str() {
        "hda" | "hdb" | "hdc" | "hdd" | "fda" | "fdb" | "pflash" | "mtdblock" | "sd" => {
            let text = item.text().unwrap_or_default();
            needs.needs.temporary_directory |= images.snapshot;
            named(text, images.snapshot, DEEPEST, needs);
        }
        "cdrom" => named(item.text().unwrap_or_default(), true, DEEPEST, needs),
        "drive" => drive(parameters, images, needs),
        "blockdev" => {
            let node = parameters.get("node-name").unwrap_or_default();
            // With auto-read-only, QEMU opens a file as those who use it do.
            let is_read = parameters.is_on("auto-read-only") == Some(true)
                && images.readers.get(node) == Some(&true);
            nodes(parameters, is_read, DEEPEST, needs);
        }
        _ => {}
    }
}

fn drive(parameters: &Parameters, images: &Images<'_>, needs: &mut Collector<'_>) {
    let snapshot = parameters.is_on("snapshot").unwrap_or(images.snapshot);
    needs.needs.temporary_directory |= snapshot;
    let read_only = snapshot
        || parameters.is_on("readonly") == Some(true)
        || parameters.is_on("read-only") == Some(true)
        || parameters.get("media") == Some("cdrom");
    if let Some(file) = parameters.get("file") {
        // An explicit protocol: the name has no prefix.
        match parameters
            .get("driver")
            .or_else(|| parameters.get("format"))
        {
            Some("file" | "host_device" | "host_cdrom") => needs.file(file, read_only),
            _ => named(file, read_only, DEEPEST, needs),
        }
    }
    nodes(parameters, read_only, DEEPEST, needs);
}

/// An image by its name, which may begin with a protocol (`path_has_protocol` of QEMU's block.c: a colon before any
/// slash).
fn named(name: &str, read_only: bool, depth: u32, needs: &mut Collector<'_>) {
    let Some(depth) = depth.checked_sub(1) else {
        return;
    };
    let protocol = name
        .find([':', '/'])
        .filter(|at| name[*at..].starts_with(':'));
    let Some(at) = protocol else {
        return needs.file(name, read_only);
    };
    let rest = &name[at + 1..];
    match &name[..at] {
        "json" => {
            if let Ok(parameters) = Parameters::parse(rest, "driver") {
                nodes(&parameters, read_only, depth, needs);
            }
        }
        "file" | "host_device" | "host_cdrom" => needs.file(rest, read_only),
        "fat" => {
            // fat:[floppy:][16:][rw:]directory
            let directory = rest.rsplit(':').next().unwrap_or_default();
            vvfat(directory, name.contains(":rw:"), needs);
        }
        "nbd" => {
            if let Some(path) = rest.strip_prefix("unix:") {
                needs.connect(path.split(":exportname=").next().unwrap_or_default());
            }
        }
        "nbd+unix" | "gluster+unix" => {
            // nbd+unix:///export?socket=path
            if let Some((_, path)) = rest.split_once("socket=") {
                needs.connect(path.split('&').next().unwrap_or_default());
            }
        }
        // blkdebug:[configuration]:image and blkverify:copy:image
        protocol @ ("blkdebug" | "blkverify") => {
            let Some((first, image)) = rest.split_once(':') else {
                return;
            };
            if protocol == "blkdebug" {
                needs.read(first);
            } else {
                named(first, read_only, depth, needs);
            }
            named(image, read_only, depth, needs);
        }
        // Servers on networks, and unknown protocols.
        _ => {}
    }
}

/// A directory as a disk. What the guest writes is first in a temporary file.
fn vvfat(directory: &str, writes: bool, needs: &mut Collector<'_>) {
    needs.needs.temporary_directory |= writes;
    needs.file(directory, !writes);
}

/// All nodes of a tree, in dotted keys. `read_only` applies to the root, and to nodes that do not specify it.
fn nodes(parameters: &Parameters, read_only: bool, depth: u32, needs: &mut Collector<'_>) {
    let read_only = read_only || parameters.is_on("read-only") == Some(true);
    for (key, value) in parameters.iter() {
        let (node, key) = match key.rsplit_once('.') {
            Some((node, key)) => (node, key),
            None => ("", key),
        };
        let sibling = |name: &str| match node {
            "" => parameters.get(name),
            node => parameters.get(&format!("{node}.{name}")),
        };
        let driver = sibling("driver").unwrap_or_default();
        let is_read = || is_read_only(parameters, node).unwrap_or(read_only);
        match (key, driver) {
            ("filename", "file" | "host_device" | "host_cdrom" | "io_uring") => {
                needs.file(value, is_read());
            }
            ("filename", _) => named(value, is_read(), depth, needs),
            ("dir", "vvfat") => vvfat(value, sibling("rw").is_some_and(parameters::is_on), needs),
            ("config", "blkdebug") | ("conf", "rbd") => needs.read(value),
            ("path", "nbd" | "virtio-blk-vhost-user") => needs.connect(value),
            ("path", "virtio-blk-vhost-vdpa") => needs.write(value),
            ("path", "nvme-io_uring") => needs.write(value),
            // server.type=unix,server.path=…
            ("path", "") if sibling("type") == Some("unix") => needs.connect(value),
            ("type", "") if value == "vsock" => needs.refuse(&FAMILY),
            ("aio", _) if value == "io_uring" => needs.refuse(&IO_URING),
            _ => {}
        }
        match (key, value) {
            ("driver", "io_uring" | "nvme-io_uring") => needs.refuse(&IO_URING),
            ("driver", "nvme" | "virtio-blk-vfio-pci") => needs.write("/dev/vfio"),
            _ => {}
        }
    }
}

/// Whether a node is read-only, by itself or by a node between it and the root; `None` if none of them specifies it. A
/// backing file is (`bdrv_inherited_options` of QEMU's block.c).
fn is_read_only(parameters: &Parameters, mut node: &str) -> Option<bool> {
    while !node.is_empty() {
        if let Some(explicit) = parameters.is_on(&format!("{node}.read-only")) {
            return Some(explicit);
        }
        let (above, name) = node.rsplit_once('.').unwrap_or(("", node));
        if name == "backing" {
            return Some(true);
        }
        node = above;
    }
    None
}
