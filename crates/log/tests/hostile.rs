//! Mutated batches, records, snapshots and indexes: whatever the bytes, no panic, and memory bounded by what came in (I42).
#![expect(unsafe_code, reason = "a counting allocator can't be had otherwise")]
#![expect(clippy::unwrap_used, reason = "tests")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use bytes::BytesMut;
use crc_fast::CrcAlgorithm;
use siltstone_common::entropy::{Entropy, SmallEntropy};
use siltstone_common::fs::SimFs;
use siltstone_common::{Env, TopicId, TopicIdPartition};
use siltstone_log::batch::{BatchHeader, Compression, batches, verify_crc};
use siltstone_log::cleaner::CleanerConfig;
use siltstone_log::index::{decode_aborted, decode_index, encode_aborted, encode_index};
use siltstone_log::producers::{AbortedTxn, EndTxnMarker, ProducerStates};
use siltstone_log::records::{BatchBuilder, inflate, records};
use siltstone_log::segment::IndexEntry;
use siltstone_log::validate::validate;
use siltstone_log::{AppendOrigin, LogConfig, LogManager, LogManagerConfig};

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// Counts what this thread holds.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(change: isize) {
    // Fails only while the thread ends.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + change);
        PEAK.with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// The most that `f` held above what was held before, bytes.
fn peak_of<T>(f: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let result = f();
    (result, (PEAK.get() - before).cast_unsigned())
}

/// A batch of many tiny records, most of which stay: what the cleaner holds follows what the batch inflates to, not how many records that is.
#[test]
fn compaction_holds_no_more_than_a_few_times_what_a_batch_inflates_to() {
    let mut builder = BatchBuilder::new(Compression::Zstd);
    let (count, mut inflated) = (120_000, 0);
    for index in 0..count {
        let key = if index < 200 { format!("{}", index / 2) } else { "x".to_owned() };
        inflated += 8 + key.len();
        builder.record(1_700_000_000_000, Some(key.as_bytes()), Some(b""), &[]);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let env = Env::simulated(1, Arc::new(SimFs::new()));
        let config = LogManagerConfig {
            dir: "/data".into(),
            cluster_id: "c".to_owned(),
            wal_file_bytes: 8 << 20,
            wal_bytes_max: 32 << 20,
            tail_cache_bytes: 4 << 20,
            disk_reserve_bytes: 0,
            producer_expiration_ms: 86_400_000,
        };
        let (logs, _) = LogManager::open(config, env.clone()).unwrap();
        let id = TopicIdPartition::new(TopicId(env.entropy.uuid()), 0);
        let log = logs.get_or_create(id, LogConfig { compact: true, ..LogConfig::default() }).unwrap();
        log.append_as_leader(builder.build(), 0, AppendOrigin::Client).unwrap();
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        log.raise_high_watermark(log.offsets().ack_end);
        log.roll(true).unwrap();
        // Few keys are noted: almost all records stay.
        let settings = CleanerConfig { dedupe_buffer_bytes: 50 * 24, ..CleanerConfig::default() };
        let mut cleaning = log.begin_cleaning(settings).unwrap();
        let ((), peak) = peak_of(|| {
            while !cleaning.is_done() {
                cleaning.step().unwrap();
            }
        });
        assert!(cleaning.stats().bytes_after > 0 && log.segments()[0].generation == 1, "{:?}", cleaning.stats());
        assert!(peak < 5 * inflated + (2 << 20), "{peak} bytes for a batch of {inflated}");
        drop((cleaning, log, logs));
        env.tasks.shutdown(std::time::Duration::from_secs(10)).await;
    });
}

fn crc32c(bytes: &[u8]) -> [u8; 4] {
    (crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32).to_be_bytes()
}

/// Makes the batch's length and checksum right again, so that a mutation gets past them.
fn repair_batch(bytes: &mut [u8]) {
    if bytes.len() > 61 {
        let length = i32::try_from(bytes.len() - 12).unwrap();
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        let crc = crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc);
    }
}

fn repair_sealed(bytes: &mut [u8]) {
    if let Some(at) = bytes.len().checked_sub(4) {
        let crc = crc32c(&bytes[..at]);
        bytes[at..].copy_from_slice(&crc);
    }
}

/// Changes a few bytes, cuts, repeats or joins: `bytes` and another input.
fn mutate(bytes: &mut Vec<u8>, other: &[u8], entropy: &SmallEntropy) {
    let below = |bound: usize| usize::try_from(entropy.below(bound as u64)).unwrap();
    for _ in 0..=below(3) {
        if bytes.is_empty() {
            return;
        }
        let at = below(bytes.len());
        match below(8) {
            0 => bytes[at] ^= 1 << below(8),
            1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][below(5)],
            2 => bytes[at] = bytes[at].wrapping_add(1),
            3 => bytes.truncate(at),
            4 => {
                let end = bytes.len().min(at + 4);
                bytes[at..end].fill([0, 0x7f, 0x80, 0xff][below(4)]);
            }
            5 => {
                let piece = bytes[at..].to_vec();
                bytes.extend_from_slice(&piece[..piece.len().min(64)]);
            }
            6 => bytes.splice(at.., other.iter().copied().skip(below(other.len() + 1))).for_each(drop),
            // Rather the fields than the payload.
            _ => bytes[at.min(80)] = u8::try_from(below(256)).unwrap(),
        }
    }
}

