//! The wires of a pod, beside the fence of one of its containers: whether each is fenced. They have fences of their own,
//! which can end before, and the pod can get others.

use std::{fs::File, os::unix::fs::MetadataExt as _, path::Path};

use nix::{net::if_::if_nameindex, unistd::Pid};
use serde::{Deserialize, Serialize};

use super::registry::{Condition, Listed};
use crate::{
    host::devices::pairs::{PairError, pairs},
    stored_policy::netns,
};

/// A network namespace whose wires are fenced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wired {
    /// The namespace: the inode of the file in /proc.
    pub netns: u64,
    /// The one with the other ends.
    pub here: u64,
}

impl Wired {
    /// Its devices that are not fenced: name and reason. `pids` are the processes of the container, and `listed` all fences.
    /// None if this process is in another network namespace and cannot know.
    #[must_use]
    pub fn unfenced(&self, pids: &[Pid], listed: &[Listed], proc: &Path) -> Vec<(String, String)> {
        if pids.is_empty() || netns().ok() != Some(self.here) {
            return Vec::new();
        }
        let of_pod = |why: &dyn ToString| ("of its pod".to_owned(), why.to_string());
        let Some(namespace) = self.open(pids, proc) else {
            return vec![of_pod(
                &"no process of it is in the network namespace of the pod",
            )];
        };
        let wires = match pairs(&namespace) {
            Ok(wires) => wires,
            Err(PairError::NotHere { name, kind }) => {
                return vec![(name, format!("what leaves by {kind} there is not judged"))];
            }
            Err(error) => return vec![of_pod(&error)],
        };
        let indices = wires.iter().map(|wire| wire.here);
        let unfenced = indices.filter_map(|index| Some((index, self.why(index, listed)?)));
        unfenced.map(|(index, why)| (name_of(index), why)).collect()
    }

    /// Opens the namespace. A container can make others, which lead nowhere but to its own.
    fn open(&self, pids: &[Pid], proc: &Path) -> Option<File> {
        let mut opened = pids
            .iter()
            .filter_map(|pid| File::open(proc.join(pid.to_string()).join("ns/net")).ok());
        opened.find(|file| file.metadata().is_ok_and(|file| file.ino() == self.netns))
    }

    /// Why the end with this index is not fenced.
    fn why(&self, index: u32, listed: &[Listed]) -> Option<String> {
        let has = |listed: &&Listed| {
            let mut devices = listed.description.iter().flat_map(|found| &found.devices);
            devices.any(|device| (device.index, device.netns) == (index, self.here))
        };
        let Some(fence) = listed.iter().find(has) else {
            return Some("no fence has it".to_owned());
        };
        let is_whole = fence.unfenced.is_empty() && fence.condition != Condition::Unfenced;
        (!is_whole).then(|| format!("its fence {} is not whole", fence.name))
    }
}

/// The name of a device.
fn name_of(index: u32) -> String {
    let named = if_nameindex().ok().and_then(|all| {
        let named = all.iter().find(|device| device.index() == index)?;
        Some(named.name().to_string_lossy().into_owned())
    });
    named.unwrap_or_else(|| index.to_string())
}
