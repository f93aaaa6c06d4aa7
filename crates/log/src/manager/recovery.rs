//! What a data directory holds when it is opened.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use siltstone_common::fs::{FileSystem, OpenMode};
use siltstone_common::{Env, TopicId, TopicIdPartition};

use super::{LogManagerConfig, RecoveryReport, identity, scan};
use crate::batch::{BatchHeader, batches};
use crate::error::LogError;
use crate::manager::flusher::FlushQueue;
use crate::manifest::record::Record;
use crate::manifest::{self, Loaded, Manifest};
use crate::partition::Recovered;
use crate::segment::SegmentFiles;
use crate::shared::{Health, Shared, manifest_path, segments_dir, wal_dir};
use crate::tail::TailCache;
use crate::wal::Wal;
use crate::wal::entry::EntryHeader;
use crate::wal::files::WalFiles;
use crate::wal::replay::{Replayed, replay};

/// Locks the directory and reads manifest and WAL.
pub(super) fn recover(config: LogManagerConfig, env: Env) -> Result<(Arc<Shared>, RecoveryReport), LogError> {
    let fs = Arc::clone(&env.fs);
    let wal_path = wal_dir(&config.dir);
    create_durably(fs.as_ref(), &config.dir).map_err(|error| LogError::io(&config.dir, error))?;
    for dir in [&segments_dir(&config.dir), &wal_path] {
        fs.create_dir_all(dir).map_err(|error| LogError::io(dir, error))?;
    }
    let lock = identity::lock(fs.as_ref(), &config.dir)?;
    let identity = identity::identify(&env, &config.dir, &config.cluster_id)?;

    let path = manifest_path(&config.dir);
    let mut loaded = manifest::load(fs.as_ref(), &path).map_err(|error| LogError::io(&path, error))?;
    let mut recovery =
        Recovery { env: &env, config: &config, report: RecoveryReport::default(), found: BTreeMap::new(), gone: BTreeSet::new() };
    recovery.report.clean = loaded.closed.is_some();
    // The WAL may end before what the segment files have of it: no sequence is given twice.
    let highest_covered = highest_covered(&loaded);
    recovery.take_manifest(&mut loaded)?;
    let replayed = recovery.replay_wal(&loaded)?;
    let Recovery { mut report, found, gone, .. } = recovery;
    report.partitions = found.len();
    report.torn_bytes = replayed.torn_bytes;

    let next_sequence = replayed.next_sequence.max(loaded.closed.unwrap_or(0)).max(highest_covered + 1);
    let first_live = found.values().filter_map(|found| found.entries.first()).map(|(sequence, _)| *sequence).min().unwrap_or(next_sequence);
    loaded.removed.extend(gone.into_iter().map(|id| (id, next_sequence - 1)));
    loaded.removed.retain(|_, covered_sequence| *covered_sequence >= first_live);
    let records = found.values().filter_map(|found| found.record.clone().map(Record::Partition)).collect();
    let manifest = Manifest::create(Arc::clone(&fs), path.clone(), loaded.removed, first_live, records);
    let mut files = WalFiles::new(
        wal_path.clone(),
        config.wal_file_bytes,
        replayed.full,
        replayed.spares,
        replayed.next_slot,
        replayed.next_generation,
    );
    let manifest = manifest.map_err(|error| LogError::io(&path, error))?;
    files.trim(fs.as_ref(), first_live).map_err(|error| LogError::io(&wal_path, error))?;
    let shared = Shared {
        health: Health::default(),
        wal: Wal::new(next_sequence, files, env.tasks.bell()),
        manifest,
        files: SegmentFiles::default(),
        tail_cache: TailCache::new(config.tail_cache_bytes),
        producer_expiration_ms: AtomicI64::new(config.producer_expiration_ms),
        flusher: FlushQueue::default(),
        listener: OnceLock::new(),
        logs: RwLock::default(),
        recovered: Mutex::new(found),
        deleting: Mutex::default(),
        identity: Mutex::new(identity),
        changing: Mutex::default(),
        inflating: Mutex::default(),
        _lock: lock,
        env,
        config,
    };
    shared.check_disk();
    Ok((Arc::new(shared), report))
}

