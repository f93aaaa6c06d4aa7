use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bytes::BytesMut;
use proptest::prelude::*;
use siltstone_common::Env;
use siltstone_common::fs::SimFs;
use siltstone_common::fs::sim::SimFault;

use super::*;
use crate::batch::{BatchHeader, Compression, batches, verify_crc};
use crate::producers::EndTxnMarker;
use crate::records::BatchBuilder;
use crate::testing::{Process, acknowledged, bytes, config};
use crate::{AppendOrigin, LogConfig};

const DIR: &str = "/data";
const CODECS: [Compression; 5] = [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

fn compacted(segment_bytes: u64) -> LogConfig {
    LogConfig { segment_bytes, index_interval_bytes: 200, compact: true, ..LogConfig::default() }
}

/// A record as a reader sees it: offset, key, value.
type Seen = (i64, Vec<u8>, Option<Vec<u8>>);

/// All batches from `from` to the log end.
fn stored(log: &PartitionLog, from: i64) -> Vec<(BatchHeader, Vec<u8>)> {
    let mut found = Vec::new();
    let (mut next, end) = (from, log.offsets().log_end);
    while next < end {
        let read = log.read(next, 900, true, end).unwrap();
        assert!(read.size_bytes > 0 && read.next_offset > next, "a reader at {next} of {end} gets on");
        for batch in batches(&bytes(&read)) {
            let (header, batch) = batch.unwrap();
            verify_crc(batch).unwrap();
            found.push((header, batch.to_vec()));
        }
        next = read.next_offset;
    }
    found
}

fn seen(log: &PartitionLog, from: i64) -> Vec<Seen> {
    let mut found = Vec::new();
    for (header, batch) in stored(log, from) {
        let body = inflate(&header, &batch, 1 << 20).unwrap();
        for record in records(&header, &body) {
            let record = record.unwrap();
            found.push((record.offset, record.key.unwrap().to_vec(), record.value.map(<[u8]>::to_vec)));
        }
    }
    assert!(found.windows(2).all(|pair| pair[0].0 < pair[1].0), "I7");
    found
}

/// What a consumer that builds a table has at the end.
fn table(records: &[Seen]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut table = BTreeMap::new();
    for (_, key, value) in records {
        match value {
            Some(value) => drop(table.insert(key.clone(), value.clone())),
            None => drop(table.remove(key)),
        }
    }
    table
}

fn clean(log: &Arc<PartitionLog>, config: &CleanerConfig) -> Result<CleaningStats, CleanError> {
    let Some(mut cleaning) = log.begin_cleaning(config.clone()) else { return Ok(CleaningStats::default()) };
    while !cleaning.is_done() {
        cleaning.step()?;
    }
    Ok(cleaning.stats())
}

fn clean_all(log: &Arc<PartitionLog>, config: &CleanerConfig) -> CleaningStats {
    clean(log, config).unwrap()
}

fn keyed(codec: Compression, timestamp_ms: i64, records: &[(&[u8], Option<&[u8]>)]) -> BytesMut {
    let mut builder = BatchBuilder::new(codec);
    for (key, value) in records {
        builder.record(timestamp_ms, Some(key), *value, &[(b"h", Some(b"1")), (b"h", None)]);
    }
    builder.build()
}

fn put(log: &PartitionLog, key: &str, value: Option<&str>) -> i64 {
    let batch = keyed(Compression::None, now_ms(log), &[(key.as_bytes(), value.map(str::as_bytes))]);
    log.append_as_leader(batch, 1, AppendOrigin::Client).unwrap().first_offset
}

fn now_ms(log: &PartitionLog) -> i64 {
    log.env().clock.now_ms()
}

async fn seal(log: &PartitionLog) {
    acknowledged(log).await;
    log.roll(true).unwrap();
}

fn simulated<F: Future<Output = ()>>(test: impl FnOnce(Env, SimFs) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let fs = SimFs::new();
        test(Env::simulated(1, Arc::new(fs.clone())), fs).await;
    });
}

/// One append of the property test.
#[derive(Clone, Debug)]
enum Op {
    Batch { codec: usize, records: Vec<(u8, Option<u8>)>, producer: Option<i64> },
    Roll,
    Clean { keys: usize },
    Restart { clean: bool },
}

