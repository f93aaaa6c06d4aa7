//! Retention over both tiers: what may go, decided from one snapshot of local and remote extents, without doing anything.
//!
//! `retention.ms` and `retention.bytes` bound the whole log and count every offset once, wherever it lies (I27);
//! `local.retention.*` bound the local disk (KIP-405). Only committed remote segments count, so failed uploads never shorten
//! retention (KAFKA-17062); and while the remote extent is not known nothing is decided at all (KAFKA-20732).

use std::collections::BTreeMap;

use siltstone_common::TopicIdPartition;
use siltstone_common::fs::DiskSpace;
use siltstone_log::segment::SegmentStat;
use siltstone_metadata::{RemoteExtent, SegmentRow};

#[cfg(test)]
mod tests;

/// Stands for "no limit" in `retention.*`.
pub const UNLIMITED: i64 = -1;
/// In `local.retention.*`: as the setting without `local.`.
pub const AS_TOTAL: i64 = -2;

/// The topic settings that decide.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct RetentionConfig {
    /// `cleanup.policy` contains delete: without it only what lies below the log start goes.
    pub delete: bool,
    /// `remote.storage.enable`
    pub tiered: bool,
    /// `retention.ms`; [`UNLIMITED`] for ever.
    pub retention_ms: i64,
    /// `retention.bytes`; [`UNLIMITED`] for any size.
    pub retention_bytes: i64,
    /// `local.retention.ms`; [`AS_TOTAL`] for `retention.ms`.
    pub local_retention_ms: i64,
    /// `local.retention.bytes`; [`AS_TOTAL`] for `retention.bytes`.
    pub local_retention_bytes: i64,
}

impl RetentionConfig {
    fn local_ms(&self) -> i64 {
        if self.local_retention_ms == AS_TOTAL { self.retention_ms } else { self.local_retention_ms }
    }

    fn local_bytes(&self) -> i64 {
        if self.local_retention_bytes == AS_TOTAL { self.retention_bytes } else { self.local_retention_bytes }
    }
}

/// One partition at one moment. Take the remote part first: a segment that becomes remote meanwhile is then merely kept for longer.
#[derive(Copy, Clone, Debug)]
pub struct RetentionSnapshot<'a> {
    /// Wall time, ms.
    pub now_ms: i64,
    /// True if this broker leads the partition: only a leader raises the log start.
    pub is_leader: bool,
    /// First offset that exists in any tier, as the local log knows it.
    pub log_start: i64,
    /// Exclusive: nothing at or above goes.
    pub high_watermark: i64,
    /// Local segments, oldest first, the active one last.
    pub local: &'a [SegmentStat],
    /// What is committed remotely; `None` if that is not known now.
    pub remote: Option<RemoteExtent>,
    /// The oldest committed segments in order, as many as are at hand (a page is enough: the next pass sees more).
    pub remote_segments: &'a [SegmentRow],
}

/// What to do, in this order; a step that fails ends the pass.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct RetentionDecision {
    /// Raise the log start to this offset, in metadata and then locally (I28).
    pub raise_log_start: Option<i64>,
    /// Then drop local segments that end below this offset (I26).
    pub delete_local_below: Option<i64>,
    /// Seal the active segment: all before it is gone and it has expired itself, as Kafka does.
    pub roll_active: bool,
}

/// A segment of the whole log, wherever it lies.
#[derive(Copy, Clone, Debug)]
struct Extent {
    last_offset: i64,
    bytes: u64,
    since_ms: i64,
    removable: bool,
}

/// The time that a segment's retention begins at: as in Kafka, without timestamps it is that of its writing; -1 if neither is known.
fn since_ms(max_timestamp_ms: i64, appended_ms: i64) -> i64 {
    if max_timestamp_ms >= 0 { max_timestamp_ms } else { appended_ms }
}

fn expired(since_ms: i64, now_ms: i64, retention_ms: i64) -> bool {
    retention_ms >= 0 && since_ms >= 0 && now_ms.saturating_sub(since_ms) > retention_ms
}

/// True if `total` less `bytes` is still at least the limit, as Kafka counts.
fn over(total: u64, bytes: u64, retention_bytes: i64) -> bool {
    u64::try_from(retention_bytes).is_ok_and(|limit| total.checked_sub(bytes).is_some_and(|rest| rest >= limit))
}

/// See the module.
pub fn decide(config: &RetentionConfig, snapshot: &RetentionSnapshot<'_>) -> RetentionDecision {
    let extent = match snapshot.remote {
        Some(extent) => extent,
        None if config.tiered => return RetentionDecision::default(),
        None => RemoteExtent { log_start: snapshot.log_start, ..NOTHING_REMOTE },
    };
    let remote_end = if extent.segments == 0 { extent.log_start.min(extent.remote_end) } else { extent.remote_end };
    let known_start = snapshot.log_start.max(extent.log_start);
    let start = if snapshot.is_leader && config.delete { new_log_start(config, snapshot, extent, known_start) } else { known_start };
    debug_assert!(start <= snapshot.high_watermark.max(known_start), "I1: log start above the high watermark");

    let local_start = local_start(config, snapshot, start, remote_end);
    debug_assert!(local_start <= start.max(remote_end), "I26: local data would go that is neither remote nor below the log start");
    let deletes = snapshot.local.iter().any(|segment| segment.sealed && segment.last_offset < local_start);
    RetentionDecision {
        raise_log_start: (start > snapshot.log_start).then_some(start),
        delete_local_below: deletes.then_some(local_start),
        roll_active: config.delete && active_expired(config, snapshot, start.max(local_start)),
    }
}

