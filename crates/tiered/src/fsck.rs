//! A read-only check of the bucket against metadata: coverage of each partition, missing and damaged objects, objects that nobody refers to.
//!
//! Memory is bounded by the segments of one partition and by the number of findings kept. The check runs beside a working cluster: whatever
//! looks wrong is looked at again before it is reported, and young objects without a row are uploads under way.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use serde::Serialize;
use siltstone_common::{Env, TopicIdPartition};
use siltstone_metadata::{MetadataApi, MetadataError, RemoteExtent, SegmentRow, index_object_owner};
use thiserror::Error;

use crate::object::{ObjectTail, SegmentKey, TRAILER_BYTES, Trailer};
use crate::store::{ObjectInfo, RemoteStore, StoreError};

/// Findings kept; more are only counted.
const FINDINGS_MAX: usize = 10_000;
/// Rows asked for at a time.
const PAGE: usize = 1000;
/// An object without a row is an orphan once it is older than any upload may last, and any grace period.
const ORPHAN_AGE_MS: i64 = 24 * 3_600_000;

/// What to check.
#[derive(Clone, Debug, Default)]
pub struct FsckOptions {
    /// Read every object and check all checksums, not only names and sizes.
    pub deep: bool,
    /// Only these partitions; empty for all, and for objects of unknown ones.
    pub partitions: Vec<TopicIdPartition>,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "problem")]
pub enum Finding {
    /// No committed segment holds these offsets, though they lie in the committed range (I31).
    Gap {
        /// Partition.
        partition: String,
        /// First offset of the gap.
        from: i64,
        /// First offset after it.
        to: i64,
    },
    /// Two committed segments hold the same offsets (I31).
    Overlap {
        /// Partition.
        partition: String,
        /// First offset of both.
        from: i64,
        /// First offset after.
        to: i64,
    },
    /// The partition's totals are not those of its rows.
    WrongTotals {
        /// Partition.
        partition: String,
        /// What contradicts.
        reason: String,
    },
    /// A committed row's object is not there: its records are lost unless the bucket can restore it.
    MissingObject {
        /// Partition.
        partition: String,
        /// Key.
        key: String,
    },
    /// A committed row's object is not what was committed.
    DamagedObject {
        /// Partition.
        partition: String,
        /// Key.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// An old object that nothing refers to: it costs storage, no data.
    Orphan {
        /// Key.
        key: String,
        /// Bytes.
        size_bytes: u64,
    },
}

impl Finding {
    /// True if records are lost or may be; an orphan only costs money.
    pub fn is_data_loss(&self) -> bool {
        !matches!(self, Finding::Orphan { .. })
    }
}

/// What a check found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct FsckReport {
    /// Partitions checked.
    pub partitions: u64,
    /// Committed segments checked.
    pub segments: u64,
    /// Bytes of their objects.
    pub object_bytes: u64,
    /// Objects without a row that are too young to be orphans: uploads under way, deletions to come.
    pub unreferenced_young: u64,
    /// Index objects of partitions there are: they hold the rows of old segments.
    pub index_objects: u64,
    /// Objects in the bucket that are neither segments nor index objects of this cluster (the marker, probes, other software's).
    pub foreign: u64,
    /// What is wrong, at most 10,000 items.
    pub findings: Vec<Finding>,
    /// How many items were found in all.
    pub findings_total: u64,
}

impl FsckReport {
    /// True if nothing is wrong but orphans.
    pub fn is_sound(&self) -> bool {
        self.findings_total <= self.findings.len() as u64 && !self.findings.iter().any(Finding::is_data_loss)
    }

    fn add(&mut self, finding: Finding) {
        self.findings_total += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        }
    }
}

/// The check could not be done.
#[derive(Debug, Error)]
pub enum FsckError {
    /// The bucket.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The metadata service.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
}