fn op() -> impl Strategy<Value = Op> {
    let records = prop::collection::vec((0u8..12, prop::option::weighted(0.8, any::<u8>())), 1..6);
    prop_oneof![
        8 => (0usize..5, records, prop::option::of(0i64..3)).prop_map(|(codec, records, producer)| Op::Batch { codec, records, producer }),
        2 => Just(Op::Roll),
        2 => (1usize..20).prop_map(|keys| Op::Clean { keys }),
        1 => any::<bool>().prop_map(|clean| Op::Restart { clean }),
    ]
}

/// A batch as `op` has it. Producers number their batches on.
fn batch_of(codec: usize, records: &[(u8, Option<u8>)], producer: Option<(i64, i32)>) -> BytesMut {
    let mut builder = BatchBuilder::new(CODECS[codec]);
    if let Some((producer_id, sequence)) = producer {
        builder = builder.producer(producer_id, 0, sequence, false);
    }
    for (key, value) in records {
        builder.record(1_700_000_000_000, Some(&[*key]), value.as_ref().map(std::slice::from_ref), &[]);
    }
    builder.build()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_table_stays_whatever_is_cleaned_and_whenever_the_process_ends(ops in prop::collection::vec(op(), 1..60), crash_at in prop::option::of(1u64..400)) {
        simulated(|env, fs| async move { follow(ops, crash_at, env, fs).await });
    }
}

/// Follows `ops` with a model of every record that was appended; the power goes at file operation `crash_at` if there is one.
async fn follow(ops: Vec<Op>, crash_at: Option<u64>, mut env: Env, mut fs: SimFs) {
    let config_of_log = compacted(700);
    let mut process = Process::start(config(Path::new(DIR)), &env);
    let mut log = process.log(0, &config_of_log);
    if let Some(crash_at) = crash_at {
        fs.crash_at(fs.operations() + crash_at);
    }
    let mut appended: Vec<Seen> = Vec::new();
    let mut sequences = [0; 3];
    for op in ops {
        match op {
            Op::Batch { codec, records, producer } => {
                let with_sequence = producer.map(|id| (id, sequences[id as usize]));
                match log.append_as_leader(batch_of(codec, &records, with_sequence), 1, AppendOrigin::Client) {
                    Ok(info) => {
                        if let Some(id) = producer {
                            sequences[id as usize] += records.len() as i32;
                        }
                        let offsets = info.first_offset..;
                        appended.extend(offsets.zip(records).map(|(at, (key, value))| (at, vec![key], value.map(|value| vec![value]))));
                    }
                    Err(error) => assert!(fs.is_dead(), "{error}"),
                }
            }
            Op::Roll if !fs.is_dead() => {
                tokio::time::sleep(Duration::from_millis(20)).await;
                log.raise_high_watermark(log.offsets().ack_end);
                assert!(log.roll(true).is_ok() || fs.is_dead());
            }
            Op::Clean { keys } if !fs.is_dead() => {
                let settings = CleanerConfig { dedupe_buffer_bytes: keys * 24, io_buffer_bytes: 256, ..CleanerConfig::default() };
                match clean(&log, &settings) {
                    Ok(_) | Err(CleanError::Changed) => {}
                    Err(error) => assert!(fs.is_dead(), "{error}"),
                }
            }
            Op::Restart { clean } if !fs.is_dead() => {
                tokio::time::sleep(Duration::from_millis(20)).await;
                drop(log);
                if clean {
                    let closed = process.manager.close();
                    assert!(closed.is_ok() || fs.is_dead());
                }
                process.kill().await;
                (process, log) = restarted(&mut env, &mut fs, &config_of_log).await;
            }
            _ => {}
        }
        if fs.is_dead() {
            let acknowledged = log.offsets().ack_end;
            drop(log);
            process.kill().await;
            (process, log) = restarted(&mut env, &mut fs, &config_of_log).await;
            assert!(log.offsets().log_end >= acknowledged, "I3");
        }
        check(&log, &mut appended, &mut sequences);
    }
    drop(log);
    process.kill().await;
}

