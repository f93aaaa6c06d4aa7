//! Opening a log: from the manifest's record, what its files hold, and what the WAL brings.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use siltstone_common::TopicIdPartition;
use siltstone_common::fs::{FileSystem, OpenMode};

use super::state::LogState;
use super::{LogConfig, PartitionLog};
use crate::batch::{BatchHeader, batches};
use crate::epochs::LeaderEpochCache;
use crate::error::{LogError, ReadError, is_damage};
use crate::index::{decode_aborted, decode_index, encode_aborted, encode_index};
use crate::manager::scan::copy;
use crate::manifest::record::{PartitionRecord, SegmentRecord};
use crate::producers::{EndTxnMarker, ProducerStates};
use crate::segment::{FileKind, Phase, Segment, Walker, path_of, read_whole};
use crate::shared::Shared;

/// What recovery found of a partition, until its log is opened.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recovered {
    /// What its segment files hold, synced.
    pub(crate) record: Option<PartitionRecord>,
    /// Without a record: WAL entries up to this sequence belong to a log that was removed.
    pub(crate) void_sequence: u64,
    /// WAL entries that are not in segment files, with their sequences.
    pub(crate) entries: Vec<(u64, Bytes)>,
}

impl Recovered {
    /// Drops entries at or above `offset`, where a later one begins: a truncation lay between them, whether or not the manifest got to say so.
    pub(crate) fn cut(&mut self, offset: i64) {
        while let Some((_, bytes)) = self.entries.last_mut() {
            let below = batches(bytes).map_while(Result::ok).take_while(|(header, _)| header.last_offset() < offset);
            let kept = below.map(|(_, batch)| batch.len()).sum();
            if kept > 0 {
                bytes.truncate(kept);
                return;
            }
            self.entries.pop();
        }
    }
}

impl PartitionLog {
    /// An empty log, or what recovery found. WAL entries up to `covered_sequence` are void for a log that was not there. Blocks.
    pub(crate) fn open(
        id: TopicIdPartition,
        shared: Arc<Shared>,
        config: LogConfig,
        recovered: Recovered,
        covered_sequence: u64,
    ) -> Result<Arc<Self>, LogError> {
        let config = Arc::new(config);
        let mut state = match &recovered.record {
            Some(record) => state_from_record(&shared, id, config, record)?,
            None => state_from_entries(config, &recovered, covered_sequence),
        };
        let mut chunks = Vec::new();
        for (sequence, bytes) in recovered.entries {
            if let Some(bytes) = missing_part(&bytes, state.offsets.log_end) {
                let now_ms = shared.env.clock.now_ms();
                state
                    .take(&bytes, now_ms)
                    .map_err(|error| LogError::Corrupt { path: format!("wal entry {sequence}"), reason: error.to_string() })?;
                chunks.push((state.offsets.log_end, bytes.len()));
            }
            state.queued(sequence);
        }
        state.skip_to_log_start();
        state.offsets.ack_end = state.offsets.log_end;
        let log = Self::with_state(id, shared, state);
        log.remove_leftovers();
        for (end_offset, bytes) in chunks {
            log.shared.tail_cache.add_one(&log, end_offset, bytes);
        }
        Ok(log)
    }
}

impl PartitionLog {
    /// Removes segments that are no part of the log, and what stands beside segments that are not there any more: a stop came before or between the
    /// removals, or a clean one saved more than is needed since. Best effort.
    fn remove_leftovers(&self) {
        let fs = self.shared.env.fs.as_ref();
        let dir = self.dir();
        let Ok(entries) = fs.read_dir(&dir) else {
            return;
        };
        let known: HashSet<PathBuf> = {
            let state = self.state.lock();
            let beside = |segment: &Segment| {
                let name = segment.name();
                [
                    path_of(&dir, name, FileKind::Log),
                    path_of(&dir, name, FileKind::Index),
                    path_of(&dir, name, FileKind::Aborted),
                    path_of(&dir, segment.base_offset, FileKind::Snapshot),
                    path_of(&dir, segment.end_offset, FileKind::Snapshot),
                ]
            };
            let newest = path_of(&dir, state.snapshot_offset, FileKind::Snapshot);
            state.segments.iter().flat_map(beside).chain([newest]).collect()
        };
        let is_beside = |name: &str| [".log", ".index", ".txnindex", ".snapshot"].iter().any(|ending| name.ends_with(ending));
        for path in entries.iter().filter(|entry| is_beside(&entry.name)).map(|entry| dir.join(&entry.name)) {
            if !known.contains(&path)
                && let Err(error) = fs.remove_file(&path)
            {
                tracing::warn!(path = %path.display(), %error, "a file that nothing needs can't be removed");
            }
        }
    }
}

