//! What must be true of a partition, whatever happens to the broker.

use std::collections::{BTreeMap, BTreeSet};

use bytes::BytesMut;
use siltstone_common::TopicIdPartition;
use siltstone_common::entropy::{Entropy, SmallEntropy};
use siltstone_log::batch::Compression;
use siltstone_log::records::BatchBuilder;
use siltstone_log::{AppendError, AppendInfo};
use siltstone_replica::ReplicaError;

/// A number below `bound`.
pub fn below(rng: &SmallEntropy, bound: u64) -> u64 {
    rng.below(bound)
}

/// True once in `times`.
pub fn one_in(rng: &SmallEntropy, times: u64) -> bool {
    rng.below(times) == 0
}

/// A batch that was sent; its values are nowhere else.
#[derive(Clone, Debug)]
pub struct Sent {
    pub values: Vec<Vec<u8>>,
    pub timestamp_ms: i64,
    /// Producer id and sequence, if idempotent.
    pub producer: Option<(i64, i32)>,
}

impl Sent {
    pub fn bytes(&self) -> BytesMut {
        let mut builder = BatchBuilder::new(Compression::None);
        if let Some((producer_id, sequence)) = self.producer {
            builder = builder.producer(producer_id, 0, sequence, false);
        }
        for value in &self.values {
            builder.record(self.timestamp_ms, None, Some(value), &[]);
        }
        builder.build()
    }
}

/// An idempotent producer: it sends a batch again until it knows what became of it.
#[derive(Debug)]
pub struct Producer {
    pub id: i64,
    pub sequence: i32,
    pub unknown: Option<Sent>,
}

/// A partition and what was promised of it.
#[derive(Debug)]
pub struct Part {
    pub id: TopicIdPartition,
    pub retention_bytes: i64,
    /// Acknowledged or seen, by offset: they stay (I3, I6).
    pub records: BTreeMap<i64, Vec<u8>>,
    /// Bytes of the batch that begins at an offset.
    pub batch_bytes: BTreeMap<i64, u64>,
    /// Sent without an answer: each may be there, once.
    pub maybe: BTreeSet<Vec<u8>>,
    pub producer: Producer,
    /// Highest log start that was seen: it never goes back.
    pub log_start: i64,
    /// Where DeleteRecords, answered or not, may have put it.
    pub deleted_to: i64,
    /// Everything below was promised to stay, but for what a lost disk took.
    pub acked_end: i64,
    /// Highest end of the committed remote range.
    pub remote_end: i64,
}

impl Part {
    pub fn new(id: TopicIdPartition, retention_bytes: i64, producer_id: i64) -> Self {
        Self {
            id,
            retention_bytes,
            records: BTreeMap::new(),
            batch_bytes: BTreeMap::new(),
            maybe: BTreeSet::new(),
            producer: Producer { id: producer_id, sequence: 0, unknown: None },
            log_start: 0,
            deleted_to: 0,
            acked_end: 0,
            remote_end: 0,
        }
    }

    /// The next batch to send: the unanswered one again, or a new one.
    pub fn next_batch(&mut self, rng: &SmallEntropy, next_value: &mut u64, timestamp_ms: i64) -> Sent {
        if let Some(unknown) = &self.producer.unknown
            && !one_in(rng, 3)
        {
            return unknown.clone();
        }
        let values: Vec<_> = (0..=below(rng, 3))
            .map(|_| {
                *next_value += 1;
                let size = if one_in(rng, 8) { 400 } else { below(rng, 150) as usize };
                format!("{}:{}", *next_value, "v".repeat(size)).into_bytes()
            })
            .collect();
        let idempotent = self.producer.unknown.is_none() && !one_in(rng, 3);
        let producer = idempotent.then_some((self.producer.id, self.producer.sequence));
        Sent { values, timestamp_ms, producer }
    }

    /// Takes the answer to `sent`.
    pub fn answered(&mut self, sent: Sent, result: &Result<AppendInfo, ReplicaError>, next_producer: &mut i64) {
        match result {
            Ok(info) => self.acknowledged(sent, info),
            // Certainly not appended: what came before is gone with the disk, so the producer begins anew.
            Err(ReplicaError::Append(AppendError::OutOfOrderSequence { .. } | AppendError::UnknownProducerId(_))) => {
                self.maybe.extend(self.producer.unknown.take().into_iter().flat_map(|unknown| unknown.values));
                *next_producer += 1;
                self.producer = Producer { id: *next_producer, sequence: 0, unknown: None };
            }
            Err(_) if sent.producer.is_some() => self.producer.unknown = Some(sent),
            Err(_) => self.maybe.extend(sent.values),
        }
    }

    fn acknowledged(&mut self, sent: Sent, info: &AppendInfo) {
        let bytes = sent.bytes().len() as u64;
        let count = sent.values.len() as i64;
        assert_eq!(info.last_offset - info.first_offset + 1, count, "I18: all of the batch");
        if let Some((_, sequence)) = sent.producer {
            self.producer.sequence = sequence + count as i32;
            self.producer.unknown = None;
        }
        self.batch_bytes.insert(info.first_offset, bytes);
        for (offset, value) in (info.first_offset..).zip(sent.values) {
            self.seen(offset, value);
        }
        self.acked_end = self.acked_end.max(info.last_offset + 1);
    }

    /// A record was acknowledged or read at `offset`: it is that for ever (I6).
    pub fn seen(&mut self, offset: i64, value: Vec<u8>) {
        match self.records.get(&offset) {
            Some(known) => assert!(*known == value, "{}: I6: offset {offset} was {:?} and is {:?}", self.id, text(known), text(&value)),
            None => drop(self.records.insert(offset, value)),
        }
    }

    /// True if a record that was never acknowledged may be there.
    pub fn may_hold(&self, value: &Vec<u8>) -> bool {
        self.maybe.contains(value) || self.producer.unknown.as_ref().is_some_and(|unknown| unknown.values.contains(value))
    }

    /// The local disk is gone: what the bucket does not have is lost, and the log goes on at `resume`.
    pub fn lose_disk(&mut self, resume: i64) {
        self.records.split_off(&resume);
        self.batch_bytes.split_off(&resume);
        self.acked_end = self.acked_end.min(resume);
    }

    /// Bytes from `start` on, as far as they are known; at most what is there.
    pub fn known_bytes(&self, start: i64) -> u64 {
        self.batch_bytes.range(start..).map(|(_, bytes)| bytes).sum()
    }
}

/// The start of a value, for messages.
pub fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(&value[..value.len().min(12)]).into_owned()
}