/// The next life, which the power may cut short, too.
async fn restarted(env: &mut Env, fs: &mut SimFs, config_of_log: &LogConfig) -> (Process, Arc<PartitionLog>) {
    loop {
        if fs.is_dead() {
            *fs = fs.crash(&siltstone_common::entropy::SmallEntropy::seeded(7));
            *env = Env::simulated(2, Arc::new(fs.clone()));
        }
        let process = match Process::try_start(config(Path::new(DIR)), env) {
            Ok(process) => process,
            Err(error) => {
                assert!(fs.is_dead(), "{error}");
                continue;
            }
        };
        match process.manager.get_or_create(crate::testing::id(0), config_of_log.clone()) {
            Ok(log) => return (process, log),
            Err(error) => assert!(fs.is_dead(), "{error}"),
        }
        process.kill().await;
    }
}

/// What is stored was appended at the same offset, and makes the same table; what was lost at the end is forgotten by the model.
fn check(log: &PartitionLog, appended: &mut Vec<Seen>, sequences: &mut [i32; 3]) {
    let end = log.offsets().log_end;
    appended.retain(|(offset, ..)| *offset < end);
    assert_eq!(log.offsets().log_start, 0);
    let found = seen(log, 0);
    let by_offset: BTreeMap<_, _> = appended.iter().map(|seen| (seen.0, seen)).collect();
    for seen in &found {
        assert_eq!(by_offset.get(&seen.0), Some(&seen), "offsets never change");
    }
    assert_eq!(table(&found), table(appended));
    *sequences = [0; 3];
    for producer in log.producers() {
        // I17: retries are known and new batches fit, whatever was cleaned.
        sequences[producer.producer_id as usize] = producer.last_sequence + 1;
    }
}

#[test]
fn only_the_newest_record_of_a_key_stays_and_a_second_pass_finds_nothing_to_do() {
    simulated(|env, _| async move {
        let process = Process::start(config(Path::new(DIR)), &env);
        let log = process.log(0, &compacted(2_000));
        for round in 0..20 {
            for key in ["a", "b", "c"] {
                put(&log, key, Some(&format!("{key}{round}")));
            }
        }
        put(&log, "b", None);
        seal(&log).await;
        assert!(log.segments().len() > 3);
        let settings = CleanerConfig::default();
        let dirty = log.cleanable(&settings).unwrap();
        assert!((dirty.clean_bytes, dirty.dirty_ratio()) == (0, 1.0) && dirty.is_due(0.5) && !dirty.is_due(1.0));
        let stats = clean_all(&log, &settings);
        assert!(stats.bytes_after < stats.bytes_before / 5, "{stats:?}");
        assert_eq!(stats.cleaned_end, 61);
        let left: Vec<_> = seen(&log, 0).into_iter().map(|(offset, key, value)| (offset, key, value.is_some())).collect();
        assert_eq!(left, [(57, b"a".to_vec(), true), (59, b"c".to_vec(), true), (60, b"b".to_vec(), false)]);
        assert_eq!(log.cleanable(&settings).unwrap().dirty_bytes, 0);
        assert!(log.begin_cleaning(settings.clone()).is_none());
        drop(log);
        // How far it is clean is known after a restart.
        process.stop().await;
        let process = Process::start(config(Path::new(DIR)), &env);
        let log = process.log(0, &compacted(2_000));
        assert_eq!(log.cleanable(&settings).unwrap().dirty_bytes, 0);
        assert_eq!(seen(&log, 0).len(), 3);
        process.stop().await;
    });
}

#[test]
fn a_tombstone_is_kept_for_its_retention_and_goes_then() {
    simulated(|env, _| async move {
        let process = Process::start(config(Path::new(DIR)), &env);
        let log = process.log(0, &compacted(10_000));
        let settings = CleanerConfig { delete_retention_ms: 60_000, ..CleanerConfig::default() };
        put(&log, "gone", Some("value"));
        let tombstone = put(&log, "gone", None);
        seal(&log).await;
        clean_all(&log, &settings);
        let horizons: Vec<_> = stored(&log, 0).iter().map(|(header, _)| (header.last_offset(), header.delete_horizon_ms())).collect();
        assert_eq!(horizons, [(tombstone, Some(now_ms(&log) + 60_000))]);
        assert_eq!(seen(&log, 0), [(tombstone, b"gone".to_vec(), None)]);
        let timestamps = log.offset_for_timestamp(0, 0).unwrap().unwrap();
        assert!(timestamps.0 <= now_ms(&log), "the record's own time is not that of the horizon");
        for (wait_s, left) in [(59, 1), (2, 0)] {
            tokio::time::sleep(Duration::from_secs(wait_s)).await;
            put(&log, "other", Some("value"));
            seal(&log).await;
            clean_all(&log, &settings);
            assert_eq!(seen(&log, 0).iter().filter(|(_, key, _)| key == b"gone").count(), left);
        }
        process.stop().await;
    });
}

