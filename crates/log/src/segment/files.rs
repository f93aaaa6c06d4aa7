//! Names of the files of a partition, and the few that are open.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, io};

use parking_lot::Mutex;
use siltstone_common::TopicIdPartition;
use siltstone_common::fs::{File, FileSystem, OpenMode};

use super::IndexEntry;
use crate::producers::AbortedTxn;

/// Handles kept open for all partitions. Reads in flight keep theirs beyond that.
const OPEN_FILES_MAX: usize = 256;
/// Entries of the indexes of sealed segments kept in memory for all partitions.
const INDEX_ENTRIES_MAX: usize = 1 << 20;

/// Aborted transactions of sealed segments kept in memory for all partitions.
const ABORTED_MAX: usize = 1 << 18;

/// What a file beside a segment holds.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum FileKind {
    /// The batches.
    Log,
    /// The batches of a cleaned segment while they are written.
    Cleaned,
    /// Sparse offset and time index.
    Index,
    /// Aborted transactions.
    Aborted,
    /// Producer state as of the offset in the name.
    Snapshot,
}

impl FileKind {
    /// The end of the name.
    pub(crate) fn extension(self) -> &'static str {
        match self {
            FileKind::Log => "log",
            FileKind::Cleaned => "cleaned",
            FileKind::Index => "index",
            FileKind::Aborted => "txnindex",
            FileKind::Snapshot => "snapshot",
        }
    }
}

/// The name that a segment's files share. A cleaned segment gets a new one, so that no file is ever changed under its readers.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SegmentName {
    pub(crate) base_offset: i64,
    /// How often it was cleaned.
    pub(crate) generation: u32,
}

impl From<i64> for SegmentName {
    /// A segment as it was written first; also the name of a producer snapshot.
    fn from(base_offset: i64) -> Self {
        Self { base_offset, generation: 0 }
    }
}

impl SegmentName {
    /// From a segment file's name.
    pub(crate) fn parse(file_name: &str) -> Option<Self> {
        let stem = file_name.strip_suffix(".log")?;
        let (base_offset, generation) = match stem.split_once('.') {
            None => (stem, 0),
            Some((base_offset, generation)) => (base_offset, generation.parse().ok()?),
        };
        let base_offset = base_offset.parse().ok()?;
        (base_offset >= 0).then_some(Self { base_offset, generation })
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.generation {
            0 => write!(f, "{:020}", self.base_offset),
            generation => write!(f, "{:020}.{generation}", self.base_offset),
        }
    }
}

/// The file of `kind` of a segment (a snapshot: of an offset) in a partition's directory.
pub(crate) fn path_of(dir: &Path, name: impl Into<SegmentName>, kind: FileKind) -> PathBuf {
    dir.join(format!("{}.{}", name.into(), kind.extension()))
}

/// All bytes of a small file.
pub(crate) fn read_whole(fs: &dyn FileSystem, path: &Path) -> io::Result<Vec<u8>> {
    let file = fs.open(path, OpenMode::Read)?;
    let mut bytes = vec![0; usize::try_from(file.len()?).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

type Key = (TopicIdPartition, SegmentName);

#[derive(Debug)]
struct Cache<T> {
    items: HashMap<Key, (T, usize)>,
    order: VecDeque<Key>,
    weight: usize,
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self { items: HashMap::new(), order: VecDeque::new(), weight: 0 }
    }
}

impl<T: Clone> Cache<T> {
    fn get(&mut self, key: Key) -> Option<T> {
        let (item, _) = self.items.get(&key)?;
        let item = item.clone();
        if self.order.back() != Some(&key) {
            self.order.retain(|other| *other != key);
            self.order.push_back(key);
        }
        Some(item)
    }

    fn insert(&mut self, key: Key, item: T, weight: usize, weight_max: usize) {
        self.remove(key);
        self.items.insert(key, (item, weight));
        self.order.push_back(key);
        self.weight += weight;
        while self.weight > weight_max && self.order.len() > 1 {
            if let Some(oldest) = self.order.pop_front()
                && let Some((_, weight)) = self.items.remove(&oldest)
            {
                self.weight -= weight;
            }
        }
    }

    fn remove(&mut self, key: Key) {
        if let Some((_, weight)) = self.items.remove(&key) {
            self.weight -= weight;
            self.order.retain(|other| *other != key);
        }
    }
}

/// Open segment files and loaded indexes, least recently used go first. An idle partition has neither.
#[derive(Debug, Default)]
pub(crate) struct SegmentFiles {
    handles: Mutex<Cache<Arc<dyn File>>>,
    indexes: Mutex<Cache<Arc<Vec<IndexEntry>>>>,
    aborted: Mutex<Cache<Arc<Vec<AbortedTxn>>>>,
}

impl SegmentFiles {
    /// The open file of a segment, for reading, opened if need be. Blocks. Writers open the file by themselves: a handle from here
    /// may belong to a file that was removed meanwhile.
    pub(crate) fn open(&self, fs: &dyn FileSystem, id: TopicIdPartition, name: SegmentName, dir: &Path) -> io::Result<Arc<dyn File>> {
        let key = (id, name);
        if let Some(file) = self.handles.lock().get(key) {
            return Ok(file);
        }
        let file = fs.open(&path_of(dir, name, FileKind::Log), OpenMode::Read)?;
        self.handles.lock().insert(key, Arc::clone(&file), 1, OPEN_FILES_MAX);
        Ok(file)
    }

    /// The file of a segment if it is open already.
    pub(crate) fn opened(&self, id: TopicIdPartition, name: SegmentName) -> Option<Arc<dyn File>> {
        self.handles.lock().get((id, name))
    }

    /// The index of a segment if it is in memory.
    pub(crate) fn loaded_index(&self, id: TopicIdPartition, name: SegmentName) -> Option<Arc<Vec<IndexEntry>>> {
        self.indexes.lock().get((id, name))
    }

    /// The index of a segment, read by `load` if it is not in memory.
    pub(crate) fn index<E>(
        &self,
        id: TopicIdPartition,
        name: SegmentName,
        load: impl FnOnce() -> Result<Vec<IndexEntry>, E>,
    ) -> Result<Arc<Vec<IndexEntry>>, E> {
        let key = (id, name);
        if let Some(index) = self.indexes.lock().get(key) {
            return Ok(index);
        }
        let index = Arc::new(load()?);
        self.indexes.lock().insert(key, Arc::clone(&index), index.len() + 1, INDEX_ENTRIES_MAX);
        Ok(index)
    }

    /// The aborted transactions of a sealed segment, read by `load` if they are not in memory.
    pub(crate) fn aborted<E>(
        &self,
        id: TopicIdPartition,
        name: SegmentName,
        load: impl FnOnce() -> Result<Vec<AbortedTxn>, E>,
    ) -> Result<Arc<Vec<AbortedTxn>>, E> {
        let key = (id, name);
        if let Some(aborted) = self.aborted.lock().get(key) {
            return Ok(aborted);
        }
        let aborted = Arc::new(load()?);
        self.aborted.lock().insert(key, Arc::clone(&aborted), aborted.len() + 1, ABORTED_MAX);
        Ok(aborted)
    }

    /// Forgets a segment that was removed, cut, sealed or cleaned.
    pub(crate) fn forget(&self, id: TopicIdPartition, name: impl Into<SegmentName>) {
        let key = (id, name.into());
        self.handles.lock().remove(key);
        self.indexes.lock().remove(key);
        self.aborted.lock().remove(key);
    }
}
