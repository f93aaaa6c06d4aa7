//! Inodes, names, and what of them is not on the disk yet.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path, PathBuf};

use super::content::Content;
use super::{DirEntry, DiskSpace, OpenMode, SimFault};
use crate::fs::DIRECT_BLOCK_BYTES;

pub(super) type InodeId = u64;

/// The root directory.
pub(super) const ROOT: InodeId = 0;
/// What a file system without limit says it has.
const ENDLESS_BYTES: u64 = 1 << 40;
/// Largest file: what a single pwrite may reach on the real thing too.
const FILE_BYTES_MAX: u64 = i64::MAX as u64;

/// A change of a file that is not synced.
#[derive(Clone, Debug)]
pub(super) enum DataOp {
    Write { pos: u64, data: Vec<u8> },
    SetLen(u64),
}

impl DataOp {
    pub(super) fn apply(&self, content: &mut Content) {
        match self {
            DataOp::Write { pos, data } => content.write(data, *pos),
            DataOp::SetLen(len) => content.set_len(*len),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct FileNode {
    pub(super) current: Content,
    pub(super) durable: Content,
    pub(super) pending: Vec<DataOp>,
    /// Has a name.
    pub(super) linked: bool,
}

pub(super) type Names = BTreeMap<String, InodeId>;

#[derive(Clone, Debug, Default)]
pub(super) struct DirNode {
    pub(super) current: Names,
    pub(super) durable: Names,
}

#[derive(Clone, Debug)]
pub(super) enum Inode {
    File(FileNode),
    Dir(DirNode),
}

/// One name set to an inode, or removed.
#[derive(Clone, Debug)]
pub(super) struct NameChange {
    pub(super) dir: InodeId,
    pub(super) name: String,
    pub(super) inode: Option<InodeId>,
}

/// Changes of names that happen together or not at all; not synced.
pub(super) type NameOp = Vec<NameChange>;

#[derive(Debug)]
pub(super) struct State {
    pub(super) inodes: BTreeMap<InodeId, Inode>,
    pub(super) next_inode: InodeId,
    pub(super) pending_names: Vec<NameOp>,
    pub(super) locks: BTreeSet<PathBuf>,
    pub(super) faults: Vec<(SimFault, String, u32)>,
    pub(super) capacity: Option<u64>,
    pub(super) used: u64,
    pub(super) short_writes: bool,
    pub(super) operations: u64,
    pub(super) crash_at: Option<u64>,
    pub(super) dead: bool,
}

pub(super) fn power_loss() -> io::Error {
    io::Error::other("simulated power loss")
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error())
}

fn no_space() -> io::Error {
    io::ErrorKind::StorageFull.into()
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

/// The names on the way from the root; `..` is not followed.
fn names(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name.to_str().ok_or(io::ErrorKind::InvalidInput)?.to_owned()),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(io::ErrorKind::InvalidInput.into()),
        }
    }
    Ok(names)
}