fn in_transaction(log: &PartitionLog, producer_id: i64, sequence: i32, key: &str) -> i64 {
    let mut builder = BatchBuilder::new(Compression::None).producer(producer_id, 0, sequence, true);
    builder.record(now_ms(log), Some(key.as_bytes()), Some(b"in a transaction"), &[]);
    let batch = builder.build();
    let header = BatchHeader::parse(&batch).unwrap();
    let guard = log.begin_verification((header.producer_id, header.producer_epoch), header.base_sequence, false);
    let origin = guard.map_or(AppendOrigin::Client, AppendOrigin::VerifiedClient);
    log.append_as_leader(batch, 1, origin).unwrap().first_offset
}

fn end_transaction(log: &PartitionLog, producer_id: i64, commit: bool) -> i64 {
    let marker = EndTxnMarker { commit, coordinator_epoch: 1 };
    let batch = marker.to_batch(producer_id, 0, now_ms(log));
    log.append_as_leader(batch, 1, AppendOrigin::Marker { transaction_version: 1 }).unwrap().first_offset
}

#[test]
fn aborted_records_go_and_markers_follow_once_nothing_hangs_on_them() {
    simulated(|env, _| async move {
        let process = Process::start(config(Path::new(DIR)), &env);
        let log = process.log(0, &compacted(100_000));
        let settings = CleanerConfig { delete_retention_ms: 60_000, ..CleanerConfig::default() };
        put(&log, "k", Some("before"));
        in_transaction(&log, 1, 0, "k");
        in_transaction(&log, 1, 1, "other");
        let abort = end_transaction(&log, 1, false);
        let committed = in_transaction(&log, 2, 0, "c");
        let commit = end_transaction(&log, 2, true);
        let open = in_transaction(&log, 3, 0, "open");
        seal(&log).await;
        // An open transaction bounds what may be cleaned.
        assert_eq!(log.cleanable(&settings).unwrap().dirty_bytes, 0);
        end_transaction(&log, 3, true);
        seal(&log).await;
        assert_eq!(log.aborted_transactions(0, 100).unwrap().len(), 1);
        clean_all(&log, &settings);
        let control = |log: &PartitionLog| -> Vec<i64> {
            stored(log, 0)
                .iter()
                .filter(|(header, _)| header.is_control() && header.record_count > 0)
                .map(|(header, _)| header.base_offset)
                .collect()
        };
        let data: Vec<_> = seen(&log, 0).into_iter().filter(|(_, key, _)| key.len() != 4 || key == b"open").map(|(at, ..)| at).collect();
        assert_eq!(data, [0, committed, open], "the records of the aborted transaction are gone, the one before them counts again");
        // The batch with producer 1's last sequence is still here, so its marker and the index entry are needed.
        assert_eq!(log.aborted_transactions(0, 100).unwrap().len(), 1);
        assert_eq!(control(&log), [abort, commit, open + 1]);
        // Producer 1 goes on elsewhere in the log: nothing of the aborted transaction is needed any more.
        in_transaction(&log, 1, 2, "later");
        end_transaction(&log, 1, true);
        put(&log, "c", Some("newer"));
        for _ in 0..4 {
            seal(&log).await;
            clean_all(&log, &settings);
            tokio::time::sleep(Duration::from_secs(61)).await;
            put(&log, "k", Some("again"));
        }
        assert!(log.aborted_transactions(0, 100).unwrap().is_empty());
        assert!(!control(&log).contains(&abort), "the abort marker went with its data and its horizon");
        assert!(control(&log).contains(&commit), "producer 2's last batch is still here, empty");
        process.stop().await;
    });
}

