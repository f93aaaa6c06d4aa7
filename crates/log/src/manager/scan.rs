//! Reads partition directories when the manifest can't be relied upon (gone or damaged), and checks the files it names after a stop
//! that was not clean.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};

use siltstone_common::TopicIdPartition;
use siltstone_common::fs::{FileSystem, OpenMode};

use crate::batch::{BatchHeader, verify_crc};
use crate::epochs::LeaderEpochCache;
use crate::error::{LogError, ReadError};
use crate::index::{encode_aborted, encode_index};
use crate::manifest::record::{PartitionRecord, SegmentRecord};
use crate::producers::{EndTxnMarker, ProducerStates};
use crate::segment::{FileKind, Segment, SegmentName, Walker, path_of};

/// Sparse enough for an index that is only made after damage.
const INDEX_INTERVAL_BYTES: u32 = 4096;

/// What became of a directory.
#[derive(Debug)]
pub(super) struct Scanned {
    /// What its files hold; `None` if there is nothing.
    pub(super) record: Option<PartitionRecord>,
    /// Files set aside.
    pub(super) quarantined: Vec<PathBuf>,
}

/// Reads every batch in a partition's directory and makes anew what is derived from them. Batches behind a bad one are set aside,
/// with the file they are in; what follows in later segments stays.
pub(super) fn scan(fs: &dyn FileSystem, id: TopicIdPartition, dir: &Path) -> Result<Scanned, LogError> {
    let failed = |error| LogError::io(dir, error);
    let names = newest_names(fs, dir).map_err(failed)?;
    let mut scan = Scan { fs, dir, epochs: LeaderEpochCache::default(), producers: ProducerStates::default(), quarantined: Vec::new() };
    let mut segments: Vec<SegmentRecord> = Vec::new();
    for (at, name) in names.iter().enumerate() {
        if segments.last().is_some_and(|last| last.generation > name.generation && name.base_offset <= last.last_offset) {
            // Merged into the one before, and left by a kill before its removal.
            fs.remove_file(&path_of(dir, *name, FileKind::Log)).map_err(failed)?;
            continue;
        }
        let later = &names[at + 1..];
        // What lies further down may have been merged into this one.
        let next_base = later.iter().find(|next| next.generation >= name.generation).map_or(i64::MAX, |next| next.base_offset);
        let is_active = later.is_empty() && name.generation == 0;
        segments.extend(scan.segment(*name, next_base, is_active).map_err(failed)?);
    }
    fs.sync_dir(dir).map_err(failed)?;
    let Some(last) = segments.last() else {
        // All that was here may be in the bucket.
        return Ok(Scanned { record: None, quarantined: scan.quarantined });
    };
    let record = PartitionRecord {
        id,
        covered_sequence: 0,
        // What lies below the first segment may be in the bucket: metadata knows where the log begins.
        log_start: 0,
        end_offset: last.last_offset + 1,
        snapshot_offset: -1,
        epochs: scan.epochs.entries().to_vec(),
        cleaned_end: 0,
        segments,
    };
    Ok(Scanned { record: Some(record), quarantined: scan.quarantined })
}

struct Scan<'a> {
    fs: &'a dyn FileSystem,
    dir: &'a Path,
    epochs: LeaderEpochCache,
    producers: ProducerStates,
    quarantined: Vec<PathBuf>,
}

impl Scan<'_> {
    /// Takes the batches below `next_base`: a file may be longer than what was sealed.
    fn segment(&mut self, name: SegmentName, next_base: i64, is_active: bool) -> io::Result<Option<SegmentRecord>> {
        let path = path_of(self.dir, name, FileKind::Log);
        let file = self.fs.open(&path, OpenMode::ReadWrite)?;
        let len = file.len()?;
        let mut walker = Walker::new(file.clone(), len);
        let mut segment = Segment { generation: name.generation, ..Segment::new(name.base_offset) };
        let mut damage = None;
        while segment.size_bytes < len {
            match self.batch(&mut walker, &mut segment, next_base) {
                Ok(()) => {}
                Err(error) if error.is_damage() => {
                    damage = Some(error.to_string());
                    break;
                }
                Err(ReadError::Io(error)) => return Err(error),
                Err(other) => return Err(io::Error::other(other)),
            }
        }
        if let Some(reason) = &damage {
            // Of the newest, too: nobody can tell a torn end, which comes again from the WAL, from what was acknowledged long ago.
            self.keep_aside(&path, len, &segment, reason)?;
            file.set_len(segment.size_bytes)?;
        }
        if segment.is_empty() {
            self.fs.remove_file(&path)?;
            return Ok(None);
        }
        file.sync_all()?;
        if !is_active {
            self.write_beside(&segment)?;
        }
        let size_bytes = segment.size_bytes;
        let has_aborts = !segment.aborted.is_empty();
        let synced_end = segment.end_offset;
        let record =
            Segment { synced_bytes: size_bytes, synced_end, has_aborts, first_append_ms: segment.max_timestamp_ms, ..segment }.record();
        Ok(Some(SegmentRecord { sealed: !is_active, indexed: false, ..record }))
    }

    /// Takes the next batch, or says what is wrong with it.
    fn batch(&mut self, walker: &mut Walker, segment: &mut Segment, next_base: i64) -> Result<(), ReadError> {
        let offset = segment.end_offset;
        let corrupt = |reason: String| ReadError::Corrupt { offset, reason };
        let header: BatchHeader =
            walker.header_at(segment.size_bytes, offset)?.ok_or_else(|| corrupt("the segment ends within a batch".to_owned()))?;
        if header.base_offset < offset || header.next_offset() > next_base {
            return Err(corrupt(format!("batch {} to {} is not in [{offset}, {next_base})", header.base_offset, header.last_offset())));
        }
        let batch = walker.batch(segment.size_bytes, &header)?;
        verify_crc(&batch).map_err(|error| corrupt(error.to_string()))?;
        segment.add(&header, INDEX_INTERVAL_BYTES);
        if header.partition_leader_epoch >= 0 {
            self.epochs.assign(header.partition_leader_epoch, header.base_offset);
        }
        let marker = EndTxnMarker::from_batch(&header, &batch);
        segment.aborted.extend(self.producers.appended(&header, marker));
        Ok(())
    }

    /// Copies a damaged file aside before it is cut (I37).
    fn keep_aside(&mut self, path: &Path, len: u64, good: &Segment, reason: &str) -> io::Result<()> {
        let aside = path.with_extension(format!("log.corrupt-{}", good.end_offset));
        tracing::error!(
            path = %path.display(), aside = %aside.display(), reason, first_lost_offset = good.end_offset,
            "corrupt segment is set aside: acknowledged records are missing here"
        );
        copy(self.fs, path, &aside, len)?;
        self.quarantined.push(aside);
        Ok(())
    }

    fn write_beside(&self, segment: &Segment) -> io::Result<()> {
        let write = |name: SegmentName, kind: FileKind, bytes: &[u8]| -> io::Result<()> {
            let file = self.fs.open(&path_of(self.dir, name, kind), OpenMode::Truncate)?;
            file.write_all_at(bytes, 0)?;
            file.sync_all()
        };
        write(segment.name(), FileKind::Index, &encode_index(&segment.index))?;
        if !segment.aborted.is_empty() {
            write(segment.name(), FileKind::Aborted, &encode_aborted(&segment.aborted))?;
        }
        write(segment.end_offset.into(), FileKind::Snapshot, &self.producers.snapshot(segment.end_offset))
    }
}

