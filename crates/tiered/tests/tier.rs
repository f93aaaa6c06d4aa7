//! Upload, commit, read back: the whole tier over a bucket that can be slow and faulty, in simulated time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::disallowed_methods, reason = "damages files behind the product's back")]

mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use siltstone_log::batch::batches;
use siltstone_log::epochs::EpochEntry;
use siltstone_log::producers::AbortedTxn;
use siltstone_metadata::{MetadataApi, MetadataError};
use siltstone_tiered::{RemoteReadError, RemoteReaderConfig, StoreError, UploadError};
use support::tier::{Shape, Tier, batch, read_all, repeated, segment, small_chunks};
use support::{Faults, Speed};

const LARGE: Shape = Shape { batches: 40, records: 10, value_bytes: 50_000, timestamp_ms: 1_000_000, epoch: 0 };

#[tokio::test(start_paused = true)]
async fn what_was_uploaded_is_read_back_byte_for_byte_from_any_offset() {
    let tier = Tier::simulated(1).await;
    // About 0.5 MB each, in chunks of 64 KiB: batches lie across chunks, reads across segments.
    let all = tier.fill(5, Shape { batches: 100, records: 10, value_bytes: 500, ..Shape::default() }).await;
    let reader = tier.reader(small_chunks());
    for max_bytes in [1, 6_000, 100_000, 10_000_000] {
        assert_eq!(read_all(&reader, tier.id, 0, 5000, max_bytes).await, all, "max_bytes {max_bytes}");
    }
    for offset in [0, 1, 9, 10, 999, 1000, 1001, 2555, 4999] {
        let read = reader.read(tier.id, offset, 20_000, true).await.unwrap();
        let bytes = read.slices.concat();
        let (first, _) = batches(&bytes).next().unwrap().unwrap();
        assert!(first.base_offset <= offset && first.last_offset() >= offset, "{offset}");
        assert!(read.size_bytes <= 20_000 && read.aborted.is_empty());
    }
    let read = reader.read(tier.id, 7, 100, false).await.unwrap();
    assert_eq!((read.size_bytes, read.next_offset), (0, 7), "a batch that is too large comes only if asked for");
    assert!(matches!(reader.read(tier.id, 5000, 1000, true).await, Err(RemoteReadError::NotFound(5000))));
}