#[test]
fn a_reader_that_was_under_way_ends_its_read_and_the_next_one_goes_on() {
    simulated(|env, _| async move {
        let mut settings = config(Path::new(DIR));
        settings.tail_cache_bytes = 0;
        let process = Process::start(settings, &env);
        let log = process.log(0, &compacted(400));
        for round in 0..10 {
            put(&log, "a", Some(&format!("{round}")));
        }
        seal(&log).await;
        let before = log.read(0, 150, true, 10).unwrap();
        let held = bytes(&before);
        clean_all(&log, &CleanerConfig::default());
        assert_eq!(bytes(&before), held, "what was promised is still readable");
        assert!(log.aborted_in(0, &before).unwrap().is_none(), "and its list of aborted transactions is not mixed with the new one");
        let after = log.read(before.next_offset, 1000, true, 10).unwrap();
        assert!(log.aborted_in(before.next_offset, &after).unwrap().is_some());
        assert_eq!(seen(&log, before.next_offset).len(), 1);
        process.stop().await;
    });
}

/// Retention passes, or the disk has an error that may pass: only damage ends compaction for good.
#[test]
fn a_pass_that_could_not_read_for_now_is_begun_again() {
    simulated(|env, fs| async move {
        let process = Process::start(config(Path::new(DIR)), &env);
        let log = process.log(0, &compacted(400));
        for round in 0..20 {
            put(&log, "a", Some(&format!("{round}")));
        }
        seal(&log).await;
        for fault in [SimFault::Open, SimFault::Read] {
            fs.inject(fault, ".log", 1);
            let failed = clean(&log, &CleanerConfig::default());
            assert!(matches!(failed, Err(CleanError::Log(crate::LogError::Io { .. }))), "{fault:?} {failed:?}");
        }
        let mut cleaning = log.begin_cleaning(CleanerConfig::default()).unwrap();
        log.delete_local_below(log.segments()[1].base_offset).unwrap();
        let changed = cleaning.step();
        assert!(matches!(changed, Err(CleanError::Changed)), "{changed:?}");
        assert_eq!(clean_all(&log, &CleanerConfig::default()).cleaned_end, 20);
        process.stop().await;
    });
}

#[test]
fn a_damaged_segment_stops_the_pass_and_nothing_is_lost() {
    simulated(|env, fs| async move {
        let process = Process::start(config(Path::new(DIR)), &env);
        let log = process.log(0, &compacted(400));
        for round in 0..10 {
            put(&log, "a", Some(&format!("{round}")));
        }
        seal(&log).await;
        let path = crate::segment::path_of(&log.segments_dir(), 0, crate::segment::FileKind::Log);
        let file = siltstone_common::fs::FileSystem::open(&fs, &path, siltstone_common::fs::OpenMode::ReadWrite).unwrap();
        file.write_all_at(&[0xff], 80).unwrap();
        assert!(matches!(clean(&log, &CleanerConfig::default()), Err(CleanError::Corrupt { base_offset: 0, .. })));
        assert_eq!(log.segments().last().unwrap().base_offset, 10);
        process.stop().await;
    });
}

#[test]
fn lags_decide_what_may_and_what_must_be_cleaned() {
    simulated(|env, _| async move {
        let process = Process::start(config(Path::new(DIR)), &env);
        let log = process.log(0, &compacted(10_000));
        put(&log, "a", Some("1"));
        put(&log, "a", Some("2"));
        seal(&log).await;
        let young = CleanerConfig { min_compaction_lag_ms: 10_000, max_compaction_lag_ms: 20_000, ..CleanerConfig::default() };
        assert_eq!(log.cleanable(&young).unwrap().dirty_bytes, 0);
        tokio::time::sleep(Duration::from_secs(11)).await;
        let cleanable = log.cleanable(&young).unwrap();
        assert!(cleanable.dirty_bytes > 0 && cleanable.overdue_ms == 0 && !cleanable.is_due(1.0));
        tokio::time::sleep(Duration::from_secs(11)).await;
        assert!(log.cleanable(&young).unwrap().is_due(1.0), "max.compaction.lag.ms is past");
        // It seals the active segment, too.
        put(&log, "a", Some("3"));
        log.set_config(LogConfig { max_compaction_lag_ms: 20_000, ..compacted(10_000) });
        assert!(!log.roll(false).unwrap());
        tokio::time::sleep(Duration::from_secs(21)).await;
        assert!(log.roll(false).unwrap());
        process.stop().await;
    });
}
