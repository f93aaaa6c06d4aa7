//! The tail cache: the newest batches of each partition, in memory, as they were appended.
//!
//! Batches that are not in a segment file yet stay in any case; the others go, oldest first over all partitions, once the
//! cache holds more than its budget.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::partition::PartitionLog;
use crate::shared::Shared;
use crate::wal::Pending;

/// The batches of one append.
#[derive(Clone, Debug)]
pub(crate) struct Chunk {
    /// First offset.
    pub(crate) base_offset: i64,
    /// Offset after the last.
    pub(crate) end_offset: i64,
    /// Where they lie in their segment.
    pub(crate) position: u64,
    /// One or more whole batches.
    pub(crate) bytes: Bytes,
}

/// The chunks of one partition, in offset order.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    chunks: VecDeque<Chunk>,
}

impl Tail {
    /// Adds the newest chunk.
    pub(crate) fn push(&mut self, chunk: Chunk) {
        debug_assert!(self.chunks.back().is_none_or(|last| last.end_offset <= chunk.base_offset), "I7");
        self.chunks.push_back(chunk);
    }

    /// First offset held.
    pub(crate) fn start(&self) -> Option<i64> {
        self.chunks.front().map(|chunk| chunk.base_offset)
    }

    /// The chunks from the one that holds `offset`, or the first one behind it.
    pub(crate) fn from(&self, offset: i64) -> impl Iterator<Item = &Chunk> {
        let at = self.chunks.partition_point(|chunk| chunk.end_offset <= offset);
        self.chunks.range(at..)
    }

    /// Drops chunks from the front that end at or below both offsets. False if one that ends at or below `through` had to stay.
    pub(crate) fn evict(&mut self, through: i64, written_end: i64) -> bool {
        let limit = through.min(written_end);
        while self.chunks.pop_front_if(|chunk| chunk.end_offset <= limit).is_some() {}
        // A long-idle partition keeps no room for what it once held.
        if self.chunks.is_empty() && self.chunks.capacity() > 32 {
            self.chunks = VecDeque::new();
        }
        self.chunks.front().is_none_or(|chunk| chunk.end_offset > through)
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.chunks.clear();
    }
}

#[derive(Debug)]
struct Cached {
    log: Weak<PartitionLog>,
    end_offset: i64,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Order {
    queue: VecDeque<Cached>,
    bytes: usize,
}

/// The order in which chunks were added over all partitions, and the budget.
#[derive(Debug)]
pub(crate) struct TailCache {
    bytes_max: usize,
    order: Mutex<Order>,
}

impl TailCache {
    /// A cache of `bytes_max` for all partitions.
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self { bytes_max: usize::try_from(bytes_max).unwrap_or(usize::MAX), order: Mutex::default() }
    }

    /// Notes what the WAL has written.
    pub(crate) fn add(&self, written: &[Pending]) {
        let mut order = self.order.lock();
        for pending in written {
            order.push(&pending.log, pending.end_offset, pending.bytes.len());
        }
    }

    /// Notes one chunk.
    pub(crate) fn add_one(&self, log: &Arc<PartitionLog>, end_offset: i64, bytes: usize) {
        self.order.lock().push(log, end_offset, bytes);
    }

    /// Drops the oldest chunks until the budget is kept; asks for a flush of the partition whose chunk can't go yet.
    pub(crate) fn evict(&self, shared: &Shared) {
        loop {
            let oldest = {
                let mut order = self.order.lock();
                if order.bytes <= self.bytes_max {
                    return;
                }
                let Some(oldest) = order.queue.pop_front() else {
                    return;
                };
                order.bytes -= oldest.bytes;
                oldest
            };
            let Some(log) = oldest.log.upgrade() else {
                continue;
            };
            if !log.evict_tail(oldest.end_offset) {
                let mut order = self.order.lock();
                order.bytes += oldest.bytes;
                order.queue.push_front(oldest);
                drop(order);
                shared.flusher.request(&log);
                return;
            }
        }
    }
}

impl Order {
    fn push(&mut self, log: &Arc<PartitionLog>, end_offset: i64, bytes: usize) {
        self.bytes += bytes;
        self.queue.push_back(Cached { log: Arc::downgrade(log), end_offset, bytes });
    }
}
