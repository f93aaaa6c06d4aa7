//! What a log must look like, kept in the simplest way: a list of batches per partition, and what was promised of it.

use bytes::{Bytes, BytesMut};
use siltstone_common::entropy::{Entropy, SmallEntropy};
use siltstone_common::{Env, TopicId, TopicIdPartition};
use siltstone_log::batch::{BatchHeader, Compression, batches, stamp, verify_crc};
use siltstone_log::epochs::{EpochEntry, LeaderEpochCache};
use siltstone_log::producers::{AbortedTxn, EndTxnMarker, ProducerStates};
use siltstone_log::records::BatchBuilder;
use siltstone_log::{AppendOrigin, LogConfig, LogManager, LogSlice, PartitionLog};

/// What the checksum does not cover (offset, epoch) lies before it.
const CRC_AT: usize = 17;
const IDEMPOTENT: [i64; 2] = [100, 101];
const TRANSACTIONAL: [i64; 2] = [200, 201];

/// How a process ended.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    PowerLoss,
    Kill,
    Clean,
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Prints what happens when a single seed is run.
pub fn trace(what: impl FnOnce() -> String) {
    if std::env::var_os("SILTSTONE_CRASH_SEED").is_some() {
        eprintln!("{}", what());
    }
}

/// A number in `0..bound`.
pub fn below(rng: &SmallEntropy, bound: u64) -> u64 {
    rng.below(bound)
}

pub fn one_in(rng: &SmallEntropy, n: u64) -> bool {
    rng.below(n) == 0
}

fn between(rng: &SmallEntropy, low: i64, high: i64) -> i64 {
    low + rng.below((high - low).max(0).cast_unsigned() + 1).cast_signed()
}

#[derive(Clone, Debug)]
struct Stored {
    header: BatchHeader,
    bytes: Bytes,
}

/// One partition's log as it must be.
#[derive(Debug)]
pub struct Partition {
    pub(super) id: TopicIdPartition,
    config: LogConfig,
    batches: Vec<Stored>,
    /// Offsets below survive a power loss.
    safe_end: i64,
    /// Offsets below survive a kill.
    acked_end: i64,
    /// Promised, and asked for without an answer.
    log_start: i64,
    log_start_tried: i64,
    /// A truncation that got no answer.
    truncation_tried: Option<i64>,
    deletion: Deletion,
    epoch: i32,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Deletion {
    No,
    Tried,
    Done,
}

/// What replaying batches gives.
struct Replay {
    producers: ProducerStates,
    epochs: LeaderEpochCache,
    aborted: Vec<AbortedTxn>,
}

impl Partition {
    pub fn new(rng: &SmallEntropy, index: usize) -> Self {
        let config = LogConfig {
            segment_bytes: 4_000 + rng.below(20_000),
            segment_ms: if one_in(rng, 3) { 500 } else { i64::MAX },
            index_interval_bytes: 512,
            flush_messages: if one_in(rng, 3) { 1 + rng.below(20).cast_signed() } else { 1 },
            flush_ms: if one_in(rng, 2) { 100 } else { i64::MAX },
            ..LogConfig::default()
        };
        Self {
            id: TopicIdPartition::new(TopicId(rng.uuid()), i32::try_from(index).unwrap()),
            config,
            batches: Vec::new(),
            safe_end: 0,
            acked_end: 0,
            log_start: 0,
            log_start_tried: 0,
            truncation_tried: None,
            deletion: Deletion::No,
            epoch: 0,
        }
    }

    pub fn id(&self) -> TopicIdPartition {
        self.id
    }

    pub fn config(&self) -> LogConfig {
        self.config.clone()
    }

    fn end(&self) -> i64 {
        self.batches.last().map_or(0, |last| last.header.next_offset())
    }

    fn replay(&self, end: i64) -> Replay {
        let mut replay = Replay { producers: ProducerStates::default(), epochs: LeaderEpochCache::default(), aborted: Vec::new() };
        for stored in self.batches.iter().filter(|stored| stored.header.base_offset < end) {
            let marker = EndTxnMarker::from_batch(&stored.header, &stored.bytes);
            replay.aborted.extend(replay.producers.appended(&stored.header, marker));
            replay.epochs.assign(stored.header.partition_leader_epoch, stored.header.base_offset);
        }
        replay
    }