/// Checks the bucket; `progress` is told of each partition when it is done.
///
/// # Errors
/// The bucket or the metadata service can't be asked. What is wrong in the bucket is in the report.
pub async fn check(
    options: &FsckOptions,
    store: &RemoteStore,
    metadata: &Arc<dyn MetadataApi>,
    env: &Env,
    progress: impl Fn(&FsckReport),
) -> Result<FsckReport, FsckError> {
    let mut fsck = Fsck { deep: options.deep, store, metadata, env, report: FsckReport::default() };
    let image = metadata.image();
    let all = image.topics.values().flat_map(|topic| {
        let partitions = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
        (0..partitions).map(|partition| TopicIdPartition::new(topic.id, partition))
    });
    let mut chosen = all.filter(|id| options.partitions.is_empty() || options.partitions.contains(id)).collect::<Vec<_>>();
    chosen.sort_unstable();
    for id in &chosen {
        match fsck.partition(&image.cluster_id, *id).await {
            // Deleted since the image was taken.
            Err(FsckError::Metadata(MetadataError::UnknownTopicId(_) | MetadataError::UnknownTopic(_))) => {}
            other => other?,
        }
        progress(&fsck.report);
    }
    if options.partitions.is_empty() {
        fsck.strays(&image.cluster_id, &chosen).await?;
    }
    Ok(fsck.report)
}

struct Fsck<'a> {
    deep: bool,
    store: &'a RemoteStore,
    metadata: &'a Arc<dyn MetadataApi>,
    env: &'a Env,
    report: FsckReport,
}

