//! What of a tree its layers show already, so that the archive need not have it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::{Assembly, InputPackage, InstalledLayer, Node, NodeKind, PackageFrom, split};
use crate::guest;
use crate::rootfs::layers::{Layer, LayerEntry, LayerKind};

/// Layers below one root filesystem: the kernel takes five hundred in one overlay, of which the archive's tree is one.
const LAYERS_MAX: usize = 400;

/// Folders that runners work on whether or not steps are there: what they find must not hide a layer's.
const WORKED_ON: [&str; 8] =
    ["dev", "proc", "sys", "etc/resolv.conf", "run", guest::SCRIPTS, guest::CACHE, guest::WORKSPACE];

/// The positions of the packages whose layers may lie below the archive: the largest ones.
pub(super) fn layers_below(packages: &[InputPackage]) -> BTreeSet<usize> {
    let layered = packages.iter().enumerate();
    let mut layered: Vec<(u64, usize)> = layered
        .filter(|(_, package)| matches!(package.from, PackageFrom::Layer(_)))
        .map(|(position, package)| (package.record.installed_bytes, position))
        .collect();
    layered.sort_by_key(|(size, position)| (std::cmp::Reverse(*size), *position));
    layered.into_iter().take(LAYERS_MAX).map(|(_, position)| position).collect()
}

/// What an overlay of the layers shows under a name.
struct Shown<'a> {
    owner: usize,
    entry: &'a LayerEntry,
}

/// What the layers show, the topmost of each name; folders of several layers are one, with the topmost's mode and time.
fn shown(layers: &[Option<InstalledLayer>]) -> HashMap<&str, Shown<'_>> {
    let mut shown = HashMap::new();
    for (owner, layer) in layers.iter().enumerate() {
        let entries = layer.iter().filter_map(|layer| layer.entries.as_ref()).flatten();
        for entry in entries {
            shown.insert(&*entry.name, Shown { owner, entry });
        }
    }
    shown
}

impl Shown<'_> {
    /// Whether it is the node. A hard link is its file's, which is looked at by itself.
    fn is(&self, node: &Node) -> bool {
        let entry = self.entry;
        if node.uid != 0 || node.gid != 0 || !node.xattrs.is_empty() {
            return false;
        }
        match &node.kind {
            NodeKind::Directory => {
                entry.kind == LayerKind::Directory
                    && entry.mode & 0o777 == node.mode
                    && entry.mtime == node.mtime
            }
            NodeKind::File { size, .. } => {
                entry.kind == LayerKind::File
                    && (entry.mode, entry.mtime, entry.size) == (node.mode, node.mtime, *size)
                    && entry.sum().is_some_and(|sum| node.sha1 == Some(sum))
            }
            NodeKind::Symlink(target) => {
                entry.kind == LayerKind::Symlink && entry.link == *target && entry.mtime == node.mtime
            }
            NodeKind::HardLink(target) => entry.kind == LayerKind::HardLink && entry.link == *target,
        }
    }
}

impl Assembly {
    /// Takes out of the tree what its layers show as it is, and returns them, the topmost first.
    pub(super) fn leave_to_layers(&mut self) -> Vec<Arc<Layer>> {
        let below = self.layers.iter().flatten().filter(|layer| layer.entries.is_some());
        let layers: Vec<Arc<Layer>> = below.map(|layer| Arc::clone(&layer.layer)).rev().collect();
        if layers.is_empty() {
            return layers;
        }
        let kept = self.not_shown();
        self.nodes.retain(|name, _| kept.contains(name));
        layers
    }

    /// The names that the archive must have, with their folders.
    fn not_shown(&self) -> BTreeSet<String> {
        let shown = shown(&self.layers);
        let is_shown = |name: &str, node: &Node| shown.get(name).is_some_and(|shown| shown.is(node));
        let mut kept: BTreeSet<String> = BTreeSet::new();
        // All names of a file are in one layer, or all in the archive.
        let mut links: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, node) in &self.nodes {
            if let NodeKind::HardLink(target) = &node.kind {
                links.entry(target).or_default().push(name);
            }
            if !is_shown(name, node) {
                kept.insert(name.clone());
            }
        }
        for (target, names) in links {
            let owner = shown.get(target).map(|shown| shown.owner);
            let together = !kept.contains(target)
                && names
                    .iter()
                    .all(|name| !kept.contains(*name) && shown.get(name).map(|shown| shown.owner) == owner);
            if !together {
                kept.extend(names.into_iter().chain([target]).map(str::to_owned));
            }
        }
        for path in WORKED_ON {
            let path = path.trim_start_matches('/');
            let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
            let above = ends.filter_map(|end| path.get(..end)).filter(|path| self.nodes.contains_key(*path));
            kept.extend(above.map(str::to_owned));
        }
        let mut folders: BTreeSet<String> = BTreeSet::new();
        for name in &kept {
            let mut folder = split(name).0;
            while !folder.is_empty() && folders.insert(folder.to_owned()) {
                folder = split(folder).0;
            }
        }
        kept.extend(folders);
        kept
    }
}
