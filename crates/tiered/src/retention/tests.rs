use proptest::prelude::*;
use siltstone_common::TopicId;
use siltstone_metadata::SegmentState;
use uuid::Uuid;

use super::*;

const NOW: i64 = 1_000_000;

fn id(partition: i32) -> TopicIdPartition {
    TopicIdPartition::new(TopicId(Uuid::from_u128(1)), partition)
}

/// Segments of ten offsets and 100 bytes; segment i has timestamp `timestamps[i]`.
fn row(i: usize, timestamp: i64) -> SegmentRow {
    SegmentRow {
        id: id(0),
        base_offset: 10 * i as i64,
        last_offset: 10 * i as i64 + 9,
        max_timestamp_ms: timestamp,
        leader_epoch: 0,
        attempt: Uuid::nil(),
        object_key: String::new(),
        object_bytes: 150,
        data_bytes: 100,
        checksum: 0,
        has_aborts: false,
        generation: 0,
        appended_ms: -1,
        state: SegmentState::Committed,
    }
}

fn stat(i: usize, timestamp: i64, sealed: bool) -> SegmentStat {
    let base_offset = 10 * i as i64;
    SegmentStat {
        base_offset,
        last_offset: base_offset + 9,
        size_bytes: 100,
        max_timestamp_ms: timestamp,
        sealed,
        generation: 0,
        appended_ms: -1,
    }
}

/// A log of segments `0..timestamps.len()`: remote up to `remote` segments, local from segment `local` on, the last one active.
struct Log {
    timestamps: Vec<i64>,
    remote: usize,
    local: usize,
    start: usize,
}

