//! One suite for every provider of the bucket port: memory, a directory, the faulty model of the other tests, and, when
//! `SILTSTONE_TEST_S3` names an address (`s3://bucket/prefix`, with `SILTSTONE_TEST_S3_ENDPOINT` and AWS_* set), that store.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::disallowed_methods, reason = "damages files behind the product's back")]

mod support;

use bytes::Bytes;
use crc_fast::CrcAlgorithm;
use futures::StreamExt;
use siltstone_common::Env;
use siltstone_tiered::store::{PART_BYTES, SINGLE_PUT_BYTES_MAX};
use siltstone_tiered::{RemoteStore, StoreConfig, StoreError};

fn crc(bytes: &[u8]) -> u64 {
    crc_fast::checksum(CrcAlgorithm::Crc64Nvme, bytes)
}

fn pattern(len: usize, seed: u8) -> Bytes {
    // 251 is prime: no two parts of an object begin alike.
    let block = (0..251_u8).map(|i| i.wrapping_mul(31).wrapping_add(seed)).collect::<Vec<_>>();
    Bytes::from(block.repeat(len / block.len() + 1)).slice(..len)
}

fn open(url: &str, endpoint: Option<String>) -> RemoteStore {
    RemoteStore::open(&StoreConfig { url: url.to_owned(), s3_endpoint: endpoint }, Env::system()).unwrap()
}

async fn conforms(store: &RemoteStore) {
    let run = Env::system().entropy.uuid().as_simple().to_string();
    let traits = store.probe().await.unwrap();
    assert!(traits.conditional_create && traits.read_after_write && traits.list_after_write, "{traits:?}");
    small_objects(store, &run).await;
    large_objects(store, &run).await;
    races(store, &run).await;
    listings(store, &run).await;
}

async fn small_objects(store: &RemoteStore, run: &str) {
    let key = format!("{run}/small/a");
    let body = pattern(1000, 1);
    assert_eq!(store.head(&key).await, Err(StoreError::NotFound(key.clone())));
    assert_eq!(store.get_range(&key, 0, 1).await, Err(StoreError::NotFound(key.clone())));
    store.put_new(&key, vec![body.slice(..10), body.slice(10..)], crc(&body)).await.unwrap();
    assert_eq!(store.head(&key).await.unwrap(), 1000);
    assert_eq!(store.get_range(&key, 0, 1000).await.unwrap(), body);
    assert_eq!(store.get_range(&key, 999, 1000).await.unwrap(), body.slice(999..));
    assert_eq!(store.get_range_and_size(&key, 100, 200).await.unwrap(), (body.slice(100..200), 1000));
    for (from, to) in [(990, 1010), (1000, 1010), (2000, 2010)] {
        assert!(matches!(store.get_range(&key, from, to).await, Err(StoreError::Corrupt { .. })), "{from}..{to}");
    }
    // Conditional rows: the same content again is our own write, other content is refused and changes nothing.
    store.put_new(&key, vec![body.clone()], crc(&body)).await.unwrap();
    let other = pattern(1000, 2);
    assert_eq!(store.put_new(&key, vec![other.clone()], crc(&other)).await, Err(StoreError::AlreadyExists(key.clone())));
    assert_eq!(store.get_range(&key, 0, 1000).await.unwrap(), body);
    store.delete(&key).await.unwrap();
    store.delete(&key).await.unwrap();
    assert_eq!(store.head(&key).await, Err(StoreError::NotFound(key.clone())));
    store.put_new(&key, vec![other.clone()], crc(&other)).await.unwrap();
    assert_eq!(store.get_range(&key, 0, 1000).await.unwrap(), other);
}