/// Copies `len` bytes of a file and syncs the copy.
pub(crate) fn copy(fs: &dyn FileSystem, from: &Path, to: &Path, len: u64) -> io::Result<()> {
    const COPY_BYTES: usize = 1 << 20;
    let (from, to) = (fs.open(from, OpenMode::Read)?, fs.open(to, OpenMode::Truncate)?);
    let mut buffer = vec![0; COPY_BYTES];
    let mut at = 0;
    while at < len {
        let part = usize::try_from(len - at).unwrap_or(COPY_BYTES).min(COPY_BYTES);
        from.read_exact_at(&mut buffer[..part], at)?;
        to.write_all_at(&buffer[..part], at)?;
        at += part as u64;
    }
    to.sync_all()
}

/// The segments in a directory, ascending; of one that was cleaned, the newest.
fn newest_names(fs: &dyn FileSystem, dir: &Path) -> io::Result<Vec<SegmentName>> {
    let newest: BTreeMap<i64, u32> = {
        let names = fs.read_dir(dir)?.into_iter().filter_map(|entry| SegmentName::parse(&entry.name));
        names.fold(BTreeMap::new(), |mut newest, name| {
            let generation = newest.entry(name.base_offset).or_default();
            *generation = name.generation.max(*generation);
            newest
        })
    };
    Ok(newest.into_iter().map(|(base_offset, generation)| SegmentName { base_offset, generation }).collect())
}

/// After a stop that was not clean: removes files that the manifest does not know (what they hold is in the WAL), and takes
/// segments out of `record` whose file is gone or too short, so that they are a hole and not a surprise. Returns what was missing.
pub(super) fn check_files(fs: &dyn FileSystem, dir: &Path, record: &mut PartitionRecord) -> io::Result<Vec<PathBuf>> {
    let entries = match fs.read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        other => other?,
    };
    let sizes: HashMap<&str, u64> = entries.iter().map(|entry| (entry.name.as_str(), entry.len)).collect();
    let mut lost = Vec::new();
    record.segments.retain(|segment| {
        let path = path_of(dir, segment.name(), FileKind::Log);
        let len = path.file_name().and_then(|name| sizes.get(name.to_str()?)).copied().unwrap_or(0);
        // The active segment is read at opening, which keeps what is good of it.
        let is_there = len >= segment.size_bytes || (!segment.sealed && len > 0);
        if !is_there {
            tracing::error!(
                path = %path.display(), len, expected = segment.size_bytes, first_lost_offset = segment.base_offset, last_lost_offset = segment.last_offset,
                "a segment file is gone or cut: acknowledged records are missing here"
            );
            lost.push(path);
        }
        is_there
    });
    for entry in &entries {
        let is_known = |segment: &SegmentRecord| {
            let log = path_of(dir, segment.name(), FileKind::Log);
            log.file_name().and_then(|name| name.to_str()) == Some(entry.name.as_str())
        };
        let is_log = SegmentName::parse(&entry.name).is_some();
        let is_unfinished = entry.name.ends_with(".cleaned");
        if is_unfinished || is_log && !lost.iter().any(|path| path.ends_with(&entry.name)) && !record.segments.iter().any(is_known) {
            fs.remove_file(&dir.join(&entry.name))?;
        }
    }
    for path in lost.iter_mut().filter(|path| fs.exists(path)) {
        let aside = path.with_extension("log.corrupt");
        fs.rename(path, &aside)?;
        *path = aside;
    }
    Ok(lost)
}
