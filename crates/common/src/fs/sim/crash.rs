//! What is left after the power failed.

use std::collections::BTreeSet;

use super::content::Content;
use super::state::{DataOp, DirNode, FileNode, Inode, NameOp, ROOT, State, apply_names};
use crate::entropy::Entropy;

/// How much of what was not synced survives.
#[derive(Copy, Clone)]
enum Fate {
    Nothing,
    Everything,
    /// The first so many operations, and a part of the next.
    Prefix,
    /// Each on its own.
    Any,
}

fn fate(entropy: &dyn Entropy) -> Fate {
    match entropy.below(4) {
        0 => Fate::Nothing,
        1 => Fate::Everything,
        2 => Fate::Prefix,
        _ => Fate::Any,
    }
}

fn coin(entropy: &dyn Entropy) -> bool {
    entropy.below(2) == 1
}

/// A number in `0..=max`.
fn up_to(entropy: &dyn Entropy, max: usize) -> usize {
    usize::try_from(entropy.below(max as u64 + 1)).unwrap_or(0)
}

/// The file system that the next process finds.
pub(super) fn survivors(state: &State, entropy: &dyn Entropy) -> State {
    let mut inodes = state.inodes.clone();
    for op in surviving_names(&state.pending_names, entropy) {
        apply_names(&mut inodes, op, |dir| &mut dir.durable);
    }
    let mut after = State { next_inode: state.next_inode, capacity: state.capacity, ..State::new() };
    let mut left = vec![ROOT];
    while let Some(id) = left.pop() {
        let inode = match inodes.get(&id) {
            Some(Inode::File(file)) => {
                let content = surviving_content(file, entropy);
                after.used += content.len();
                Inode::File(FileNode { current: content.clone(), durable: content, pending: Vec::new(), linked: true })
            }
            Some(Inode::Dir(dir)) => {
                left.extend(dir.durable.values());
                Inode::Dir(DirNode { current: dir.durable.clone(), durable: dir.durable.clone() })
            }
            None => continue,
        };
        after.inodes.insert(id, inode);
    }
    after
}

fn surviving_names<'a>(pending: &'a [NameOp], entropy: &dyn Entropy) -> Vec<&'a NameOp> {
    match fate(entropy) {
        Fate::Nothing => Vec::new(),
        Fate::Everything => pending.iter().collect(),
        Fate::Prefix => pending.iter().take(up_to(entropy, pending.len())).collect(),
        Fate::Any => any_names(pending, entropy),
    }
}

/// Any of the operations, but none that builds on a lost one (on its name or its inode): no journal gives a file two names.
fn any_names<'a>(pending: &'a [NameOp], entropy: &dyn Entropy) -> Vec<&'a NameOp> {
    let mut lost_names = BTreeSet::new();
    let mut lost_inodes = BTreeSet::new();
    let mut kept = Vec::new();
    for op in pending {
        let builds_on_lost = op.iter().any(|change| {
            lost_names.contains(&(change.dir, change.name.as_str())) || change.inode.is_some_and(|inode| lost_inodes.contains(&inode))
        });
        if coin(entropy) && !builds_on_lost {
            kept.push(op);
        } else {
            lost_names.extend(op.iter().map(|change| (change.dir, change.name.as_str())));
            lost_inodes.extend(op.iter().filter_map(|change| change.inode));
        }
    }
    kept
}

fn surviving_content(file: &FileNode, entropy: &dyn Entropy) -> Content {
    let mut content = file.durable.clone();
    if file.pending.is_empty() {
        return content;
    }
    // Disks write sectors, file systems pages: either may be the unit that is torn.
    let unit = if coin(entropy) { 512 } else { 4096 };
    match fate(entropy) {
        Fate::Nothing => {}
        Fate::Everything => file.pending.iter().for_each(|op| op.apply(&mut content)),
        Fate::Prefix => {
            let whole = up_to(entropy, file.pending.len());
            file.pending.iter().take(whole).for_each(|op| op.apply(&mut content));
            if let Some(DataOp::Write { pos, data }) = file.pending.get(whole) {
                let parts = units(*pos, data, unit);
                parts.iter().take(up_to(entropy, parts.len())).for_each(|(pos, part)| content.write(part, *pos));
            }
        }
        Fate::Any => {
            for op in &file.pending {
                match op {
                    DataOp::Write { pos, data } => {
                        units(*pos, data, unit).iter().filter(|_| coin(entropy)).for_each(|(pos, part)| content.write(part, *pos));
                    }
                    DataOp::SetLen(_) if coin(entropy) => op.apply(&mut content),
                    DataOp::SetLen(_) => {}
                }
            }
        }
    }
    // The new length may be on the disk without the data: a tail of zeroes.
    if content.len() < file.current.len() && entropy.below(4) == 0 {
        content.set_len(file.current.len());
    }
    content
}

/// `data` cut where units of the disk begin.
fn units(pos: u64, data: &[u8], unit: u64) -> Vec<(u64, &[u8])> {
    let mut parts = Vec::new();
    let (mut pos, mut rest) = (pos, data);
    while !rest.is_empty() {
        let len = usize::try_from(unit - pos % unit).unwrap_or(usize::MAX).min(rest.len());
        let (part, after) = rest.split_at(len);
        parts.push((pos, part));
        pos += len as u64;
        rest = after;
    }
    parts
}