/// The state of a log without segments, before what the WAL brings. That may not be its begin: the bucket may have what comes before.
fn state_from_entries(config: Arc<LogConfig>, recovered: &Recovered, covered_sequence: u64) -> LogState {
    let first = recovered.entries.first().and_then(|(_, bytes)| BatchHeader::parse(bytes).ok());
    let Some(first) = first else {
        return LogState::empty(config, 0, covered_sequence);
    };
    let mut state = LogState::empty(config, first.base_offset, recovered.void_sequence);
    state.durable_log_start = 0;
    state.set_log_start(0);
    state
}

/// The batches of an entry that lie at or above `log_end`.
fn missing_part(bytes: &Bytes, log_end: i64) -> Option<Bytes> {
    let mut at = 0;
    for (header, batch) in batches(bytes).map_while(Result::ok) {
        if header.base_offset >= log_end {
            return Some(bytes.slice(at..));
        }
        at += batch.len();
    }
    None
}

/// The state that `record` describes. Reads the active segment's headers unless index and snapshot make that needless. Blocks.
pub(super) fn state_from_record(
    shared: &Shared,
    id: TopicIdPartition,
    config: Arc<LogConfig>,
    record: &PartitionRecord,
) -> Result<LogState, LogError> {
    let mut state = LogState::empty(config, record.end_offset, record.covered_sequence);
    let dir = shared.partition_dir(id);
    let loader = Loader { fs: shared.env.fs.as_ref(), dir: &dir, interval: state.config.index_interval_bytes };
    let (producers, snapshot_offset) = loader.snapshot(record).map_err(|error| error.into_log_error(&dir))?;
    state.producers = producers;
    state.snapshot_offset = snapshot_offset;
    state.epochs = LeaderEpochCache::from_entries(record.epochs.iter().copied());
    let mut segments = Vec::with_capacity(record.segments.len() + 1);
    for known in &record.segments {
        let segment = loader.segment(known, &mut state.producers, snapshot_offset)?;
        segments.extend(segment);
    }
    if segments.last().is_none_or(|last| last.phase != Phase::Active || last.end_offset < record.end_offset) {
        // After a quarantine, too: the log goes on where it was (no offset is given twice, I6).
        segments.push(Segment::new(record.end_offset));
    }
    state.segments = segments.into();
    state.recorded = true;
    state.cleaned_end = record.cleaned_end.min(record.end_offset);
    state.durable_log_start = record.log_start;
    state.offsets.log_start = record.log_start;
    state.offsets.high_watermark = record.log_start;
    state.offsets.ack_end = record.end_offset;
    state.offsets.local_start = state.local_start();
    state.update_last_stable();
    Ok(state)
}

/// Reads what a partition's directory holds.
pub(super) struct Loader<'a> {
    pub(super) fs: &'a dyn FileSystem,
    pub(super) dir: &'a Path,
    pub(super) interval: u32,
}

