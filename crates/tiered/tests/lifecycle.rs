//! The end of a segment's life in the bucket, and the check of the bucket.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use siltstone_metadata::{MetadataApi, SegmentRow, SegmentState};
use siltstone_tiered::fsck::{self, Finding, FsckOptions, FsckReport};
use siltstone_tiered::object::SegmentKey;
use siltstone_tiered::{GarbageCollector, GarbageConfig, UploadError};
use support::Faults;
use support::tier::{Shape, Tier, segment};

fn collector(tier: &Tier) -> GarbageCollector {
    GarbageCollector::new(GarbageConfig::default(), tier.store.clone(), tier.metadata.clone(), tier.env.clone())
}

async fn check(tier: &Tier, deep: bool) -> FsckReport {
    let metadata = tier.metadata.clone() as Arc<dyn MetadataApi>;
    let options = FsckOptions { deep, ..FsckOptions::default() };
    fsck::check(&options, &tier.store, &metadata, &tier.env, |_| ()).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn segments_below_the_log_start_go_after_the_grace_period() {
    let tier = Tier::simulated(2).await;
    tier.fill(4, Shape::default()).await;
    tier.metadata.raise_log_start(tier.id, tier.leader_epoch, 120).await.unwrap();
    let collector = collector(&tier);
    assert_eq!(collector.pass().await.unwrap(), 0);
    assert_eq!(tier.bucket.objects.lock().len(), 4, "a reader may still be at it");
    tier.env.clock.sleep(Duration::from_secs(61)).await;
    // The store fails at first: the rows stay until their objects are gone.
    *tier.bucket.faults.lock() = Faults { unavailable_percent: 100, ..Faults::default() };
    assert_eq!(collector.pass().await.unwrap(), 2);
    assert_eq!(tier.bucket.objects.lock().len(), 4);
    assert_eq!(collector.metrics().failures.load(Ordering::Relaxed), 2);
    *tier.bucket.faults.lock() = Faults::default();
    assert_eq!(collector.pass().await.unwrap(), 2);
    assert_eq!(tier.bucket.objects.lock().len(), 2);
    assert_eq!(collector.pass().await.unwrap(), 0);
    assert_eq!(collector.metrics().objects.load(Ordering::Relaxed), 2);
    let report = check(&tier, true).await;
    assert_eq!((report.is_sound(), report.segments, report.findings_total), (true, 2, 0), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn index_objects_are_known_for_what_they_are() {
    let tier = Tier::simulated(2).await;
    tier.fill(2, Shape::default()).await;
    let attempt = tier.env.entropy.uuid();
    let key = |topic: &str| format!("index/{topic}/0/{:020}-{}", 0, attempt.as_simple());
    for key in [key(&tier.id.topic_id.to_string()), key(&attempt.as_simple().to_string()), "index/notes".to_owned()] {
        tier.bucket.objects.lock().insert(key, bytes::Bytes::from_static(b"rows"));
    }
    let report = check(&tier, false).await;
    // That of a partition nobody knows is a stray, of no age in this bucket.
    assert_eq!((report.index_objects, report.foreign, report.unreferenced_young + report.findings_total), (1, 1, 1), "{report:?}");
    assert!(report.is_sound());
}

#[tokio::test(start_paused = true)]
async fn a_deleted_topic_leaves_nothing() {
    let tier = Tier::simulated(3).await;
    tier.fill(3, Shape::default()).await;
    tier.metadata.delete_topic(tier.id.topic_id).await.unwrap();
    let collector = collector(&tier);
    for _ in 0..3 {
        tier.env.clock.sleep(Duration::from_secs(61)).await;
        collector.pass().await.unwrap();
    }
    assert!(tier.bucket.objects.lock().is_empty());
    let late = tier.upload(&segment(150, Shape::default())).await;
    assert!(matches!(late, Err(UploadError::Metadata(_))), "{late:?}");
    assert!(tier.bucket.objects.lock().is_empty(), "an object of a topic that is gone");
}

/// I29: its object comes after the topic is gone, and goes all the same.
#[tokio::test(start_paused = true)]
async fn an_upload_under_way_when_its_topic_is_deleted_leaves_nothing() {
    let tier = Tier::simulated(3).await;
    let attempt = tier.env.entropy.uuid();
    let cluster_id = tier.metadata.image().cluster_id.clone();
    let key = SegmentKey { cluster_id, id: tier.id, base_offset: 0, leader_epoch: tier.leader_epoch, attempt };
    let intent = SegmentRow {
        id: tier.id,
        base_offset: 0,
        last_offset: 9,
        max_timestamp_ms: 0,
        appended_ms: 0,
        leader_epoch: tier.leader_epoch,
        attempt,
        object_key: key.encode(),
        object_bytes: 200,
        data_bytes: 100,
        checksum: 0,
        has_aborts: false,
        generation: 0,
        state: SegmentState::Intent { deadline_ms: tier.env.clock.now_ms() + 4 * 3_600_000 },
    };
    tier.metadata.segment_intent(intent.clone()).await.unwrap();
    tier.metadata.delete_topic(tier.id.topic_id).await.unwrap();
    let collector = collector(&tier);
    for _ in 0..10 {
        tier.env.clock.sleep(Duration::from_secs(61)).await;
        collector.pass().await.unwrap();
    }
    tier.bucket.objects.lock().insert(intent.object_key.clone(), Bytes::from_static(b"late"));
    assert!(tier.metadata.segment_commit(intent).await.is_err());
    for _ in 0..5 * 60 {
        tier.env.clock.sleep(Duration::from_secs(61)).await;
        collector.pass().await.unwrap();
    }
    assert!(tier.bucket.objects.lock().is_empty());
}

/// With the right to delete missing, or the bucket out, passes come as seldom as ever.
#[tokio::test(start_paused = true)]
async fn deletions_that_fail_are_not_tried_again_at_once() {
    let tier = Tier::simulated(4).await;
    tier.fill(6, Shape::default()).await;
    tier.metadata.raise_log_start(tier.id, tier.leader_epoch, 250).await.unwrap();
    tier.env.clock.sleep(Duration::from_secs(61)).await;
    tier.bucket.faults.lock().denied = true;
    let config = GarbageConfig { objects_per_pass: 2, ..GarbageConfig::default() };
    let collector = GarbageCollector::new(config, tier.store.clone(), tier.metadata.clone(), tier.env.clone());
    let running = tokio::spawn(collector.clone().run());
    tier.env.clock.sleep(Duration::from_secs(100)).await;
    let failures = collector.metrics().failures.load(Ordering::Relaxed);
    assert!((2..=20).contains(&failures), "a few passes: {failures} failures");
    tier.bucket.faults.lock().denied = false;
    tier.env.clock.sleep(Duration::from_secs(400)).await;
    assert_eq!(tier.bucket.objects.lock().len(), 1);
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn hours_of_outage_or_refusal_only_delay_uploads_and_pile_up_nothing() {
    let outage = Faults { unavailable_percent: 100, ..Faults::default() };
    for faults in [outage, Faults { denied: true, ..Faults::default() }] {
        let tier = Tier::simulated(6).await;
        let made = segment(0, Shape::default());
        *tier.bucket.faults.lock() = faults;
        for _ in 0..50 {
            let error = tier.upload(&made).await.unwrap_err();
            assert!(error.retryable(), "{error}");
            tokio::time::advance(Duration::from_secs(30)).await;
        }
        *tier.bucket.faults.lock() = Faults::default();
        tier.upload(&made).await.unwrap();
        assert!(check(&tier, true).await.is_sound());
        tokio::time::advance(Duration::from_secs(5 * 3600)).await;
        collector(&tier).pass().await.unwrap();
        tokio::time::advance(Duration::from_secs(61)).await;
        assert_eq!(collector(&tier).pass().await.unwrap(), 1, "one intent, the first");
        assert_eq!(tier.bucket.objects.lock().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn the_collector_runs_by_itself_and_stops() {
    let tier = Tier::simulated(4).await;
    tier.fill(2, Shape::default()).await;
    let tasks = tier.env.tasks.child();
    let mut env = tier.env.clone();
    env.tasks = tasks.clone();
    tasks.spawn("gc", GarbageCollector::new(GarbageConfig::default(), tier.store.clone(), tier.metadata.clone(), env).run());
    tier.metadata.raise_log_start(tier.id, tier.leader_epoch, 50).await.unwrap();
    tier.env.clock.sleep(Duration::from_secs(180)).await;
    assert_eq!(tier.bucket.objects.lock().len(), 1);
    assert!(tasks.shutdown(Duration::from_secs(5)).await);
}

#[tokio::test(start_paused = true)]
async fn the_check_names_what_is_wrong() {
    let tier = Tier::simulated(5).await;
    tier.fill(5, Shape::default()).await;
    let report = check(&tier, true).await;
    assert_eq!((report.partitions, report.segments, report.findings_total), (1, 5, 0), "{report:?}");
    assert!(report.is_sound());

    let rows = tier.metadata.list_segments(tier.id, 0, 10).await.unwrap();
    let change = |key: &str, change: &dyn Fn(Vec<u8>) -> Vec<u8>| {
        let mut objects = tier.bucket.objects.lock();
        let body = objects[key].to_vec();
        objects.insert(key.to_owned(), Bytes::from(change(body)));
    };
    tier.bucket.objects.lock().remove(&rows[0].object_key);
    change(&rows[1].object_key, &|mut body| {
        body.pop();
        body
    });
    change(&rows[2].object_key, &|mut body| {
        body[100] ^= 1;
        body
    });
    let orphan = SegmentKey {
        cluster_id: tier.metadata.image().cluster_id.clone(),
        id: tier.id,
        base_offset: 9,
        leader_epoch: 1,
        attempt: tier.env.entropy.uuid(),
    };
    tier.bucket.objects.lock().insert(orphan.encode(), Bytes::from_static(b"left over"));
    tier.bucket.objects.lock().insert("somebody/else".to_owned(), Bytes::from_static(b"x"));

    let shallow = check(&tier, false).await;
    assert_eq!((shallow.findings_total, shallow.foreign), (3, 1), "{shallow:?}");
    let deep = check(&tier, true).await;
    assert!(!deep.is_sound());
    let partition = tier.id.to_string();
    let found = |finding: &Finding| deep.findings.contains(finding);
    assert!(found(&Finding::MissingObject { partition, key: rows[0].object_key.clone() }));
    assert!(found(&Finding::Orphan { key: orphan.encode(), size_bytes: 9 }));
    for (row, part) in [(&rows[1], "it has"), (&rows[2], "CRC-64")] {
        let damaged = |finding: &&Finding| matches!(finding, Finding::DamagedObject { key, reason, .. } if *key == row.object_key && reason.contains(part));
        assert!(deep.findings.iter().any(|finding| damaged(&finding)), "{deep:?}");
    }
    assert_eq!(deep.findings_total, 4, "{deep:?}");
}