    /// The bytes of the batches in `[from, to)`.
    fn bytes(&self, from: i64, to: i64) -> Vec<u8> {
        let inside = |stored: &&Stored| stored.header.last_offset() >= from && stored.header.base_offset < to;
        self.batches.iter().filter(inside).flat_map(|stored| stored.bytes.iter().copied()).collect()
    }

    /// What a failed comparison shows.
    fn difference(&self, found: &[u8], from: i64, to: i64) -> String {
        let line = |(header, bytes): (BatchHeader, &[u8])| {
            let BatchHeader { base_offset, partition_leader_epoch, producer_id, crc, .. } = header;
            format!(
                "{base_offset}+{} epoch {partition_leader_epoch} pid {producer_id} crc {crc:x} len {}",
                header.record_count,
                bytes.len()
            )
        };
        let lines = |bytes: &[u8]| batches(bytes).map(|batch| batch.map_or_else(|error| error.to_string(), line)).collect::<Vec<_>>();
        let (found, wanted) = (lines(found), lines(&self.bytes(from, to)));
        let at = found.iter().zip(&wanted).take_while(|(found, wanted)| found == wanted).count();
        format!("at batch {at} {:?} instead of {:?}", found.get(at..found.len().min(at + 3)), wanted.get(at..wanted.len().min(at + 3)))
    }

    fn cut(&mut self, end: i64) {
        self.batches.retain(|stored| stored.header.last_offset() < end);
        self.acked_end = self.acked_end.min(self.end());
        self.safe_end = self.safe_end.min(self.end());
    }

    /// Its deletion is done, so it is to be replaced.
    pub fn is_deleted(&self) -> bool {
        self.deletion == Deletion::Done
    }

    /// After a start: true if it was deleted, which it must be if that was promised.
    pub fn is_gone(&self, known: &[TopicIdPartition]) -> bool {
        let there = known.contains(&self.id);
        assert!(!there || self.deletion != Deletion::Done, "a deleted partition is back");
        self.deletion != Deletion::No && !there
    }

    /// Takes note of what the log promises now.
    pub fn observe(&mut self, manager: &LogManager) {
        let Some(log) = manager.get(self.id) else {
            return;
        };
        let offsets = log.offsets();
        assert!(offsets.log_start <= offsets.last_stable && offsets.last_stable <= offsets.high_watermark, "I1: {offsets:?}");
        assert!(offsets.high_watermark <= offsets.log_end && offsets.ack_end <= offsets.log_end, "I1: {offsets:?}");
        self.acked_end = self.acked_end.max(offsets.ack_end);
        if self.config.flush_messages == 1 {
            self.safe_end = self.safe_end.max(offsets.ack_end);
        }
    }

    /// What the end of the process leaves of the promises.
    pub fn ended(&mut self, ending: Ending) {
        match ending {
            Ending::PowerLoss => {}
            Ending::Kill => self.safe_end = self.acked_end,
            Ending::Clean => {
                self.safe_end = self.end();
                self.acked_end = self.end();
            }
        }
    }
}

fn read_range(log: &PartitionLog, from: i64, to: i64) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let (mut at, mut bytes) = (from, Vec::new());
    while at < to {
        let read = log.read(at, 3_000, true, to)?;
        assert!(read.next_offset > at, "a read brings nothing at {at} of {to}");
        for slice in &read.slices {
            bytes.extend(slice_bytes(slice)?);
        }
        at = read.next_offset;
    }
    Ok(bytes)
}

fn slice_bytes(slice: &LogSlice) -> std::io::Result<Vec<u8>> {
    match slice {
        LogSlice::Memory(bytes) => Ok(bytes.to_vec()),
        LogSlice::File { file, position, len } => {
            let mut bytes = vec![0; *len];
            file.read_exact_at(&mut bytes, *position)?;
            Ok(bytes)
        }
    }
}