fn sample_batches() -> Vec<Vec<u8>> {
    let codecs = [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];
    let mut samples: Vec<Vec<u8>> = codecs
        .into_iter()
        .map(|codec| {
            let mut builder = BatchBuilder::new(codec).producer(5, 1, 10, false);
            for i in 0..6 {
                builder.record(1_700_000_000_000 + i, Some(b"key"), Some(&[7; 90]), &[(b"h", Some(b"v")), (b"h", None)]);
            }
            builder.build().to_vec()
        })
        .collect();
    samples.push(EndTxnMarker { commit: true, coordinator_epoch: 3 }.to_batch(5, 1, 0).to_vec());
    samples
}

/// Reads everything there is to read of a batch.
fn read_batches(bytes: &[u8], inflated_max: usize) -> usize {
    let mut seen = 0;
    for (header, batch) in batches(bytes).map_while(Result::ok) {
        let _ = (verify_crc(batch), header.last_sequence(), header.last_offset(), EndTxnMarker::from_batch(&header, batch));
        if let Ok(body) = inflate(&header, batch, inflated_max) {
            for record in records(&header, &body).map_while(Result::ok) {
                seen += record.headers.iter().count() + record.key.map_or(0, <[u8]>::len);
            }
        }
    }
    seen
}

#[test]
fn mutated_batches_neither_panic_nor_take_memory() {
    const INFLATED_MAX: usize = 64 * 1024;
    let entropy = SmallEntropy::seeded(1);
    let samples = sample_batches();
    let plain = LogConfig::default();
    let strict = LogConfig { compact: true, timestamp_before_max_ms: 1_000, compression: Some(Compression::Lz4), ..LogConfig::default() };
    let mut accepted = 0;
    for round in 0..6_000 {
        let mut bytes = samples[round % samples.len()].clone();
        let other = &samples[usize::try_from(entropy.below(samples.len() as u64)).unwrap()];
        mutate(&mut bytes, other, &entropy);
        if round % 3 != 0 {
            repair_batch(&mut bytes);
        }
        let uncompressed = BatchHeader::parse(&bytes).is_ok_and(|header| header.compression() == Ok(Compression::None));
        let (_, peak) = peak_of(|| read_batches(&bytes, INFLATED_MAX));
        // Codecs have tables and windows of a fixed size: lz4's largest block is 4 MiB, there and back.
        let codec_bytes = if uncompressed { 0 } else { 12 << 20 };
        assert!(peak <= 4 * bytes.len() + 2 * INFLATED_MAX + codec_bytes, "{peak} bytes for {} in round {round}", bytes.len());

        let input = BytesMut::from(bytes.as_slice());
        let (result, peak) = peak_of(|| validate(input, AppendOrigin::Client, &plain, 1_700_000_000_000));
        if uncompressed {
            assert!(peak <= 4 * bytes.len() + 64 * 1024, "{peak} bytes for {} in round {round}", bytes.len());
        }
        if let Ok(mut validated) = result {
            accepted += 1;
            let next = validated.assign_offsets(1_000, 7);
            assert_eq!(next, 1_000 + i64::from(validated.headers[0].record_count), "I7");
            assert_eq!(verify_crc(&validated.records), Ok(()), "I36");
        }
        if round % 4 != 0 {
            continue;
        }
        let input = BytesMut::from(bytes.as_slice());
        if let Ok(validated) = validate(input, AppendOrigin::Client, &strict, 1_700_000_000_000) {
            assert_eq!(verify_crc(&validated.records), Ok(()), "I36");
        }
    }
    assert!(accepted > 150, "the mutations no longer reach the depths: {accepted} accepted");
}

#[test]
fn mutated_state_files_neither_panic_nor_take_memory() {
    let entropy = SmallEntropy::seeded(2);
    let mut producers = ProducerStates::default();
    for batch in sample_batches() {
        producers.appended(&BatchHeader::parse(&batch).unwrap(), None);
    }
    let index: Vec<_> = (0..20).map(|i| IndexEntry { offset: i, position: i.cast_unsigned() * 50, max_timestamp_ms: i }).collect();
    let aborted = [AbortedTxn { producer_id: 1, first_offset: 2, last_offset: 3, last_stable_offset: 4 }; 5];
    let samples = [producers.snapshot(60), encode_index(&index), encode_aborted(&aborted)];
    let mut loaded = 0;
    for round in 0..40_000 {
        let mut bytes = samples[round % samples.len()].to_vec();
        let other = &samples[usize::try_from(entropy.below(3)).unwrap()];
        mutate(&mut bytes, other, &entropy);
        if round % 3 != 0 {
            repair_sealed(&mut bytes);
        }
        let (ok, peak) = peak_of(|| {
            let states = ProducerStates::load(&bytes);
            if let Ok((states, offset)) = &states {
                let _ = (states.list(), states.snapshot(*offset), states.first_undecided_offset());
            }
            states.is_ok() || decode_index(&bytes).is_ok() || decode_aborted(&bytes).is_ok()
        });
        loaded += usize::from(ok);
        assert!(peak <= 4 * bytes.len() + 64 * 1024, "{peak} bytes for {} in round {round}", bytes.len());
    }
    assert!(loaded > 500, "the mutations no longer reach the depths: {loaded} loaded");
}

#[test]
fn bombs_stop_at_the_limit() {
    for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let mut builder = BatchBuilder::new(codec);
        builder.record(0, None, Some(&vec![0; 2 << 20]), &[]);
        let bomb = builder.build();
        let header = BatchHeader::parse(&bomb).unwrap();
        let (result, peak) = peak_of(|| inflate(&header, &bomb, 128 << 10).is_err());
        assert!(result, "{codec:?}");
        assert!(peak < 1 << 20, "{codec:?} held {peak} bytes");
    }
}