impl Loader<'_> {
    /// The newest snapshot that will do, or nothing and -1: then all that is here is read instead. For an unsealed segment it has to be
    /// one at its begin, since only reading all of it gives its aborted transactions; unless those were saved at a clean stop.
    fn snapshot(&self, record: &PartitionRecord) -> Result<(ProducerStates, i64), ReadError> {
        let saved = record.segments.last().is_none_or(|last| last.sealed || self.is_saved(last, record.snapshot_offset));
        let begins = record.segments.iter().rev().map(|segment| segment.base_offset);
        for offset in saved.then_some(record.snapshot_offset).into_iter().chain(begins).filter(|offset| *offset >= 0) {
            if let Some(found) = self.usable_snapshot(offset)? {
                return Ok(found);
            }
        }
        Ok((ProducerStates::default(), -1))
    }

    /// True if nothing of an unsealed segment has to be read.
    fn is_saved(&self, known: &SegmentRecord, snapshot_offset: i64) -> bool {
        let path = path_of(self.dir, known.name(), FileKind::Aborted);
        let aborted_is_good = || read_whole(self.fs, &path).is_ok_and(|bytes| decode_aborted(&bytes).is_ok());
        known.indexed && snapshot_offset > known.last_offset && self.index_is_good(known) && (!known.has_aborts || aborted_is_good())
    }

    /// The snapshot of `offset`, if there is one that can be used.
    pub(super) fn usable_snapshot(&self, offset: i64) -> Result<Option<(ProducerStates, i64)>, ReadError> {
        let path = path_of(self.dir, offset, FileKind::Snapshot);
        let bytes = match read_whole(self.fs, &path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if !is_damage(&error) => return Err(error.into()),
            other => other.map_err(|error| LogError::io(&path, error)),
        };
        Ok(match bytes.and_then(|bytes| ProducerStates::load(&bytes)) {
            Ok((producers, at)) if at == offset => Some((producers, at)),
            other => {
                let reason = other.err().map_or_else(|| "it is of another offset".to_owned(), |error| error.to_string());
                tracing::error!(path = %path.display(), reason, "producer snapshot is unusable, the state is rebuilt from the segments");
                None
            }
        })
    }

    /// The segment that `known` describes; what it brings for the producers from `snapshot_offset` on is noted. `None` if nothing of it is left.
    fn segment(&self, known: &SegmentRecord, producers: &mut ProducerStates, snapshot_offset: i64) -> Result<Option<Segment>, LogError> {
        let mut segment = Segment::from_record(known);
        let index_is_good = known.sealed || self.is_saved(known, snapshot_offset);
        if index_is_good && segment.end_offset <= snapshot_offset {
            return self.with_aborted(segment).map(Some);
        }
        let path = path_of(self.dir, known.name(), FileKind::Log);
        let (walked, damage) = self.walk(known, producers, snapshot_offset).map_err(|error| error.into_log_error(&path))?;
        if let Some(reason) = damage {
            return self.quarantine(known, walked, &reason).map_err(|error| LogError::io(&path, error));
        }
        if known.sealed {
            debug_assert_eq!(walked.size_bytes, segment.size_bytes);
            return Ok(Some(segment));
        }
        if !index_is_good {
            segment.index = walked.index;
            segment.indexed_bytes = 0;
            segment.max_timestamp_ms = walked.max_timestamp_ms;
        }
        segment.aborted = walked.aborted;
        segment.has_aborts = !segment.aborted.is_empty();
        Ok(Some(segment))
    }

    fn index_is_good(&self, known: &SegmentRecord) -> bool {
        let path = path_of(self.dir, known.name(), FileKind::Index);
        read_whole(self.fs, &path).is_ok_and(|bytes| decode_index(&bytes).is_ok())
    }

    /// An unsealed segment's aborted transactions are in memory.
    fn with_aborted(&self, mut segment: Segment) -> Result<Segment, LogError> {
        if segment.has_aborts && segment.phase == Phase::Active {
            let path = path_of(self.dir, segment.name(), FileKind::Aborted);
            let bytes = match read_whole(self.fs, &path) {
                Err(error) if !is_damage(&error) => return Err(LogError::io(&path, error)),
                read => read.ok(),
            };
            match bytes.and_then(|bytes| decode_aborted(&bytes).ok()) {
                // An end that came in the midst of sealing may have left a newer list: what it has more comes again from the WAL.
                Some(aborted) => segment.aborted = aborted.into_iter().filter(|txn| txn.last_offset < segment.end_offset).collect(),
                None => tracing::error!(path = %path.display(), "list of aborted transactions is unusable"),
            }
        }
        Ok(segment)
    }

    /// Reads the headers of a segment: what is good of it, and what is wrong with what follows.
    ///
    /// # Errors
    /// Those of the disk that say nothing of the segment.
    pub(super) fn walk(
        &self,
        known: &SegmentRecord,
        producers: &mut ProducerStates,
        from: i64,
    ) -> Result<(Segment, Option<String>), ReadError> {
        let mut walked = Segment { generation: known.generation, ..Segment::new(known.base_offset) };
        let path = path_of(self.dir, known.name(), FileKind::Log);
        let file = match self.fs.open(&path, OpenMode::Read) {
            Ok(file) => file,
            Err(error) if is_damage(&error) => return Ok((walked, Some(error.to_string()))),
            Err(error) => return Err(error.into()),
        };
        let mut walker = Walker::new(file, known.size_bytes);
        loop {
            match step(&mut walker, &walked) {
                Ok(None) => return Ok((walked, None)),
                Ok(Some((header, marker))) => {
                    walked.add(&header, self.interval);
                    if header.base_offset >= from
                        && let Some(aborted) = producers.appended(&header, marker)
                    {
                        walked.aborted.push(aborted);
                    }
                }
                Err(error) if error.is_damage() => return Ok((walked, Some(error.to_string()))),
                Err(error) => return Err(error),
            }
        }
    }

    /// Copies a damaged segment file aside and seals what is good of it (I37): it is never the active segment again. The file stays as long as it is: as
    /// long as the manifest has the segment as it was, after a failure or a kill, all of this is done again.
    fn quarantine(&self, known: &SegmentRecord, good: Segment, reason: &str) -> io::Result<Option<Segment>> {
        let path = path_of(self.dir, known.name(), FileKind::Log);
        let aside = path.with_extension(format!("log.corrupt-{}", good.end_offset));
        tracing::error!(
            path = %path.display(), aside = %aside.display(), reason,
            first_lost_offset = good.end_offset, last_lost_offset = known.last_offset,
            "corrupt segment is set aside: acknowledged records are missing here"
        );
        if good.is_empty() {
            match self.fs.rename(&path, &aside) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => self.fs.sync_dir(self.dir)?,
            }
            return Ok(None);
        }
        let len = self.fs.open(&path, OpenMode::Read)?.len()?;
        copy(self.fs, &path, &aside, len)?;
        self.write_beside(known, FileKind::Index, &encode_index(&good.index))?;
        let has_aborts = if known.sealed { known.has_aborts } else { !good.aborted.is_empty() };
        if has_aborts && !known.sealed {
            self.write_beside(known, FileKind::Aborted, &encode_aborted(&good.aborted))?;
        }
        self.fs.sync_dir(self.dir)?;
        let sealed = SegmentRecord {
            last_offset: good.end_offset - 1,
            size_bytes: good.size_bytes,
            max_timestamp_ms: good.max_timestamp_ms,
            sealed: true,
            has_aborts,
            ..*known
        };
        Ok(Some(Segment { phase: Phase::Sealed, ..Segment::from_record(&sealed) }))
    }

    fn write_beside(&self, known: &SegmentRecord, kind: FileKind, bytes: &[u8]) -> io::Result<()> {
        let file = self.fs.open(&path_of(self.dir, known.name(), kind), OpenMode::Truncate)?;
        file.write_all_at(bytes, 0)?;
        file.sync_all()
    }
}