/// After a start: the log holds all that was promised and nothing that was not written. What was not promised and is gone is forgotten.
pub fn check(partition: &mut Partition, manager: &LogManager, ended: Ending, rng: &SmallEntropy) -> Outcome {
    let log = manager.get_or_create(partition.id, partition.config.clone())?;
    let offsets = log.offsets();
    let promised = match partition.truncation_tried.take() {
        Some(tried) => partition.safe_end.min(tried),
        None => partition.safe_end,
    };
    let context = format!("{:?} after {ended:?}: {offsets:?}, promised {promised}, written {}", partition.id, partition.end());
    assert!(offsets.log_end >= promised, "I3, lost records: {context}");
    assert!(offsets.log_start >= partition.log_start && offsets.log_start <= partition.log_start_tried, "log start: {context}");
    partition.log_start = offsets.log_start;
    partition.log_start_tried = offsets.log_start;
    partition.deletion = Deletion::No;
    let past_the_end = offsets.log_end > partition.end();
    assert!(!past_the_end || offsets.log_end == offsets.log_start, "records that nobody wrote: {context}");
    if past_the_end || offsets.log_end == offsets.log_start && offsets.log_start > 0 {
        // All that was above the log start is lost, as it may be: the log goes on there.
        assert!(promised <= offsets.log_start, "{context}");
        partition.deletion = Deletion::Done;
        manager.delete(partition.id)?;
        return Ok(());
    }
    partition.cut(offsets.log_end);
    assert_eq!(partition.end(), offsets.log_end, "I7, an end within a batch: {context}");
    partition.safe_end = offsets.log_end;
    partition.acked_end = offsets.log_end;

    log.raise_high_watermark(offsets.log_end);
    check_contents(partition, &log, rng)?;
    check_sealed(partition, &log)
}

/// After damage to records: each batch that can be read and has a good checksum is the one that was written.
pub fn check_damaged(partition: &Partition, manager: &LogManager) {
    let Ok(log) = manager.get_or_create(partition.id, partition.config.clone()) else {
        return;
    };
    let offsets = log.offsets();
    let mut at = offsets.local_start;
    while at < offsets.log_end {
        let Ok(read) = log.read(at, 3_000, true, offsets.log_end) else {
            return;
        };
        if read.next_offset <= at {
            return;
        }
        for bytes in read.slices.iter().filter_map(|slice| slice_bytes(slice).ok()) {
            for (header, batch) in batches(&bytes).map_while(Result::ok).filter(|(_, batch)| verify_crc(batch).is_ok()) {
                let same = |stored: &Stored| stored.header.base_offset == header.base_offset && stored.bytes[CRC_AT..] == batch[CRC_AT..];
                assert!(partition.batches.iter().any(same), "I6: {:?} at {}", partition.id, header.base_offset);
            }
        }
        at = read.next_offset;
    }
}

fn check_contents(partition: &Partition, log: &PartitionLog, rng: &SmallEntropy) -> Outcome {
    let offsets = log.offsets();
    let (start, end) = (offsets.local_start, offsets.log_end);
    let first = partition.batches.iter().find(|stored| stored.header.last_offset() >= start);
    let bytes = read_range(log, start, end)?;
    assert!(
        bytes == partition.bytes(start, end),
        "I6: {:?} [{start}, {end}) differs: {}",
        partition.id,
        partition.difference(&bytes, start, end)
    );
    if let Some(first) = first {
        let offset = between(rng, first.header.base_offset.max(start), end - 1);
        let read = log.read(offset, 1, true, end)?;
        let bytes: Vec<u8> = read.slices.iter().map(slice_bytes).collect::<Result<Vec<_>, _>>()?.concat();
        assert!(bytes == partition.bytes(offset, offset + 1), "I6: the batch at {offset}");
    }
    let replay = partition.replay(end);
    assert_eq!(log.producers(), replay.producers.list(), "I17: {:?}", partition.id);
    assert_eq!(offsets.last_stable, replay.producers.first_undecided_offset().unwrap_or(end).max(offsets.log_start), "I5");
    let aborted: Vec<_> = replay.aborted.into_iter().filter(|txn| txn.last_offset >= start).collect();
    let mut found = log.aborted_transactions(start, end)?;
    found.sort_by_key(|txn| txn.last_offset);
    assert_eq!(found, aborted, "I19: {:?}", partition.id);
    let known = LeaderEpochCache::from_entries(log.leader_epochs());
    for offset in start..end {
        assert_eq!(known.epoch_for_offset(offset), replay.epochs.epoch_for_offset(offset), "I16: {:?} at {offset}", partition.id);
    }
    Ok(())
}