/// Makes the data directory so that its own name lasts, too (I39).
fn create_durably(fs: &dyn FileSystem, dir: &Path) -> io::Result<()> {
    let missing: Vec<_> = dir.ancestors().take_while(|ancestor| !fs.exists(ancestor)).collect();
    fs.create_dir_all(dir)?;
    // The nearest parent always: an earlier start may have made the directory and ended before this.
    for parent in missing.into_iter().chain([dir]).filter_map(Path::parent) {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        match fs.sync_dir(parent) {
            Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn highest_covered(loaded: &Loaded) -> u64 {
    let covered = loaded.partitions.values().map(|record| record.covered_sequence);
    covered.chain(loaded.removed.values().copied()).chain([loaded.first_live_sequence.saturating_sub(1)]).max().unwrap_or(0)
}

struct Recovery<'a> {
    env: &'a Env,
    config: &'a LogManagerConfig,
    report: RecoveryReport,
    found: BTreeMap<TopicIdPartition, Recovered>,
    /// Partitions whose directory is gone: what the WAL has of them continues what is gone.
    gone: BTreeSet<TopicIdPartition>,
}

impl Recovery<'_> {
    /// Takes the manifest's partitions, without those whose directory is gone.
    fn take_manifest(&mut self, loaded: &mut Loaded) -> Result<(), LogError> {
        let dirs = self.directories()?;
        if loaded.damaged || (loaded.missing && !dirs.is_empty()) {
            return self.scan_all(&dirs);
        }
        for (id, mut record) in std::mem::take(&mut loaded.partitions) {
            if !record.segments.is_empty() && !dirs.contains(&id) {
                tracing::warn!(%id, last_offset = record.end_offset - 1, "the directory of a partition is gone: its log starts empty");
                self.gone.insert(id);
                continue;
            }
            if !self.report.clean {
                let dir = segments_dir(&self.config.dir).join(id.to_string());
                let lost = scan::check_files(self.env.fs.as_ref(), &dir, &mut record).map_err(|error| LogError::io(&dir, error))?;
                self.report.quarantined.extend(lost.iter().map(|path| path.display().to_string()));
            }
            self.found.insert(id, Recovered { record: Some(record), ..Recovered::default() });
        }
        Ok(())
    }

    /// Reads the directories instead of the manifest.
    fn scan_all(&mut self, dirs: &BTreeSet<TopicIdPartition>) -> Result<(), LogError> {
        tracing::error!(dir = %self.config.dir.display(), partitions = dirs.len(), "the manifest is gone or damaged: all segments are read");
        for id in dirs {
            let dir = segments_dir(&self.config.dir).join(id.to_string());
            let scanned = scan::scan(self.env.fs.as_ref(), *id, &dir)?;
            self.report.quarantined.extend(scanned.quarantined.iter().map(|path| path.display().to_string()));
            if let Some(record) = scanned.record {
                self.found.insert(*id, Recovered { record: Some(record), ..Recovered::default() });
            }
        }
        Ok(())
    }

    /// The partitions with a directory; what is left of deleted ones is removed.
    fn directories(&self) -> Result<BTreeSet<TopicIdPartition>, LogError> {
        let dir = segments_dir(&self.config.dir);
        let fs = &self.env.fs;
        let mut ids = BTreeSet::new();
        for entry in fs.read_dir(&dir).map_err(|error| LogError::io(&dir, error))? {
            if entry.is_dir && entry.name.ends_with(".deleted") {
                let path = dir.join(&entry.name);
                fs.remove_dir_all(&path).map_err(|error| LogError::io(&path, error))?;
            } else if let Some(id) = parse_id(&entry.name).filter(|_| entry.is_dir) {
                ids.insert(id);
            }
        }
        Ok(ids)
    }

    /// Collects the WAL's entries that are in no segment file.
    fn replay_wal(&mut self, loaded: &Loaded) -> Result<Replayed, LogError> {
        let dir = wal_dir(&self.config.dir);
        let skip = loaded.closed.is_some();
        let fs = Arc::clone(&self.env.fs);
        let mut headless = BTreeMap::new();
        let replayed = replay(fs.as_ref(), &dir, loaded.first_live_sequence, skip, &mut |header, payload| {
            self.take_entry(loaded, header, payload, &mut headless);
            Ok(())
        })?;
        for damage in &replayed.damage {
            tracing::error!(damage, "write-ahead log is damaged: acknowledged records may be missing");
        }
        self.report.quarantined.extend(replayed.damage.iter().cloned());
        if !replayed.damage.is_empty() {
            let gone = |(id, offset)| format!("the write-ahead log's records of {id} below offset {offset}");
            self.report.quarantined.extend(headless.into_iter().map(gone));
        }
        // What was written but not synced before a kill counts as acknowledged from now on.
        for full in &replayed.full {
            let sync = || fs.open(&full.path, OpenMode::ReadWrite)?.sync_data();
            sync().map_err(|error| LogError::io(&full.path, error))?;
        }
        Ok(replayed)
    }

    fn take_entry(&mut self, loaded: &Loaded, header: &EntryHeader, payload: Bytes, headless: &mut BTreeMap<TopicIdPartition, i64>) {
        let void_sequence = loaded.removed.get(&header.id).copied().unwrap_or(0);
        let covered = self.found.get(&header.id).and_then(|found| found.record.as_ref()).map_or(0, |record| record.covered_sequence);
        if header.sequence <= covered.max(void_sequence) || self.gone.contains(&header.id) {
            return;
        }
        let Ok(first) = BatchHeader::parse(&payload) else {
            self.report.quarantined.push(format!("wal entry {} of {} is no batch", header.sequence, header.id));
            return;
        };
        if !self.found.contains_key(&header.id) && first.base_offset > 0 {
            tracing::warn!(id = %header.id, offset = first.base_offset, "what is here of a log begins with the write-ahead log: the bucket may have what comes before");
            headless.insert(header.id, first.base_offset);
        }
        self.report.wal_batches += batches(&payload).count() as u64;
        let found = self.found.entry(header.id).or_insert_with(|| Recovered { void_sequence, ..Recovered::default() });
        found.cut(first.base_offset);
        found.entries.push((header.sequence, payload));
    }
}

/// The id in a directory's name.
fn parse_id(name: &str) -> Option<TopicIdPartition> {
    let (topic_id, partition) = name.rsplit_once('-')?;
    let topic_id: TopicId = topic_id.parse().ok()?;
    Some(TopicIdPartition::new(topic_id, partition.parse().ok()?))
}