impl Fsck<'_> {
    async fn partition(&mut self, cluster_id: &str, id: TopicIdPartition) -> Result<(), FsckError> {
        let (extent, rows) = self.rows(id).await?;
        self.report.partitions += 1;
        self.coverage(id, extent, &rows);
        // One LIST per thousand objects tells which are there, and how large.
        let mut objects = self.objects_of(cluster_id, id).await?;
        for row in &rows {
            self.report.segments += 1;
            self.report.object_bytes += row.object_bytes;
            let object = objects.remove(&row.object_key);
            if let Some(finding) = self.object(row, object).await?
                && self.still_committed(row).await?
            {
                self.report.add(finding);
            }
        }
        for object in objects.into_values() {
            self.unreferenced(object);
        }
        Ok(())
    }

    /// Extent and committed rows of one moment: rows that change meanwhile are read again, a few times.
    async fn rows(&self, id: TopicIdPartition) -> Result<(RemoteExtent, Vec<SegmentRow>), FsckError> {
        let mut result = None;
        for _ in 0..5 {
            let extent = self.metadata.remote_extent(id).await?;
            let mut rows = Vec::new();
            let mut from = 0;
            loop {
                let page = self.metadata.list_segments(id, from, PAGE).await?;
                let Some(last) = page.last() else { break };
                from = last.last_offset + 1;
                rows.extend(page);
            }
            let unchanged = self.metadata.remote_extent(id).await? == extent;
            result = Some((extent, rows));
            if unchanged {
                break;
            }
        }
        result.ok_or_else(|| MetadataError::Unavailable("no answer about the partition's segments".to_owned()).into())
    }

    /// Gaps, overlaps and totals (I31).
    fn coverage(&mut self, id: TopicIdPartition, extent: RemoteExtent, rows: &[SegmentRow]) {
        let partition = id.to_string();
        let mut next = extent.log_start.min(rows.first().map_or(extent.log_start, |row| row.base_offset.max(0)));
        for row in rows {
            if row.base_offset > next {
                self.report.add(Finding::Gap { partition: partition.clone(), from: next, to: row.base_offset });
            } else if row.base_offset < next {
                let to = next.min(row.last_offset + 1);
                self.report.add(Finding::Overlap { partition: partition.clone(), from: row.base_offset, to });
            }
            next = next.max(row.last_offset + 1);
        }
        if !rows.is_empty() && next < extent.remote_end {
            self.report.add(Finding::Gap { partition: partition.clone(), from: next, to: extent.remote_end });
        }
        let bytes = rows.iter().map(|row| row.data_bytes).sum::<u64>();
        if (rows.len() as u64, bytes) != (extent.segments, extent.remote_bytes) {
            let reason = format!(
                "metadata counts {} segments of {} bytes, its rows are {} of {bytes}",
                extent.segments,
                extent.remote_bytes,
                rows.len()
            );
            self.report.add(Finding::WrongTotals { partition, reason });
        }
    }

    async fn objects_of(&self, cluster_id: &str, id: TopicIdPartition) -> Result<HashMap<String, ObjectInfo>, FsckError> {
        let prefix = SegmentKey::partition_prefix(cluster_id, id);
        let mut objects = HashMap::new();
        let mut listing = self.store.list(&prefix);
        while let Some(object) = listing.next().await {
            let object = object?;
            objects.insert(object.key.clone(), object);
        }
        Ok(objects)
    }

    async fn object(&self, row: &SegmentRow, listed: Option<ObjectInfo>) -> Result<Option<Finding>, FsckError> {
        let (partition, key) = (row.id.to_string(), row.object_key.clone());
        let size = match listed {
            Some(object) => object.size_bytes,
            // Committed after the listing, or in a store whose listings lag.
            None => match self.store.head(&row.object_key).await {
                Ok(size) => size,
                Err(StoreError::NotFound(_)) => return Ok(Some(Finding::MissingObject { partition, key })),
                Err(error) => return Err(error.into()),
            },
        };
        if size != row.object_bytes {
            let reason = format!("it has {size} bytes, committed were {}", row.object_bytes);
            return Ok(Some(Finding::DamagedObject { partition, key, reason }));
        }
        if !self.deep {
            return Ok(None);
        }
        match self.content(row).await {
            Ok(None) => Ok(None),
            Ok(Some(reason)) => Ok(Some(Finding::DamagedObject { partition, key, reason })),
            Err(StoreError::NotFound(_)) => Ok(Some(Finding::MissingObject { partition, key })),
            Err(error) => Err(error.into()),
        }
    }

    /// Checks the whole object against its row; what is wrong.
    async fn content(&self, row: &SegmentRow) -> Result<Option<String>, StoreError> {
        let checksum = self.store.checksum(&row.object_key, row.object_bytes).await?;
        if checksum != row.checksum {
            return Ok(Some(format!("its CRC-64 is {checksum:#018x}, committed was {:#018x}", row.checksum)));
        }
        let tail = match read_tail(self.store, &row.object_key, row.object_bytes).await? {
            Ok(tail) => tail,
            Err(reason) => return Ok(Some(reason)),
        };
        let facts = tail.facts;
        let found = (facts.id, facts.base_offset, facts.last_offset, facts.attempt, facts.data_bytes, facts.leader_epoch);
        let stated = (row.id, row.base_offset, row.last_offset, row.attempt, row.data_bytes, row.leader_epoch);
        Ok((found != stated).then(|| "its footer contradicts its row in metadata".to_owned()))
    }

    /// Retention may have taken the segment while it was looked at.
    async fn still_committed(&self, row: &SegmentRow) -> Result<bool, FsckError> {
        let found = self.metadata.find_segment(row.id, row.base_offset).await?;
        Ok(found.is_some_and(|found| found.attempt == row.attempt))
    }

    fn unreferenced(&mut self, object: ObjectInfo) {
        if self.env.clock.now_ms().saturating_sub(object.modified_ms) < ORPHAN_AGE_MS {
            self.report.unreferenced_young += 1;
        } else {
            self.report.add(Finding::Orphan { key: object.key, size_bytes: object.size_bytes });
        }
    }

    /// Objects that belong to no partition there is.
    async fn strays(&mut self, cluster_id: &str, known: &[TopicIdPartition]) -> Result<(), FsckError> {
        let known = known.iter().copied().collect::<std::collections::HashSet<_>>();
        let mut listing = self.store.list("");
        while let Some(object) = listing.next().await {
            let object = object?;
            match SegmentKey::parse(&object.key) {
                Some(key) if !key.is_of(cluster_id) => self.report.foreign += 1,
                Some(key) if known.contains(&key.id) => {}
                Some(_) => self.unreferenced(object),
                None => match index_object_owner(&object.key) {
                    Some(id) if known.contains(&id) => self.report.index_objects += 1,
                    Some(_) => self.unreferenced(object),
                    None => self.report.foreign += 1,
                },
            }
        }
        Ok(())
    }
}

/// Reads the tail of an object of which only the size is known.
///
/// # Errors
/// The store can't be read. The inner error says what is wrong with the object.
pub async fn read_tail(store: &RemoteStore, key: &str, object_bytes: u64) -> Result<Result<ObjectTail, String>, StoreError> {
    let Some(trailer_at) = object_bytes.checked_sub(TRAILER_BYTES as u64) else {
        return Ok(Err("it is too small to be a segment".to_owned()));
    };
    let trailer = store.get_range(key, trailer_at, object_bytes).await?;
    let tail_at = match Trailer::parse(&trailer) {
        Ok(trailer) => object_bytes.checked_sub(trailer.tail_bytes),
        Err(error) => return Ok(Err(error.to_string())),
    };
    let Some(tail_at) = tail_at else {
        return Ok(Err("its trailer gives a length that can't be".to_owned()));
    };
    let tail: Bytes = store.get_range(key, tail_at, object_bytes).await?;
    Ok(ObjectTail::parse(&tail, object_bytes).map_err(|error| error.to_string()))
}