/// I22: what would be uploaded is what was written, with the state that belongs to it.
fn check_sealed(partition: &Partition, log: &PartitionLog) -> Outcome {
    for sealed in log.uploadable(0, usize::MAX)? {
        let end = sealed.last_offset + 1;
        let mut bytes = vec![0; usize::try_from(sealed.size_bytes)?];
        sealed.file.read_exact_at(&mut bytes, 0)?;
        assert!(bytes == partition.bytes(sealed.base_offset, end), "sealed segment {} of {:?}", sealed.base_offset, partition.id);
        let replay = partition.replay(end);
        assert_eq!(sealed.producer_snapshot, replay.producers.snapshot(end), "I17: snapshot at {end} of {:?}", partition.id);
        // Epochs are cut off below the log start.
        let from = sealed.base_offset.max(log.offsets().log_start);
        let slice = |epochs: &LeaderEpochCache| -> Vec<EpochEntry> { epochs.slice(from, sealed.last_offset) };
        assert_eq!(slice(&LeaderEpochCache::from_entries(sealed.leader_epochs)), slice(&replay.epochs), "I16");
        assert_eq!(sealed.index.first().map(|entry| entry.position), Some(0));
        let aborted: Vec<_> = replay.aborted.into_iter().filter(|txn| txn.last_offset >= sealed.base_offset).collect();
        assert!(aborted.iter().all(|txn| sealed.aborted.contains(txn)), "I19: {:?}", partition.id);
    }
    Ok(())
}

/// One random operation. An error is one of the log's own.
pub fn step(partition: &mut Partition, manager: &LogManager, env: &Env, rng: &SmallEntropy) -> Outcome {
    let log = manager.get_or_create(partition.id, partition.config.clone())?;
    let offsets = log.offsets();
    match rng.below(32) {
        0..=17 => (0..=rng.below(4)).try_for_each(|_| append(partition, &log, env, rng)),
        18 | 19 => retry(partition, &log, rng),
        20 | 21 => {
            let offset = between(rng, offsets.high_watermark, offsets.ack_end);
            log.raise_high_watermark(offset);
            Ok(())
        }
        22 => {
            partition.epoch += 1;
            log.begin_leader_epoch(partition.epoch);
            Ok(())
        }
        23 => {
            let force = one_in(rng, 2);
            let end = partition.end();
            trace(|| format!("{:?} roll force {force} at {end}", partition.id.partition));
            if log.roll(force)? {
                partition.safe_end = partition.safe_end.max(end);
                partition.acked_end = partition.acked_end.max(end);
            }
            Ok(())
        }
        24 => {
            let offset = between(rng, offsets.log_start, offsets.high_watermark);
            partition.log_start_tried = partition.log_start_tried.max(offset);
            trace(|| format!("{:?} raise log start to {offset}", partition.id.partition));
            log.raise_log_start(offset)?;
            partition.log_start = partition.log_start.max(offset);
            Ok(())
        }
        25 => {
            let offset = between(rng, offsets.local_start, offsets.high_watermark);
            trace(|| format!("{:?} delete local below {offset} of {offsets:?}", partition.id.partition));
            log.delete_local_below(offset)?;
            Ok(())
        }
        26 => {
            let offset = between(rng, offsets.high_watermark.max(offsets.local_start), offsets.log_end);
            // A batch that straddles the offset goes as a whole.
            let kept = partition.batches.iter().take_while(|stored| stored.header.last_offset() < offset).last();
            partition.truncation_tried = Some(kept.map_or(0, |stored| stored.header.next_offset()));
            trace(|| format!("{:?} truncate to {offset} of {offsets:?}", partition.id.partition));
            log.truncate_to(offset)?;
            partition.truncation_tried = None;
            partition.cut(offset);
            assert_eq!(log.offsets().log_end, partition.end(), "truncation to {offset}");
            Ok(())
        }
        27 if one_in(rng, 3) => {
            partition.deletion = Deletion::Tried;
            trace(|| format!("{:?} delete", partition.id.partition));
            manager.delete(partition.id)?;
            partition.deletion = Deletion::Done;
            Ok(())
        }
        _ => check_contents_while_running(partition, &log, rng),
    }
}

fn check_contents_while_running(partition: &Partition, log: &PartitionLog, rng: &SmallEntropy) -> Outcome {
    let offsets = log.offsets();
    let from = between(rng, offsets.local_start, offsets.log_end);
    let bytes = read_range(log, from, offsets.log_end)?;
    assert!(bytes == partition.bytes(from, offsets.log_end), "I6: {:?} from {from}", partition.id);
    if let Some(read) = log.read_at_once(from, 2_000, true, offsets.log_end)? {
        let bytes: Vec<u8> = read.slices.iter().map(slice_bytes).collect::<Result<Vec<_>, _>>()?.concat();
        assert!(bytes == partition.bytes(from, read.next_offset), "I6: tail of {:?} from {from}", partition.id);
    }
    Ok(())
}

