//! The manifest of a data directory: what the segment files of every partition hold, synced.
//!
//! # Overview
//! An append-only file of records; the newest record of a partition counts. Every change of what may be relied upon
//! (a flush that lets go of WAL entries, a sealed segment, a raised log start, a truncation, a removal) is one record; what is appended
//! and synced together is one checksummed group, so each is atomic. When the file has grown to a multiple of what it holds it is written anew: temporary file, sync, rename,
//! sync of the directory (I39). Some room is taken ahead, so that on a full disk it can still be said that something was removed (I40).
//!
//! # Crash consistency
//! A torn last group was never relied upon, whatever of it is there. A bad group before a good one is damage: then the directories have to be read
//! instead ([`Loaded::damaged`]). The stop was clean if the last record is [`Record::Closed`].

pub(crate) mod record;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use siltstone_common::fs::{File, FileSystem, OpenMode, is_full, is_short, sync_error};
use siltstone_common::{TopicIdPartition, fault};

use record::{FILE_HEADER, PartitionRecord, Record, decode_group, encode_group};

/// The file is written anew when it is larger than this and than twice what it held when last written.
const REWRITE_BYTES_MIN: u64 = 1 << 20;
/// Room taken ahead of what is appended.
const RESERVE_BYTES: u64 = 64 << 10;

/// What the manifest says.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// The newest record of each partition.
    pub(crate) partitions: BTreeMap<TopicIdPartition, PartitionRecord>,
    /// Partitions removed since, and up to which sequence their WAL entries are void.
    pub(crate) removed: BTreeMap<TopicIdPartition, u64>,
    /// WAL entries below are not needed.
    pub(crate) first_live_sequence: u64,
    /// After a clean stop: the next sequence.
    pub(crate) closed: Option<u64>,
    /// True if it can't be relied upon.
    pub(crate) damaged: bool,
    /// True if there was none.
    pub(crate) missing: bool,
}

/// Reads the manifest at `path`.
pub(crate) fn load(fs: &dyn FileSystem, path: &Path) -> io::Result<Loaded> {
    let mut loaded = Loaded::default();
    let bytes = match fs.open(path, OpenMode::Read) {
        Ok(file) => {
            let mut bytes = vec![0; usize::try_from(file.len()?).unwrap_or(usize::MAX)];
            file.read_exact_at(&mut bytes, 0)?;
            bytes
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            loaded.missing = true;
            return Ok(loaded);
        }
        Err(error) => return Err(error),
    };
    if !bytes.starts_with(&FILE_HEADER) {
        loaded.damaged = true;
        return Ok(loaded);
    }
    let group_at = |at: usize| decode_group(&bytes[at..], at as u64);
    let mut end = FILE_HEADER.len();
    while let Some((records, len)) = group_at(end) {
        records.into_iter().for_each(|record| loaded.apply(record));
        end += len;
    }
    if bytes[end..].iter().any(|byte| *byte != 0) {
        loaded.closed = None;
        loaded.damaged = (end + 1..bytes.len()).any(|at| group_at(at).is_some());
    }
    Ok(loaded)
}

impl Loaded {
    fn apply(&mut self, record: Record) {
        self.closed = None;
        match record {
            Record::Partition(record) => {
                self.removed.remove(&record.id);
                self.partitions.insert(record.id, record);
            }
            Record::Removed { id, covered_sequence } => {
                self.partitions.remove(&id);
                self.removed.insert(id, covered_sequence);
            }
            Record::WalTrim { first_live_sequence } => self.first_live_sequence = first_live_sequence,
            Record::Opened => {}
            Record::Closed { next_sequence } => self.closed = Some(next_sequence),
        }
    }
}

#[derive(Debug)]
struct Open {
    file: Arc<dyn File>,
    position: u64,
    position_rewritten: u64,
    /// Room taken, from the file's begin.
    reserved: u64,
    first_live_sequence: u64,
    removed: BTreeMap<TopicIdPartition, u64>,
}

impl Open {
    /// Takes room for `len` more bytes and some ahead, as far as there is any.
    fn reserve(&mut self, len: u64) {
        let wanted = self.position + len + RESERVE_BYTES;
        if wanted > self.reserved + RESERVE_BYTES / 2 && self.file.allocate(wanted).is_ok() {
            self.reserved = wanted;
        }
    }
}