/// The batch behind `walked`, and its transaction marker.
fn step(walker: &mut Walker, walked: &Segment) -> Result<Option<(BatchHeader, Option<EndTxnMarker>)>, ReadError> {
    let Some(header) = walker.header_at(walked.size_bytes, walked.end_offset)? else {
        return Ok(None);
    };
    if header.base_offset < walked.end_offset {
        return Err(ReadError::Corrupt { offset: walked.end_offset, reason: format!("offset goes back to {}", header.base_offset) });
    }
    let marker = match header.is_control() && header.has_producer_id() {
        true => EndTxnMarker::from_batch(&header, &walker.batch(walked.size_bytes, &header)?),
        false => None,
    };
    Ok(Some((header, marker)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::stamp;
    use crate::testing::batch;

    fn entry(offsets: &[i64]) -> Bytes {
        let stamped = |offset: &i64| {
            let mut batch = batch(0, &[b"a", b"b"]);
            stamp(&mut batch, *offset, 0);
            batch
        };
        offsets.iter().flat_map(stamped).collect::<Vec<u8>>().into()
    }

    #[test]
    fn a_later_entry_replaces_what_it_overlaps() {
        let entries = vec![(1, entry(&[0, 2])), (2, entry(&[4, 6])), (3, entry(&[8]))];
        let whole = entries[1].1.len();
        let mut recovered = Recovered { entries, ..Recovered::default() };
        recovered.cut(10);
        assert_eq!(recovered.entries.len(), 3);
        recovered.cut(7);
        assert_eq!(
            recovered.entries.iter().map(|(sequence, bytes)| (*sequence, bytes.len())).collect::<Vec<_>>(),
            [(1, whole), (2, whole / 2)]
        );
        recovered.cut(0);
        assert!(recovered.entries.is_empty());
    }
}