pub(super) fn apply_names(inodes: &mut BTreeMap<InodeId, Inode>, op: &NameOp, names_of: fn(&mut DirNode) -> &mut Names) {
    for change in op {
        let Some(Inode::Dir(dir)) = inodes.get_mut(&change.dir) else {
            continue;
        };
        match change.inode {
            Some(inode) => names_of(dir).insert(change.name.clone(), inode),
            None => names_of(dir).remove(&change.name),
        };
    }
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            inodes: BTreeMap::from([(ROOT, Inode::Dir(DirNode::default()))]),
            next_inode: ROOT + 1,
            pending_names: Vec::new(),
            locks: BTreeSet::new(),
            faults: Vec::new(),
            capacity: None,
            used: 0,
            short_writes: false,
            operations: 0,
            crash_at: None,
            dead: false,
        }
    }

    /// What another process finds: all but the locks and the faults.
    pub(super) fn after_kill(&self) -> Self {
        Self {
            inodes: self.inodes.clone(),
            next_inode: self.next_inode,
            pending_names: self.pending_names.clone(),
            capacity: self.capacity,
            used: self.used,
            ..Self::new()
        }
    }

    pub(super) fn check_alive(&self) -> io::Result<()> {
        if self.dead { Err(power_loss()) } else { Ok(()) }
    }

    /// Counts an operation; true if the power fails at it.
    pub(super) fn count_operation(&mut self) -> bool {
        self.operations += 1;
        self.dead = self.crash_at.is_some_and(|at| self.operations >= at);
        self.dead
    }

    /// The error that is set for the next such operation on `path`.
    pub(super) fn fault(&mut self, fault: SimFault, path: &Path) -> io::Result<()> {
        let path = path.to_string_lossy();
        let hit = self.faults.iter().position(|(kind, part, _)| *kind == fault && path.contains(part.as_str()));
        let Some(at) = hit else {
            return Ok(());
        };
        self.faults[at].2 = self.faults[at].2.saturating_sub(1);
        if self.faults[at].2 == 0 {
            self.faults.remove(at);
        }
        Err(match fault {
            SimFault::SyncNoSpace => no_space(),
            SimFault::Open => io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error()),
            SimFault::Sync | SimFault::Read | SimFault::Write | SimFault::Name => eio(),
        })
    }

    fn sync_fault(&mut self, path: &Path) -> io::Result<()> {
        self.fault(SimFault::Sync, path).and_then(|()| self.fault(SimFault::SyncNoSpace, path))
    }

    pub(super) fn file(&mut self, inode: InodeId) -> io::Result<&mut FileNode> {
        match self.inodes.get_mut(&inode) {
            Some(Inode::File(file)) => Ok(file),
            Some(Inode::Dir(_)) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(not_found()),
        }
    }

    fn dir(&self, inode: InodeId) -> io::Result<&DirNode> {
        match self.inodes.get(&inode) {
            Some(Inode::Dir(dir)) => Ok(dir),
            Some(Inode::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(not_found()),
        }
    }

    pub(super) fn lookup(&self, path: &Path) -> io::Result<InodeId> {
        names(path)?.iter().try_fold(ROOT, |at, name| self.dir(at)?.current.get(name).copied().ok_or_else(not_found))
    }

    /// The directory that holds the last name of `path`, and that name.
    fn parent(&self, path: &Path) -> io::Result<(InodeId, String)> {
        let mut names = names(path)?;
        let name = names.pop().ok_or(io::ErrorKind::InvalidInput)?;
        let dir = names.iter().try_fold(ROOT, |at, name| self.dir(at)?.current.get(name).copied().ok_or_else(not_found))?;
        self.dir(dir)?;
        Ok((dir, name))
    }

    fn change_names(&mut self, op: NameOp) {
        apply_names(&mut self.inodes, &op, |dir| &mut dir.current);
        self.pending_names.push(op);
    }

    fn add(&mut self, dir: InodeId, name: String, inode: Inode) -> InodeId {
        let id = self.next_inode;
        self.next_inode += 1;
        self.inodes.insert(id, inode);
        self.change_names(vec![NameChange { dir, name, inode: Some(id) }]);
        id
    }

    pub(super) fn open(&mut self, path: &Path, mode: OpenMode) -> io::Result<InodeId> {
        self.fault(SimFault::Open, path)?;
        match (self.lookup(path), mode) {
            (Ok(_), OpenMode::CreateNew) => Err(io::ErrorKind::AlreadyExists.into()),
            (Ok(inode), OpenMode::Read | OpenMode::ReadWrite | OpenMode::Direct) => self.file(inode).map(|_| inode),
            (Ok(inode), OpenMode::Truncate) => {
                self.set_len(inode, 0)?;
                Ok(inode)
            }
            (Err(error), OpenMode::CreateNew | OpenMode::Truncate) if error.kind() == io::ErrorKind::NotFound => {
                let (dir, name) = self.parent(path)?;
                self.fault(SimFault::Name, path)?;
                Ok(self.add(dir, name, Inode::File(FileNode { linked: true, ..FileNode::default() })))
            }
            (Err(error), _) => Err(error),
        }
    }

    pub(super) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let mut at = ROOT;
        for name in names(path)? {
            at = match self.dir(at)?.current.get(&name) {
                Some(inode) => *inode,
                None => {
                    self.fault(SimFault::Name, path)?;
                    self.add(at, name, Inode::Dir(DirNode::default()))
                }
            };
        }
        self.dir(at).map(drop)
    }

    pub(super) fn read_dir(&mut self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let entries = self.dir(self.lookup(path)?)?.current.iter();
        let entry = |(name, inode): (&String, &InodeId)| match self.inodes.get(inode) {
            Some(Inode::File(file)) => DirEntry { name: name.clone(), is_dir: false, len: file.current.len() },
            _ => DirEntry { name: name.clone(), is_dir: true, len: 0 },
        };
        Ok(entries.map(entry).collect())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let inode = self.lookup(from)?;
        let (from_dir, from_name) = self.parent(from)?;
        let (to_dir, to_name) = self.parent(to)?;
        let (from_names, to_names) = (names(from)?, names(to)?);
        if to_names.len() > from_names.len() && to_names.starts_with(&from_names) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a directory can't move into itself"));
        }
        self.fault(SimFault::Name, to)?;
        if let Ok(replaced) = self.lookup(to) {
            if replaced == inode {
                return Ok(());
            }
            match (self.inodes.get(&inode), self.inodes.get(&replaced)) {
                (Some(Inode::File(_)), Some(Inode::File(_))) => self.unlink(replaced)?,
                (Some(Inode::Dir(_)), Some(Inode::Dir(dir))) if dir.current.is_empty() => {}
                (Some(Inode::Dir(_)), Some(Inode::Dir(_))) => return Err(io::ErrorKind::DirectoryNotEmpty.into()),
                (Some(Inode::Dir(_)), _) => return Err(io::ErrorKind::NotADirectory.into()),
                _ => return Err(io::ErrorKind::IsADirectory.into()),
            }
        }
        let removed = NameChange { dir: from_dir, name: from_name, inode: None };
        self.change_names(vec![removed, NameChange { dir: to_dir, name: to_name, inode: Some(inode) }]);
        Ok(())
    }

    pub(super) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        let inode = self.lookup(path)?;
        self.file(inode)?;
        self.fault(SimFault::Name, path)?;
        let (dir, name) = self.parent(path)?;
        self.unlink(inode)?;
        self.change_names(vec![NameChange { dir, name, inode: None }]);
        Ok(())
    }

    fn unlink(&mut self, inode: InodeId) -> io::Result<()> {
        let file = self.file(inode)?;
        file.linked = false;
        let len = file.current.len();
        self.used -= len;
        Ok(())
    }

    pub(super) fn remove_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let inode = self.lookup(path)?;
        let (dir, name) = self.parent(path)?;
        self.fault(SimFault::Name, path)?;
        self.remove_all_in(inode)?;
        self.change_names(vec![NameChange { dir, name, inode: None }]);
        Ok(())
    }

    fn remove_all_in(&mut self, dir: InodeId) -> io::Result<()> {
        for (name, inode) in self.dir(dir)?.current.clone() {
            match self.inodes.get(&inode) {
                Some(Inode::File(_)) => self.unlink(inode)?,
                _ => self.remove_all_in(inode)?,
            }
            self.change_names(vec![NameChange { dir, name, inode: None }]);
        }
        Ok(())
    }

    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let inode = self.lookup(path)?;
        self.dir(inode)?;
        let failed = self.sync_fault(path);
        let (synced, pending) =
            std::mem::take(&mut self.pending_names).into_iter().partition(|op: &NameOp| op.iter().any(|change| change.dir == inode));
        self.pending_names = pending;
        let synced: Vec<NameOp> = synced;
        if failed.is_ok() {
            for op in &synced {
                apply_names(&mut self.inodes, op, |dir| &mut dir.durable);
            }
        }
        failed
    }

    pub(super) fn space(&self) -> DiskSpace {
        let total = self.capacity.unwrap_or(ENDLESS_BYTES);
        DiskSpace { total, available: total.saturating_sub(self.used) }
    }

    pub(super) fn lock(&mut self, path: &Path) -> io::Result<()> {
        if !self.locks.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        match self.open(path, OpenMode::CreateNew) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                self.locks.remove(path);
                Err(error)
            }
            _ => Ok(()),
        }
    }

    /// Writes a prefix of `data`; returns how many bytes.
    pub(super) fn write(&mut self, inode: InodeId, data: &[u8], pos: u64) -> io::Result<usize> {
        if data.is_empty() {
            return Ok(0);
        }
        let available = self.space().available;
        let file = self.file(inode)?;
        // Below the end no room is needed.
        let room = file.current.len().saturating_add(available).min(FILE_BYTES_MAX).saturating_sub(pos);
        let mut len = usize::try_from(room).unwrap_or(usize::MAX).min(data.len());
        if len == 0 {
            return Err(no_space());
        }
        if self.short_writes && len > 1 {
            len /= 2;
        }
        self.apply(inode, DataOp::Write { pos, data: data[..len].to_vec() })?;
        Ok(len)
    }

    /// A write in whole blocks, as [`OpenMode::Direct`] makes it: what lies before it in its first block is written again, and the rest of its
    /// last block is zeroed.
    pub(super) fn write_blocks(&mut self, inode: InodeId, data: &[u8], pos: u64) -> io::Result<usize> {
        let head = (pos % DIRECT_BLOCK_BYTES as u64) as usize;
        let mut blocks = vec![0; (head + data.len()).next_multiple_of(DIRECT_BLOCK_BYTES)];
        self.file(inode)?.current.read(&mut blocks[..head], pos - head as u64);
        blocks[head..head + data.len()].copy_from_slice(data);
        let mut written = 0;
        while written < blocks.len() {
            written += self.write(inode, &blocks[written..], pos - head as u64 + written as u64)?;
        }
        Ok(data.len())
    }

    pub(super) fn set_len(&mut self, inode: InodeId, len: u64) -> io::Result<()> {
        let available = self.space().available;
        if len.saturating_sub(self.file(inode)?.current.len()) > available || len > FILE_BYTES_MAX {
            return Err(no_space());
        }
        self.apply(inode, DataOp::SetLen(len))
    }

    fn apply(&mut self, inode: InodeId, op: DataOp) -> io::Result<()> {
        let file = self.file(inode)?;
        let before = file.current.len();
        op.apply(&mut file.current);
        let after = file.current.len();
        file.pending.push(op);
        // Files that are open but have no name any more take no room here.
        if file.linked {
            self.used = self.used - before + after;
        }
        Ok(())
    }

    pub(super) fn sync_file(&mut self, inode: InodeId, path: &Path) -> io::Result<()> {
        let failed = self.sync_fault(path);
        let file = self.file(inode)?;
        let pending = std::mem::take(&mut file.pending);
        if failed.is_ok() {
            pending.iter().for_each(|op| op.apply(&mut file.durable));
        }
        failed
    }

    pub(super) fn flip_bit(&mut self, path: &Path, position: u64, bit: u8) -> io::Result<()> {
        let inode = self.lookup(path)?;
        let file = self.file(inode)?;
        let mut byte = [0];
        if file.current.read(&mut byte, position) == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for content in [&mut file.current, &mut file.durable] {
            if content.read(&mut byte, position) == 1 {
                content.write(&[byte[0] ^ (1 << (bit & 7))], position);
            }
        }
        Ok(())
    }

    pub(super) fn dump(&self) -> Vec<(PathBuf, Option<Vec<u8>>)> {
        let mut out = Vec::new();
        let mut left = vec![(PathBuf::from("/"), ROOT)];
        while let Some((path, inode)) = left.pop() {
            match self.inodes.get(&inode) {
                Some(Inode::File(file)) => out.push((path, Some(file.current.to_vec()))),
                Some(Inode::Dir(dir)) => {
                    left.extend(dir.current.iter().map(|(name, inode)| (path.join(name), *inode)));
                    out.push((path, None));
                }
                None => {}
            }
        }
        out.sort();
        out
    }
}