/// The manifest, open for appending.
#[derive(Debug)]
pub(crate) struct Manifest {
    fs: Arc<dyn FileSystem>,
    path: PathBuf,
    open: Mutex<Open>,
}

/// Which records are to be appended: called with the manifest locked, so that a record never overwrites a newer one.
pub(crate) type Records<'a> = dyn FnMut(&mut Vec<Record>) + 'a;

impl Manifest {
    /// Writes a new manifest: `loaded`'s removals and trim, all of `partitions`, then [`Record::Opened`].
    pub(crate) fn create(
        fs: Arc<dyn FileSystem>,
        path: PathBuf,
        removed: BTreeMap<TopicIdPartition, u64>,
        first_live_sequence: u64,
        partitions: Vec<Record>,
    ) -> io::Result<Self> {
        let (file, position) = rewrite(fs.as_ref(), &path, &removed, first_live_sequence, partitions)?;
        let open = Open { file, position, position_rewritten: position, reserved: position, first_live_sequence, removed };
        Ok(Self { fs, path, open: Mutex::new(open) })
    }

    /// Appends records and syncs. `all` gives one record for each partition, should the file have to be written anew. Blocks.
    pub(crate) fn append(&self, records: &mut Records<'_>, all: &mut Records<'_>) -> io::Result<()> {
        let mut open = self.open.lock();
        let mut list = Vec::new();
        records(&mut list);
        if list.is_empty() {
            return Ok(());
        }
        for record in &list {
            match record {
                Record::Partition(record) => _ = open.removed.remove(&record.id),
                Record::Removed { id, covered_sequence } => _ = open.removed.insert(*id, *covered_sequence),
                Record::WalTrim { first_live_sequence } => {
                    let first_live_sequence = *first_live_sequence;
                    open.first_live_sequence = first_live_sequence;
                    open.removed.retain(|_, covered_sequence| *covered_sequence >= first_live_sequence);
                }
                Record::Opened | Record::Closed { .. } => {}
            }
        }
        let bytes = encode_group(&list, open.position);
        fault::point("manifest.append")?;
        open.reserve(bytes.len() as u64);
        open.file.write_all_at(&bytes, open.position)?;
        fault::point("manifest.appended")?;
        open.file.sync_data().map_err(|error| sync_error(&error))?;
        open.position += bytes.len() as u64;
        let closed = matches!(list.last(), Some(Record::Closed { .. }));
        if !closed && open.position > REWRITE_BYTES_MIN.max(2 * open.position_rewritten) {
            let mut partitions = Vec::new();
            all(&mut partitions);
            match rewrite(self.fs.as_ref(), &self.path, &open.removed, open.first_live_sequence, partitions) {
                Ok((file, position)) => {
                    open.file = file;
                    (open.position, open.position_rewritten, open.reserved) = (position, position, position);
                }
                // What was to be said is said: the file only does not get smaller yet.
                Err(error) if is_full(&error) || is_short(&error) => tracing::warn!(%error, "the manifest can't be written anew"),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn rewrite(
    fs: &dyn FileSystem,
    path: &Path,
    removed: &BTreeMap<TopicIdPartition, u64>,
    first_live_sequence: u64,
    partitions: Vec<Record>,
) -> io::Result<(Arc<dyn File>, u64)> {
    let mut records = vec![Record::WalTrim { first_live_sequence }];
    records.extend(removed.iter().map(|(id, covered_sequence)| Record::Removed { id: *id, covered_sequence: *covered_sequence }));
    records.extend(partitions);
    records.push(Record::Opened);
    let mut bytes = FILE_HEADER.to_vec();
    bytes.extend(encode_group(&records, FILE_HEADER.len() as u64));
    let file = write_durably(fs, path, &bytes)?;
    Ok((file, bytes.len() as u64))
}

/// Replaces the file at `path` so that after a crash it is either the old or the new one (I39).
pub(crate) fn write_durably(fs: &dyn FileSystem, path: &Path, bytes: &[u8]) -> io::Result<Arc<dyn File>> {
    let temporary = path.with_extension("tmp");
    let file = fs.open(&temporary, OpenMode::Truncate)?;
    file.write_all_at(bytes, 0)?;
    file.sync_all()?;
    fault::point("checkpoint.before-rename")?;
    fs.rename(&temporary, path)?;
    fault::point("checkpoint.renamed")?;
    if let Some(dir) = path.parent() {
        fs.sync_dir(dir).map_err(|error| sync_error(&error))?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests;