const NOTHING_REMOTE: RemoteExtent = RemoteExtent { log_start: 0, remote_start: 0, remote_end: 0, remote_bytes: 0, segments: 0 };

/// The log start after `retention.*`: the oldest segments go while they are expired or too many.
fn new_log_start(config: &RetentionConfig, snapshot: &RetentionSnapshot<'_>, extent: RemoteExtent, known_start: i64) -> i64 {
    let remote_end = if extent.segments == 0 { i64::MIN } else { extent.remote_end };
    let only_local = snapshot.local.iter().filter(|segment| segment.last_offset >= remote_end.max(known_start));
    let mut total = extent.remote_bytes + only_local.clone().map(|segment| segment.size_bytes).sum::<u64>();
    let remote = snapshot.remote_segments.iter().filter(|row| row.last_offset >= known_start && row.last_offset < remote_end);
    let remote_listed = remote.clone().next_back().map_or(i64::MIN, |row| row.last_offset + 1);
    let remote = remote.map(|row| Extent {
        last_offset: row.last_offset,
        bytes: row.data_bytes,
        since_ms: since_ms(row.max_timestamp_ms, row.appended_ms),
        removable: true,
    });
    // What is not uploaded yet goes through the bucket first, whatever its age; and no local segment before unlisted remote ones.
    let removable = !config.tiered && remote_listed.max(known_start) >= remote_end;
    let local = only_local.map(|segment| Extent {
        last_offset: segment.last_offset,
        bytes: segment.size_bytes,
        since_ms: since_ms(segment.max_timestamp_ms, segment.appended_ms),
        removable: removable && segment.sealed,
    });
    let mut start = known_start;
    for extent in remote.chain(local) {
        let due = expired(extent.since_ms, snapshot.now_ms, config.retention_ms) || over(total, extent.bytes, config.retention_bytes);
        if !due || !extent.removable || extent.last_offset >= snapshot.high_watermark {
            break;
        }
        total = total.saturating_sub(extent.bytes);
        start = extent.last_offset + 1;
    }
    start
}

/// The first offset to be kept locally: below the log start all goes, and of what is committed remotely the oldest while expired or too much.
fn local_start(config: &RetentionConfig, snapshot: &RetentionSnapshot<'_>, start: i64, remote_end: i64) -> i64 {
    let kept = snapshot.local.iter().skip_while(|segment| segment.sealed && segment.last_offset < start);
    let mut total = kept.clone().map(|segment| segment.size_bytes).sum::<u64>();
    let mut local_start = start;
    for segment in kept {
        let due = expired(since_ms(segment.max_timestamp_ms, segment.appended_ms), snapshot.now_ms, config.local_ms())
            || over(total, segment.size_bytes, config.local_bytes());
        if !config.tiered || !due || !segment.sealed || segment.last_offset >= remote_end {
            break;
        }
        total = total.saturating_sub(segment.size_bytes);
        local_start = segment.last_offset + 1;
    }
    local_start
}

fn active_expired(config: &RetentionConfig, snapshot: &RetentionSnapshot<'_>, start: i64) -> bool {
    let Some((active, sealed)) = snapshot.local.split_last() else { return false };
    !active.sealed
        && active.last_offset >= active.base_offset
        && active.last_offset < snapshot.high_watermark
        && sealed.iter().all(|segment| segment.last_offset < start)
        && expired(since_ms(active.max_timestamp_ms, active.appended_ms), snapshot.now_ms, config.retention_ms)
}

/// How much of a disk the data directory may take.
#[derive(Copy, Clone, Debug, PartialEq)]
pub enum DiskBudget {
    /// So many bytes.
    Bytes(u64),
    /// A share of the file system, from 0 to 1.
    Share(f64),
}

impl DiskBudget {
    /// Bytes on a disk of this size.
    pub fn limit_bytes(self, space: DiskSpace) -> u64 {
        match self {
            DiskBudget::Bytes(bytes) => bytes,
            DiskBudget::Share(share) => (space.total as f64 * share.clamp(0.0, 1.0)) as u64,
        }
    }
}

/// A sealed local segment that is wholly committed in the bucket.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct EvictionCandidate {
    /// Whose.
    pub id: TopicIdPartition,
    /// Last offset.
    pub last_offset: i64,
    /// Bytes on the disk.
    pub size_bytes: u64,
    /// Largest timestamp, ms; -1 if none.
    pub max_timestamp_ms: i64,
}

/// Which uploaded segments go so that `excess_bytes` become free, the oldest of all partitions first, whatever `local.retention.*` says:
/// per partition, the offset below which local segments go. `candidates` are in offset order within each partition, and only those with
/// `last_offset` below the committed remote end (I26).
pub fn plan_evictions(excess_bytes: u64, candidates: &[EvictionCandidate]) -> BTreeMap<TopicIdPartition, i64> {
    // Within a partition a segment can go only after those before it: it is at least as young as they are.
    let mut newest = BTreeMap::<TopicIdPartition, i64>::new();
    let mut by_age = candidates
        .iter()
        .map(|candidate| {
            let age = newest.entry(candidate.id).or_insert(candidate.max_timestamp_ms);
            *age = candidate.max_timestamp_ms.max(*age);
            (*age, candidate)
        })
        .collect::<Vec<_>>();
    by_age.sort_by_key(|(age, _)| *age);
    let mut plan = BTreeMap::new();
    let mut freed = 0_u64;
    for (_, candidate) in by_age {
        if freed >= excess_bytes {
            break;
        }
        freed += candidate.size_bytes;
        plan.insert(candidate.id, candidate.last_offset + 1);
    }
    plan
}
