//! What the wrapper makes of a store in trouble (F30 to F37), in simulated time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use crc_fast::CrcAlgorithm;
use futures::StreamExt;
use siltstone_common::Env;
use siltstone_common::fs::RealFs;
use siltstone_tiered::store::{PART_BYTES, SINGLE_PUT_BYTES_MAX};
use siltstone_tiered::{RemoteStore, StoreError};
use support::{Faults, Handle, TestBucket};

fn crc(bytes: &[u8]) -> u64 {
    crc_fast::checksum(CrcAlgorithm::Crc64Nvme, bytes)
}

fn faulty(seed: u64, faults: Faults) -> (RemoteStore, Arc<TestBucket>, Env) {
    let env = Env::simulated(seed, Arc::new(RealFs));
    let bucket = TestBucket::new(env.clone());
    *bucket.faults.lock() = faults;
    (RemoteStore::over(Arc::new(Handle(Arc::clone(&bucket))), "model".to_owned(), env.clone()), bucket, env)
}

#[tokio::test(start_paused = true)]
async fn half_of_all_calls_failing_and_replies_lost_loses_nothing() {
    for seed in 0..20 {
        let faults = Faults { unavailable_percent: 50, lost_reply_percent: 20, truncated_percent: 30, ..Faults::default() };
        let (store, bucket, _) = faulty(seed, faults);
        for i in 0..10_u8 {
            let (key, body) = (format!("dir/{i}"), Bytes::from(vec![i; 3000]));
            store.put_new(&key, vec![body.clone()], crc(&body)).await.unwrap();
            assert_eq!(store.get_range(&key, 10, 2000).await.unwrap(), body.slice(10..2000));
        }
        let listed = store.list("dir").map(|item| item.unwrap().key).collect::<Vec<_>>().await;
        assert_eq!(listed.len(), 10);
        assert_eq!(bucket.objects.lock().len(), 10);
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_object_survives_failing_parts_and_a_lost_completion() {
    for seed in 0..3 {
        let faults = Faults { unavailable_percent: 30, lost_reply_percent: 30, ..Faults::default() };
        let (store, bucket, _) = faulty(seed, faults);
        let len = SINGLE_PUT_BYTES_MAX + PART_BYTES + 5;
        let body = Bytes::from((0..251).collect::<Vec<u8>>().repeat(len / 251 + 1)).slice(..len);
        store.put_new("large", vec![body.clone()], crc(&body)).await.unwrap();
        assert_eq!(bucket.objects.lock()["large"], body);
    }
}

#[tokio::test(start_paused = true)]
async fn a_409_on_create_is_tried_again() {
    let (store, bucket, _) = faulty(1, Faults { conflict_next_create: true, ..Faults::default() });
    store.put_new("k", vec![Bytes::from_static(b"x")], crc(b"x")).await.unwrap();
    assert_eq!(bucket.objects.lock()["k"], "x");
}

#[tokio::test(start_paused = true)]
async fn an_outage_ends_reads_soon_and_writes_later_without_harm() {
    let (store, bucket, env) = faulty(1, Faults { unavailable_percent: 100, ..Faults::default() });
    let before = env.clock.monotonic();
    assert!(matches!(store.get_range("k", 0, 1).await, Err(StoreError::Unavailable(_))));
    let read = env.clock.monotonic() - before;
    assert!(read <= Duration::from_secs(16), "{read:?}");
    assert!(matches!(store.put_new("k", vec![Bytes::from_static(b"x")], 0).await, Err(StoreError::Unavailable(_))));
    assert!(bucket.objects.lock().is_empty());
    // By now the outage is known: further work in the background does not queue up behind deadlines.
    let before = env.clock.monotonic();
    assert!(matches!(store.delete("k").await, Err(StoreError::Unavailable(_))));
    assert!(env.clock.monotonic() - before < Duration::from_secs(1));
    assert!(matches!(store.claim("c").await, Err(StoreError::Unavailable(_))));
    assert_eq!(store.metrics().failures.load(Ordering::Relaxed), 4);
    // It is over: the same calls succeed.
    *bucket.faults.lock() = Faults::default();
    store.claim("c").await.unwrap();
    store.put_new("k", vec![Bytes::from_static(b"x")], crc(b"x")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_store_that_never_answers_is_unavailable_within_the_deadline() {
    let (store, _, env) = faulty(1, Faults { hangs: true, ..Faults::default() });
    let before = env.clock.monotonic();
    assert!(matches!(store.get_range("k", 0, 1 << 20).await, Err(StoreError::Unavailable(_))));
    assert!(env.clock.monotonic() - before < Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_reported_at_once_and_passes_when_rights_come_back() {
    let (store, bucket, env) = faulty(1, Faults { denied: true, ..Faults::default() });
    let before = env.clock.monotonic();
    let error = store.put_new("k", vec![Bytes::from_static(b"x")], crc(b"x")).await.unwrap_err();
    assert!(matches!(error, StoreError::Denied { .. }) && error.retryable());
    assert_eq!(env.clock.monotonic(), before);
    *bucket.faults.lock() = Faults::default();
    store.put_new("k", vec![Bytes::from_static(b"x")], crc(b"x")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_store_that_overwrites_is_found_out_by_the_probe() {
    let (store, bucket, _) = faulty(1, Faults { overwrites: true, ..Faults::default() });
    let traits = store.probe().await.unwrap();
    assert!(!traits.conditional_create && traits.read_after_write && traits.list_after_write);
    assert!(bucket.objects.lock().is_empty());
}