#[tokio::test(start_paused = true)]
async fn a_large_segment_goes_in_parts_and_comes_back_whole() {
    let tier = Tier::simulated(2).await;
    let all = tier.fill(1, LARGE).await;
    assert!(all.len() > 17 << 20);
    let reader = tier.reader(RemoteReaderConfig::default());
    assert_eq!(read_all(&reader, tier.id, 0, 400, 3 << 20).await, all);
    let row = tier.metadata.find_segment(tier.id, 0).await.unwrap().unwrap();
    assert!(tier.store.holds(&row.object_key, row.object_bytes, row.checksum).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_bad_batch_is_never_uploaded() {
    let tier = Tier::simulated(3).await;
    for shape in [Shape::default(), LARGE] {
        for at in [0, 70, 5_000] {
            let made = segment(0, shape);
            made.file.0.lock()[at] ^= 0x40;
            let error = tier.upload(&made).await.unwrap_err();
            assert!(matches!(error, UploadError::Local(_)) && !error.retryable(), "{error}");
        }
        let short = segment(0, shape);
        short.file.0.lock().pop();
        assert!(matches!(tier.upload(&short).await, Err(UploadError::Local(_))));
    }
    assert!(tier.bucket.objects.lock().is_empty(), "not even garbage");
    assert_eq!(tier.metadata.remote_extent(tier.id).await.unwrap().segments, 0);
    assert_eq!(tier.uploader.metrics().corrupt.load(Ordering::Relaxed), 8);
}

#[tokio::test(start_paused = true)]
async fn only_the_present_leader_extends_the_committed_range_without_gaps() {
    let tier = Tier::simulated(4).await;
    let gap = segment(50, Shape::default());
    let error = tier.upload(&gap).await.unwrap_err();
    assert!(matches!(error, UploadError::Metadata(MetadataError::NotContiguous { base_offset: 50, expected: 0 })), "{error}");
    let first = segment(0, Shape::default());
    let stale = tier.uploader.upload(tier.id, tier.leader_epoch - 1, first.sealed.clone()).await;
    assert!(matches!(stale, Err(UploadError::Metadata(MetadataError::FencedLeaderEpoch))), "{stale:?}");
    tier.upload(&first).await.unwrap();
    // Exactly the same offsets come in the place of what is there, as after compaction; a part of them does not.
    let before = tier.metadata.remote_extent(tier.id).await.unwrap();
    tier.upload(&first).await.unwrap();
    assert_eq!(tier.metadata.remote_extent(tier.id).await.unwrap(), before);
    let part = tier.upload(&segment(25, Shape::default())).await;
    assert!(matches!(part, Err(UploadError::Metadata(MetadataError::NotContiguous { .. }))), "{part:?}");
    tier.upload(&gap).await.unwrap();
    assert_eq!(tier.metadata.remote_extent(tier.id).await.unwrap().remote_end, 100);
}

#[tokio::test(start_paused = true)]
async fn faults_of_the_store_never_give_wrong_bytes() {
    for seed in 0..8 {
        let tier = Tier::simulated(seed).await;
        *tier.bucket.faults.lock() = Faults { unavailable_percent: 30, lost_reply_percent: 20, truncated_percent: 20, ..Faults::default() };
        let all = tier.fill(4, Shape { batches: 50, records: 4, value_bytes: 700, ..Shape::default() }).await;
        let reader = tier.reader(small_chunks());
        assert_eq!(read_all(&reader, tier.id, 0, 800, 50_000).await, all);
    }
}

#[tokio::test(start_paused = true)]
async fn a_flipped_bit_on_the_way_is_read_again_and_one_at_rest_is_an_error() {
    let tier = Tier::simulated(5).await;
    let all = tier.fill(2, Shape { batches: 50, records: 4, value_bytes: 700, ..Shape::default() }).await;
    // On the way: a third of all answers is damaged. Each read gives the right bytes or an error.
    *tier.bucket.faults.lock() = Faults { corrupt_percent: 33, ..Faults::default() };
    let (mut offset, mut errors, mut collected) = (0, 0, Vec::new());
    while offset < 400 {
        let reader = tier.reader(small_chunks());
        match reader.read(tier.id, offset, 60_000, true).await {
            Ok(read) => {
                collected.extend(read.slices);
                offset = read.next_offset;
            }
            Err(RemoteReadError::Store(StoreError::Corrupt { .. })) => errors += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(collected.concat(), all);
    assert!(errors > 0, "the model damaged nothing twice");

    // At rest, in the batches and in the tail.
    *tier.bucket.faults.lock() = Faults::default();
    let row = tier.metadata.find_segment(tier.id, 200).await.unwrap().unwrap();
    let whole = tier.bucket.objects.lock()[&row.object_key].clone();
    for at in [row.data_bytes / 2, row.data_bytes + 5, row.object_bytes - 1] {
        let mut damaged = whole.to_vec();
        damaged[at as usize] ^= 1;
        tier.bucket.objects.lock().insert(row.object_key.clone(), Bytes::from(damaged));
        let reader = tier.reader(small_chunks());
        let read = reader.read(tier.id, 201, 10_000_000, true).await;
        assert!(matches!(read, Err(RemoteReadError::Store(StoreError::Corrupt { .. }))), "{read:?}");
        assert_eq!(reader.metrics().corrupt_chunks.load(Ordering::Relaxed), 1);
    }
    tier.bucket.objects.lock().insert(row.object_key, whole);
    assert_eq!(read_all(&tier.reader(small_chunks()), tier.id, 0, 400, 50_000).await, all);
}

#[tokio::test(start_paused = true)]
async fn a_missing_object_is_an_alarm_while_committed_and_out_of_range_once_deleted() {
    let tier = Tier::simulated(6).await;
    tier.fill(2, Shape::default()).await;
    let row = tier.metadata.find_segment(tier.id, 0).await.unwrap().unwrap();
    let reader = tier.reader(small_chunks());
    let body = tier.bucket.objects.lock().remove(&row.object_key).unwrap();
    let read = reader.read(tier.id, 0, 1000, true).await;
    assert!(matches!(read, Err(RemoteReadError::Store(StoreError::NotFound(_)))), "{read:?}");
    assert_eq!(reader.metrics().missing_objects.load(Ordering::Relaxed), 1);
    tier.bucket.objects.lock().insert(row.object_key.clone(), body);
    reader.read(tier.id, 0, 1000, true).await.unwrap();

    tier.metadata.raise_log_start(tier.id, tier.leader_epoch, 50).await.unwrap();
    tier.bucket.objects.lock().remove(&row.object_key);
    // Another reader whose rows are old: it must find out, not raise the alarm.
    let fresh = tier.reader(small_chunks());
    let read = fresh.read(tier.id, 0, 1000, true).await;
    assert!(matches!(read, Err(RemoteReadError::NotFound(0))), "{read:?}");
    assert_eq!(fresh.metrics().missing_objects.load(Ordering::Relaxed), 0);
}

/// I42: a small answer out of a large chunk holds no more memory than it has bytes.
#[tokio::test(start_paused = true)]
async fn a_small_answer_does_not_keep_its_chunk() {
    let tier = Tier::simulated(1).await;
    tier.fill(2, Shape::default()).await;
    let reader = tier.reader(small_chunks());
    let small = reader.read(tier.id, 0, 1, true).await.unwrap();
    assert!(small.size_bytes > 0 && small.slices.iter().all(Bytes::is_unique), "copied out of the chunk");
}

#[tokio::test(start_paused = true)]
async fn work_goes_on_into_the_cache_when_the_reader_is_gone() {
    let tier = Tier::simulated(7).await;
    tier.fill(1, Shape::default()).await;
    tier.bucket.speed.lock().latency = Duration::from_millis(700);
    let reader = tier.reader(small_chunks());
    // The client waits for 500 ms, as Kafka's do; its second try finds what the first one began.
    let first = tokio::time::timeout(Duration::from_millis(500), reader.read(tier.id, 0, 1000, true)).await;
    assert!(first.is_err());
    let second = tokio::time::timeout(Duration::from_millis(500), reader.read(tier.id, 0, 1000, true)).await;
    assert_eq!(second.unwrap().unwrap().next_offset, 5);
    assert_eq!(reader.metrics().gets.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn many_readers_of_one_place_cost_one_get_each_chunk() {
    let tier = Tier::simulated(8).await;
    tier.fill(1, Shape { batches: 100, records: 10, value_bytes: 500, ..Shape::default() }).await;
    tier.bucket.speed.lock().latency = Duration::from_millis(30);
    let before = tier.bucket.gets.load(Ordering::Relaxed);
    let reader = tier.reader(small_chunks());
    let reads = (0..50).map(|_| reader.read(tier.id, 0, 200_000, true));
    for read in futures::future::join_all(reads).await {
        assert!(read.unwrap().size_bytes > 190_000);
    }
    assert_eq!(tier.bucket.gets.load(Ordering::Relaxed) - before, 4, "200,000 bytes in chunks of 64 KiB");
}

#[tokio::test(start_paused = true)]
async fn times_are_found_across_segments() {
    let tier = Tier::simulated(9).await;
    // Record n has timestamp 1,000,000 + n.
    tier.fill(4, Shape::default()).await;
    let reader = tier.reader(small_chunks());
    let epoch = 0;
    for (timestamp, from, expected) in [
        (0, 0, Some((1_000_000, 0, epoch))),
        (1_000_000 + 7, 0, Some((1_000_007, 7, epoch))),
        (1_000_000 + 7, 60, Some((1_000_060, 60, epoch))),
        (1_000_000 + 199, 0, Some((1_000_199, 199, epoch))),
        (1_000_000 + 50, 50, Some((1_000_050, 50, epoch))),
        (1_000_000 + 200, 0, None),
        (0, 200, None),
    ] {
        assert_eq!(reader.offset_for_timestamp(tier.id, timestamp, from).await.unwrap(), expected, "{timestamp} from {from}");
    }
    assert_eq!(reader.max_timestamp(tier.id).await.unwrap(), Some((1_000_199, 199, epoch)));
    // Timestamps that jump back: the first record that is late enough, not the first segment that begins so.
    let late = Tier::simulated(10).await;
    late.upload(&segment(0, Shape { timestamp_ms: 5_000, ..Shape::default() })).await.unwrap();
    late.upload(&segment(50, Shape { timestamp_ms: 1_000, ..Shape::default() })).await.unwrap();
    let reader = late.reader(small_chunks());
    assert_eq!(reader.offset_for_timestamp(late.id, 1_010, 0).await.unwrap(), Some((5_000, 0, epoch)));
    assert_eq!(reader.offset_for_timestamp(late.id, 1_010, 50).await.unwrap(), Some((1_010, 60, epoch)));
    assert_eq!(reader.max_timestamp(late.id).await.unwrap(), Some((5_049, 49, epoch)));
}

#[tokio::test(start_paused = true)]
async fn aborted_transactions_come_with_their_records() {
    let tier = Tier::simulated(11).await;
    let spanning = AbortedTxn { producer_id: 1, first_offset: 40, last_offset: 60, last_stable_offset: 61 };
    let early = AbortedTxn { producer_id: 2, first_offset: 3, last_offset: 9, last_stable_offset: 10 };
    let mut first = segment(0, Shape::default());
    first.sealed.aborted = vec![early, spanning];
    let mut second = segment(50, Shape::default());
    second.sealed.aborted = vec![spanning];
    let third = segment(100, Shape::default());
    for made in [&first, &second, &third] {
        tier.upload(made).await.unwrap();
    }
    let reader = tier.reader(small_chunks());
    assert_eq!(reader.read(tier.id, 0, 10_000_000, true).await.unwrap().aborted, [early, spanning]);
    assert_eq!(reader.read(tier.id, 10, 500, true).await.unwrap().aborted, []);
    assert_eq!(reader.read(tier.id, 55, 500, true).await.unwrap().aborted, [spanning]);
    assert_eq!(reader.read(tier.id, 100, 500, true).await.unwrap().aborted, []);
}

#[tokio::test(start_paused = true)]
async fn an_empty_replica_gets_epochs_and_producers_of_the_whole_remote_range() {
    let tier = Tier::simulated(12).await;
    assert!(tier.reader(small_chunks()).tail(tier.id).await.unwrap().is_none());
    let mut offset = 0;
    for i in 0..40_i32 {
        let mut made = segment(offset, Shape { batches: 2, epoch: i / 10, ..Shape::default() });
        if i == 20 {
            // An epoch that begins within a segment.
            made.sealed.leader_epochs =
                vec![EpochEntry { epoch: 1, start_offset: offset }, EpochEntry { epoch: 2, start_offset: offset + 5 }];
        }
        tier.upload(&made).await.unwrap();
        offset = made.sealed.last_offset + 1;
    }
    let tail = tier.reader(small_chunks()).tail(tier.id).await.unwrap().unwrap();
    assert_eq!(tail.producer_snapshot, "producers at 400");
    let expected = [(0, 0), (1, 100), (2, 205), (3, 300)].map(|(epoch, start_offset)| EpochEntry { epoch, start_offset });
    assert_eq!(tail.leader_epochs, expected);
}

#[tokio::test(start_paused = true)]
async fn the_disk_cache_survives_a_restart_and_damage() {
    let directory = tempfile::tempdir().unwrap();
    let tier = Tier::simulated(13).await;
    let all = tier.fill(3, Shape { batches: 100, records: 10, value_bytes: 500, ..Shape::default() }).await;
    let config = RemoteReaderConfig { disk_cache_bytes: 16 << 20, disk_cache_dir: directory.path().join("chunks"), ..small_chunks() };
    let reader = tier.reader(config.clone());
    assert_eq!(read_all(&reader, tier.id, 0, 3000, 1_000_000).await, all);
    assert!(reader.metrics().gets.load(Ordering::Relaxed) >= 24);

    let second = tier.reader(config.clone());
    tokio::task::yield_now().await;
    assert_eq!(read_all(&second, tier.id, 0, 3000, 1_000_000).await, all);
    let kept = second.metrics().disk_hits.load(Ordering::Relaxed);
    assert!(kept > 0 && second.metrics().gets.load(Ordering::Relaxed) + kept >= 24, "nothing was found on the disk");

    // Every file damaged: torn, or a bit flipped.
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory.path().join("chunks")).unwrap() {
        files.extend(std::fs::read_dir(entry.unwrap().path()).unwrap().map(|file| file.unwrap().path()));
    }
    assert!(files.len() >= kept as usize);
    for (i, file) in files.iter().enumerate() {
        let mut bytes = std::fs::read(file).unwrap();
        if i % 2 == 0 {
            bytes.truncate(100)
        } else {
            bytes[50] ^= 1
        }
        std::fs::write(file, bytes).unwrap();
    }
    let third = tier.reader(config);
    tokio::task::yield_now().await;
    assert_eq!(read_all(&third, tier.id, 0, 3000, 1_000_000).await, all);
    assert_eq!(third.metrics().disk_hits.load(Ordering::Relaxed), 0);
}

/// The figure that the design asks for: a replay of one partition at 8 times what one connection gives, or more.
#[tokio::test(start_paused = true)]
async fn a_replay_is_more_than_eight_times_as_fast_as_one_connection() {
    let tier = Tier::simulated(14).await;
    let shape = Shape { batches: 64, records: 16, value_bytes: 16_000, ..Shape::default() };
    let batch = batch(0, shape.records, shape.value_bytes, shape.timestamp_ms, 0);
    let (mut size, end) = (0, 24 * 64 * 16);
    for base_offset in (0..end).step_by(64 * 16) {
        let made = repeated(base_offset, shape, &batch);
        size += made.bytes.len();
        tier.upload(&made).await.unwrap();
    }
    let rate = 90_000_000;
    *tier.bucket.speed.lock() = Speed { latency: Duration::from_millis(30), connection_bytes_per_s: rate };
    let reader = tier.reader(RemoteReaderConfig::default());
    let before = tier.env.clock.monotonic();
    let (mut offset, mut read_bytes) = (0, 0);
    while offset < end {
        let read = reader.read(tier.id, offset, 1 << 20, true).await.unwrap();
        (offset, read_bytes) = (read.next_offset, read_bytes + read.size_bytes);
    }
    let took = (tier.env.clock.monotonic() - before).as_secs_f64();
    assert_eq!(read_bytes, size);
    let ratio = size as f64 / took / rate as f64;
    let gets = reader.metrics().gets.load(Ordering::Relaxed);
    println!("{} MB in {took:.3} s by {gets} GETs: {ratio:.1} connections' worth", size / 1_000_000);
    assert!(ratio >= 8.0, "only {ratio:.1} times one connection");
}