async fn large_objects(store: &RemoteStore, run: &str) {
    let key = format!("{run}/large/a");
    let body = pattern(SINGLE_PUT_BYTES_MAX + PART_BYTES / 2 + 1, 3);
    let mut upload = store.begin_large(&key).await.unwrap();
    for piece in body.chunks(3 << 20) {
        upload.write(body.slice_ref(piece)).await.unwrap();
    }
    assert_eq!(store.head(&key).await, Err(StoreError::NotFound(key.clone())), "visible before it is whole");
    upload.finish().await.unwrap();
    assert!(store.holds(&key, body.len() as u64, crc(&body)).await.unwrap());
    assert!(!store.holds(&key, body.len() as u64, 7).await.unwrap());
    let seam = PART_BYTES as u64;
    assert_eq!(store.get_range(&key, seam - 3, seam + 3).await.unwrap(), body.slice(PART_BYTES - 3..PART_BYTES + 3));
    let again = store.put_new(&key, vec![pattern(SINGLE_PUT_BYTES_MAX + 1, 9)], 0).await;
    assert_eq!(again, Err(StoreError::AlreadyExists(key.clone())));

    let given_up = format!("{run}/large/given-up");
    let mut upload = store.begin_large(&given_up).await.unwrap();
    upload.write(body.slice(..PART_BYTES + 1)).await.unwrap();
    drop(upload);
    assert_eq!(store.head(&given_up).await, Err(StoreError::NotFound(given_up.clone())));
}

/// Of 16 creates of one key with 16 contents, one wins, and it is the one that is read.
async fn races(store: &RemoteStore, run: &str) {
    for round in 0..4 {
        let key = format!("{run}/race/{round}");
        let bodies = (0..16).map(|seed| pattern(512, seed)).collect::<Vec<_>>();
        let creates = bodies.iter().map(|body| store.put_new(&key, vec![body.clone()], crc(body)));
        let results = futures::future::join_all(creates).await;
        let winners = (0..16).filter(|i| results[*i].is_ok()).collect::<Vec<_>>();
        assert_eq!(winners.len(), 1, "{results:?}");
        assert!(results.iter().all(|result| matches!(result, Ok(()) | Err(StoreError::AlreadyExists(_)))), "{results:?}");
        assert_eq!(store.get_range(&key, 0, 512).await.unwrap(), bodies[winners[0]]);
    }
}

async fn listings(store: &RemoteStore, run: &str) {
    let keys = (0..25).map(|i| format!("{run}/list/{:02}/object-{i:020}", i % 3)).collect::<Vec<_>>();
    for key in &keys {
        store.put_new(key, vec![Bytes::from_static(b"x")], crc(b"x")).await.unwrap();
    }
    let mut found = Vec::new();
    let mut listing = store.list(&format!("{run}/list"));
    while let Some(item) = listing.next().await {
        let item = item.unwrap();
        assert_eq!(item.size_bytes, 1);
        found.push(item.key);
    }
    found.sort();
    let mut expected = keys;
    expected.sort();
    assert_eq!(found, expected);
    assert!(store.list(&format!("{run}/nothing")).next().await.is_none());
    let mut all = store.list(run);
    while let Some(item) = all.next().await {
        store.delete(&item.unwrap().key).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory() {
    conforms(&open("memory://", None)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn directory() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file://{}/made/for/this", directory.path().display());
    let store = open(&url, None);
    conforms(&store).await;
    store.claim("one").await.unwrap();
    let same = open(&url, None);
    assert!(matches!(same.claim("two").await, Err(StoreError::BadAddress { .. })));
    same.claim("one").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_process_left_in_a_directory_goes_with_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file://{}", directory.path().display());
    let left = directory.path().join(".staging/gone");
    std::fs::create_dir_all(&left).unwrap();
    std::fs::write(left.join("part#1"), b"half an object").unwrap();
    let first = open(&url, None);
    assert!(!left.exists());
    // A second process finds the first one alive: its upload goes on.
    let mut upload = first.begin_large("a/b").await.unwrap();
    upload.write(pattern(PART_BYTES + 1, 1)).await.unwrap();
    let second = open(&url, None);
    upload.finish().await.unwrap();
    assert_eq!(second.head("a/b").await.unwrap(), PART_BYTES as u64 + 1);
    let listed = second.list("").map(|item| item.unwrap().key).collect::<Vec<_>>().await;
    assert_eq!(listed, ["a/b"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn model() {
    let bucket = support::TestBucket::new(Env::system());
    conforms(&RemoteStore::over(std::sync::Arc::new(support::Handle(bucket)), "model".to_owned(), Env::system())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_when_one_is_given() {
    let Ok(url) = std::env::var("SILTSTONE_TEST_S3") else {
        return;
    };
    conforms(&open(&url, std::env::var("SILTSTONE_TEST_S3_ENDPOINT").ok())).await;
}