fn append(partition: &mut Partition, log: &PartitionLog, env: &Env, rng: &SmallEntropy) -> Outcome {
    let state = partition.replay(i64::MAX).producers;
    let now_ms = env.clock.now_ms();
    let open = state.list().into_iter().find(|info| info.current_txn_start_offset.is_some());
    let (batch, origin) = match (rng.below(8), open) {
        (0..=2, Some(info)) => {
            let marker = EndTxnMarker { commit: one_in(rng, 2), coordinator_epoch: 1 };
            (marker.to_batch(info.producer_id, info.producer_epoch, now_ms), AppendOrigin::Marker { transaction_version: 0 })
        }
        (kind, _) => {
            let batch = data_batch(kind, &state, now_ms, rng);
            let header = BatchHeader::parse(&batch).unwrap();
            let guard = if header.is_transactional() {
                log.begin_verification((header.producer_id, header.producer_epoch), header.base_sequence, false)
            } else {
                None
            };
            (batch, guard.map_or(AppendOrigin::Client, AppendOrigin::VerifiedClient))
        }
    };
    let info = log.append_as_leader(batch.clone(), partition.epoch, origin)?;
    assert!(!info.duplicate && info.first_offset == partition.end(), "I7: {info:?}, expected {}", partition.end());
    store(partition, batch, info.first_offset);
    trace(|| format!("{:?} append {:?}", partition.id.partition, partition.batches.last().map(|stored| stored.header)));
    assert_eq!(info.last_offset + 1, partition.end());
    Ok(())
}

fn store(partition: &mut Partition, mut batch: BytesMut, first_offset: i64) {
    stamp(&mut batch, first_offset, partition.epoch);
    let header = BatchHeader::parse(&batch).unwrap();
    partition.batches.push(Stored { header, bytes: batch.freeze() });
}

fn data_batch(kind: u64, state: &ProducerStates, now_ms: i64, rng: &SmallEntropy) -> BytesMut {
    let producer = match kind {
        0..=3 => None,
        4 | 5 => Some((IDEMPOTENT[rng.below(2) as usize], false)),
        _ => Some((TRANSACTIONAL[rng.below(2) as usize], true)),
    };
    let codec = [Compression::None, Compression::None, Compression::Lz4, Compression::Zstd][rng.below(4) as usize];
    let mut builder = BatchBuilder::new(codec);
    if let Some((producer_id, transactional)) = producer {
        let known = state.list().into_iter().find(|info| info.producer_id == producer_id);
        let bump = known.is_some_and(|info| info.current_txn_start_offset.is_none()) && one_in(rng, 10);
        let (epoch, sequence) = known.map_or((0, 0), |info| (info.producer_epoch, info.last_sequence + 1));
        let (epoch, sequence) = if bump { (epoch + 1, 0) } else { (epoch, sequence) };
        builder = builder.producer(producer_id, epoch, sequence, transactional);
    }
    for _ in 0..=rng.below(4) {
        let value = vec![rng.below(256) as u8; rng.below(900) as usize];
        builder.record(now_ms - rng.below(1000).cast_signed(), Some(b"key"), Some(&value), &[]);
    }
    builder.build()
}

/// I18: a batch that is there is answered with its offsets, as long as it is among the last five of its producer and epoch.
fn retry(partition: &Partition, log: &PartitionLog, rng: &SmallEntropy) -> Outcome {
    let producer_id = IDEMPOTENT[rng.below(2) as usize];
    let Some(info) = partition.replay(i64::MAX).producers.list().into_iter().find(|info| info.producer_id == producer_id) else {
        return Ok(());
    };
    let of_epoch = |stored: &&Stored| (stored.header.producer_id, stored.header.producer_epoch) == (producer_id, info.producer_epoch);
    let last: Vec<_> = partition.batches.iter().rev().filter(of_epoch).take(5).collect();
    let Some(stored) = last.get(rng.below(last.len() as u64) as usize) else {
        return Ok(());
    };
    let mut again = BytesMut::from(&stored.bytes[..]);
    stamp(&mut again, 0, -1);
    let answer = log.append_as_leader(again, partition.epoch, AppendOrigin::Client)?;
    assert!(answer.duplicate, "I8: a retry was appended");
    assert_eq!((answer.first_offset, answer.last_offset), (stored.header.base_offset, stored.header.last_offset()), "I18");
    assert_eq!(batches(&stored.bytes).count(), 1);
    Ok(())
}