impl Log {
    fn decide(&self, config: &RetentionConfig, change: impl Fn(&mut RetentionSnapshot<'_>)) -> RetentionDecision {
        let count = self.timestamps.len();
        let rows = (self.start.min(self.remote)..self.remote).map(|i| row(i, self.timestamps[i])).collect::<Vec<_>>();
        let local = (self.local..count).map(|i| stat(i, self.timestamps[i], i + 1 < count)).collect::<Vec<_>>();
        let log_start = 10 * self.start as i64;
        let extent = RemoteExtent {
            log_start,
            remote_start: log_start.min(10 * self.remote as i64),
            remote_end: 10 * self.remote as i64,
            remote_bytes: 100 * rows.len() as u64,
            segments: rows.len() as u64,
        };
        let mut snapshot = RetentionSnapshot {
            now_ms: NOW,
            is_leader: true,
            log_start,
            high_watermark: 10 * count as i64,
            local: &local,
            remote: Some(extent),
            remote_segments: &rows,
        };
        change(&mut snapshot);
        decide(config, &snapshot)
    }
}

fn config() -> RetentionConfig {
    RetentionConfig {
        delete: true,
        tiered: true,
        retention_ms: UNLIMITED,
        retention_bytes: UNLIMITED,
        local_retention_ms: AS_TOTAL,
        local_retention_bytes: AS_TOTAL,
    }
}

fn young(count: usize) -> Vec<i64> {
    vec![NOW; count]
}

#[test]
fn without_limits_nothing_goes() {
    let log = Log { timestamps: vec![0; 10], remote: 5, local: 0, start: 0 };
    assert_eq!(log.decide(&config(), |_| ()), RetentionDecision::default());
}

#[test]
fn offsets_in_both_tiers_count_once() {
    // Ten segments, six of them in both tiers: 1000 bytes, not 1600.
    let log = Log { timestamps: young(10), remote: 6, local: 0, start: 0 };
    let keep = RetentionConfig { retention_bytes: 1000, local_retention_bytes: UNLIMITED, ..config() };
    assert_eq!(log.decide(&keep, |_| ()), RetentionDecision::default());
    let less = RetentionConfig { retention_bytes: 750, ..keep };
    let decision = log.decide(&less, |_| ());
    assert_eq!((decision.raise_log_start, decision.delete_local_below), (Some(20), Some(20)));
}

#[test]
fn the_local_disk_has_its_own_limits() {
    let log = Log { timestamps: young(10), remote: 6, local: 0, start: 0 };
    let decision = log.decide(&RetentionConfig { local_retention_bytes: 650, ..config() }, |_| ());
    assert_eq!((decision.raise_log_start, decision.delete_local_below), (None, Some(30)));
    // By time, but never what is not uploaded (I26).
    let old = Log { timestamps: vec![0; 10], ..log };
    let decision = old.decide(&RetentionConfig { local_retention_ms: 1, ..config() }, |_| ());
    assert_eq!((decision.raise_log_start, decision.delete_local_below, decision.roll_active), (None, Some(60), false));
    let zero = old.decide(&RetentionConfig { local_retention_bytes: 0, ..config() }, |_| ());
    assert_eq!(zero.delete_local_below, Some(60));
}

/// As in Kafka, where the time of a file's last change counts then.
#[test]
fn a_segment_without_timestamps_is_as_old_as_its_writing() {
    let log = Log { timestamps: vec![-1, 0, 0, NOW], remote: 2, local: 1, start: 0 };
    let short = RetentionConfig { retention_ms: 1_000, ..config() };
    let written = |ms: i64| {
        let (mut oldest, mut next) = (row(0, -1), row(1, 0));
        (oldest.appended_ms, next.appended_ms) = (ms, -1);
        let rows = [oldest, next];
        log.decide(&short, |snapshot| snapshot.remote_segments = Box::leak(Box::new(rows.clone()))).raise_log_start
    };
    assert_eq!(written(NOW - 500), None);
    assert_eq!(written(-1), None, "its age is not known");
    assert_eq!(written(NOW - 1_500), Some(20));
}

#[test]
fn nothing_is_decided_while_the_remote_extent_is_unknown() {
    // KAFKA-20732: a new leader that does not know the remote end yet must not touch anything.
    let log = Log { timestamps: vec![0; 10], remote: 6, local: 0, start: 0 };
    let all = RetentionConfig { retention_ms: 1, retention_bytes: 1, local_retention_ms: 1, ..config() };
    assert_eq!(log.decide(&all, |snapshot| snapshot.remote = None), RetentionDecision::default());
}

#[test]
fn what_is_not_uploaded_yet_stays_whatever_its_age() {
    let log = Log { timestamps: vec![0; 10], remote: 6, local: 2, start: 0 };
    let decision = log.decide(&RetentionConfig { retention_ms: 1, ..config() }, |_| ());
    assert_eq!((decision.raise_log_start, decision.delete_local_below), (Some(60), Some(60)));
    let log = Log { timestamps: vec![0; 10], remote: 0, local: 0, start: 0 };
    assert_eq!(log.decide(&RetentionConfig { retention_ms: 1, ..config() }, |_| ()), RetentionDecision::default());
}

#[test]
fn without_tiering_local_segments_go_by_retention_and_the_expired_active_one_rolls() {
    let log = Log { timestamps: vec![0; 5], remote: 0, local: 0, start: 0 };
    let plain = RetentionConfig { tiered: false, retention_ms: 1, ..config() };
    let decision = log.decide(&plain, |snapshot| snapshot.remote = None);
    assert_eq!(decision, RetentionDecision { raise_log_start: Some(40), delete_local_below: Some(40), roll_active: true });
    let sized = RetentionConfig { tiered: false, retention_bytes: 200, ..config() };
    let decision = log.decide(&sized, |_| ());
    assert_eq!(decision, RetentionDecision { raise_log_start: Some(30), delete_local_below: Some(30), roll_active: false });
    let compacted = RetentionConfig { delete: false, ..plain };
    assert_eq!(log.decide(&compacted, |_| ()), RetentionDecision::default());
}

#[test]
fn nothing_at_or_above_the_high_watermark_goes() {
    let log = Log { timestamps: vec![0; 5], remote: 0, local: 0, start: 0 };
    let plain = RetentionConfig { tiered: false, retention_ms: 1, ..config() };
    let decision = log.decide(&plain, |snapshot| snapshot.high_watermark = 25);
    assert_eq!(decision, RetentionDecision { raise_log_start: Some(20), delete_local_below: Some(20), roll_active: false });
}

#[test]
fn a_follower_only_cleans_its_disk() {
    let log = Log { timestamps: vec![0; 10], remote: 6, local: 0, start: 0 };
    let all = RetentionConfig { retention_ms: 1, local_retention_ms: 1, ..config() };
    let decision = log.decide(&all, |snapshot| snapshot.is_leader = false);
    assert_eq!((decision.raise_log_start, decision.delete_local_below), (None, Some(60)));
}

#[test]
fn a_log_start_that_metadata_raised_is_taken_over() {
    let log = Log { timestamps: young(10), remote: 6, local: 0, start: 0 };
    let decision = log.decide(&config(), |snapshot| {
        if let Some(extent) = &mut snapshot.remote {
            extent.log_start = 35;
        }
    });
    assert_eq!((decision.raise_log_start, decision.delete_local_below), (Some(35), Some(35)));
}

#[test]
fn one_young_segment_protects_those_behind_it() {
    let log = Log { timestamps: vec![0, 0, NOW, 0, 0, 0], remote: 5, local: 5, start: 0 };
    let decision = log.decide(&RetentionConfig { retention_ms: 10, ..config() }, |_| ());
    assert_eq!(decision.raise_log_start, Some(20));
}

#[test]
fn evictions_take_the_oldest_of_all_partitions_in_offset_order() {
    let candidate = |partition, i: i64, max_timestamp_ms| EvictionCandidate {
        id: id(partition),
        last_offset: 10 * i + 9,
        size_bytes: 100,
        max_timestamp_ms,
    };
    let candidates = [candidate(0, 0, 5), candidate(0, 1, 1), candidate(0, 2, 9), candidate(1, 0, 3), candidate(1, 1, 7)];
    assert_eq!(plan_evictions(0, &candidates), BTreeMap::new());
    assert_eq!(plan_evictions(1, &candidates), BTreeMap::from([(id(1), 10)]));
    assert_eq!(plan_evictions(300, &candidates), BTreeMap::from([(id(0), 20), (id(1), 10)]));
    assert_eq!(plan_evictions(10_000, &candidates), BTreeMap::from([(id(0), 30), (id(1), 20)]));
}

proptest! {
    #[test]
    fn every_decision_keeps_the_invariants(
        timestamps in proptest::collection::vec(prop_oneof![Just(-1_i64), 0..NOW + 10_000], 1..20),
        remote in 0_usize..20, local in 0_usize..20, start in 0_usize..20, hw_back in 0_i64..60,
        tiered in any::<bool>(), is_leader in any::<bool>(),
        limits in proptest::array::uniform4(-2_i64..2000),
    ) {
        let count = timestamps.len();
        let remote = remote.min(count - 1);
        let local = local.min(remote);
        let start = start.min(remote);
        let log = Log { timestamps: timestamps.clone(), remote, local, start };
        let config = RetentionConfig {
            delete: true,
            tiered,
            retention_ms: limits[0].max(-1) * 500,
            retention_bytes: limits[1].max(-1),
            local_retention_ms: if limits[2] == -2 { -2 } else { limits[2] * 500 },
            local_retention_bytes: limits[3],
        };
        let high_watermark = (10 * count as i64 - hw_back).max(10 * remote as i64);
        let decision = log.decide(&config, |snapshot| {
            snapshot.is_leader = is_leader;
            snapshot.high_watermark = high_watermark;
        });
        let (old_start, remote_end) = (10 * start as i64, 10 * remote as i64);
        let new_start = decision.raise_log_start.unwrap_or(old_start);
        prop_assert!(decision.raise_log_start.is_none_or(|to| to > old_start && is_leader));
        prop_assert!(new_start <= high_watermark);
        if tiered {
            prop_assert!(new_start <= remote_end, "failed uploads shorten retention");
        }
        prop_assert!(decision.delete_local_below.is_none_or(|below| below <= new_start.max(remote_end)), "I26");
        // Each segment that went was due: expired, or the rest was enough without it.
        let kept = |from: usize| 100 * (count - from) as i64;
        for (i, &timestamp) in timestamps.iter().enumerate().take((new_start / 10) as usize).skip(start) {
            let old = config.retention_ms >= 0 && timestamp >= 0 && NOW - timestamp > config.retention_ms;
            let enough = config.retention_bytes >= 0 && kept(i + 1) >= config.retention_bytes;
            prop_assert!(old || enough, "segment {i} went early");
        }
    }
}
