//! The write-ahead log that all partitions of a data directory share.
//!
//! # Overview
//! Appenders put their batches into a queue ([`Wal::enqueue`], under the partition's append lock, so that a partition's entries
//! are queued in offset order). One loop ([`commit::run`]) drains what queued up while it was busy with the last commit,
//! writes it with one direct write into a preallocated, recycled file, syncs once if any of the partitions needs it, and
//! then moves the `ack_end` of each. Whom the last commit acknowledged is expected back: for a moment the loop waits for as many
//! entries as that one had and found queued behind it, so that producers that send side by side share a sync; one that is alone never waits. A file is free again once the segment files hold, synced, all that its entries
//! carry and the manifest says so ([`Wal::trim`]).
//!
//! # Invariants
//! - Sequences increase by one over all entries ever queued; a file's generation is higher than that of any file used before it.
//!   So bytes left over in a recycled file are never taken for entries.
//! - The file before is synced before the first entry of the next one is written: only the newest file can have a torn end.
//! - I38: after a failed sync nothing is retried, whatever its error; the directory goes offline.
//! - The queue is bounded: [`Wal::has_room`] tells appenders to wait.
//!
//! # Crash consistency
//! kill -9 loses what is queued and not written, which nobody was told of (producers with acks=1 wait, too). Power loss also loses what is written and not synced,
//! which only partitions with `flush.messages` above 1 were told of. See `replay` for how a torn end is told from corruption.

pub(crate) mod commit;
pub(crate) mod entry;
pub(crate) mod files;
pub(crate) mod replay;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use siltstone_common::bell::Bell;
use tokio::sync::Notify;

use crate::partition::PartitionLog;
use crate::shared::Health;
use files::WalFiles;

/// Bytes worth a commit, however many more are expected.
const GROUP_BYTES: usize = 1 << 20;
/// Queued bytes beyond which appends are refused.
const QUEUE_BYTES_MAX: usize = 256 << 20;
/// Queued bytes beyond which [`Wal::room`] waits.
const QUEUE_BYTES_BUSY: usize = QUEUE_BYTES_MAX / 4;

/// Batches on their way to the disk.
#[derive(Debug)]
pub(crate) struct Pending {
    /// Whose.
    pub(crate) log: Arc<PartitionLog>,
    /// The log's incarnation when they were appended: if it changed since, they were truncated away.
    pub(crate) incarnation: u64,
    /// The batches, shared with the tail cache.
    pub(crate) bytes: Bytes,
    /// Offset after the last one.
    pub(crate) end_offset: i64,
    /// Given by [`Wal::enqueue`].
    pub(crate) sequence: u64,
    /// True if the acknowledgement waits for the sync (`flush.messages` = 1), false if it only waits for the write.
    pub(crate) ack_after_sync: bool,
    /// Monotonic time by which it has to be synced, if ever.
    pub(crate) sync_by: Option<Duration>,
}

#[derive(Debug)]
struct Queue {
    entries: Vec<Pending>,
    bytes: usize,
    next_sequence: u64,
    /// How many entries make it worth waking the loop.
    awaited: usize,
}

impl Queue {
    fn is_due(&self) -> bool {
        self.entries.len() >= self.awaited || self.bytes >= GROUP_BYTES
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Wal {
    queue: Mutex<Queue>,
    work: Bell,
    room: Notify,
    closing: AtomicBool,
    /// The files waiting for segments are far more than they should be: appends have to wait for the disk.
    overfull: AtomicBool,
    pub(crate) files: Mutex<WalFiles>,
}

impl Wal {
    /// A WAL whose next entry gets `next_sequence`, and whose loop waits for `work`.
    pub(crate) fn new(next_sequence: u64, files: WalFiles, work: Bell) -> Self {
        Self {
            queue: Mutex::new(Queue { entries: Vec::new(), bytes: 0, next_sequence, awaited: 1 }),
            work,
            room: Notify::new(),
            closing: AtomicBool::new(false),
            overfull: AtomicBool::new(false),
            files: Mutex::new(files),
        }
    }

    /// Queues an entry and gives it its sequence.
    pub(crate) fn enqueue(&self, mut pending: Pending) -> u64 {
        let mut queue = self.queue.lock();
        let sequence = queue.next_sequence;
        pending.sequence = sequence;
        queue.next_sequence += 1;
        // Before this entry's bytes count: one that is due by itself must wake the loop.
        let was_due = queue.is_due();
        queue.bytes += pending.bytes.len();
        queue.entries.push(pending);
        let is_due = queue.is_due();
        drop(queue);
        if is_due && !was_due {
            self.work.ring();
        }
        sequence
    }

    /// The sequence that the next entry will get.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.queue.lock().next_sequence
    }

    /// False if so much is queued, or waits for segment files, that appends have to be refused.
    pub(crate) fn has_room(&self) -> bool {
        !self.overfull.load(Ordering::Relaxed) && self.queue.lock().bytes < QUEUE_BYTES_MAX
    }

    /// Looks whether the files are more than twice what should wait for segments.
    pub(crate) fn check_overfull(&self, wal_bytes_max: u64) {
        let overfull = self.files.lock().live_bytes() > 2 * wal_bytes_max;
        if self.overfull.swap(overfull, Ordering::Relaxed) && !overfull {
            self.room.notify_waiters();
        }
    }

    /// Completes when the queue is short enough for more appends, or none is taken anyway: the append then says why.
    pub(crate) async fn room(&self, health: &Health) {
        loop {
            let waiting = self.room.notified();
            tokio::pin!(waiting);
            waiting.as_mut().enable();
            let has_room = !self.overfull.load(Ordering::Relaxed) && self.queue.lock().bytes < QUEUE_BYTES_BUSY;
            if has_room || health.check().is_err() {
                return;
            }
            waiting.await;
        }
    }

    /// Lets whoever waits for room look again.
    pub(crate) fn wake_waiting(&self) {
        self.room.notify_waiters();
    }

    /// Moves what is queued into `out`, which is empty.
    fn take(&self, out: &mut Vec<Pending>) {
        debug_assert!(out.is_empty());
        let mut queue = self.queue.lock();
        queue.awaited = 1;
        std::mem::swap(&mut queue.entries, out);
    }

    /// Looks whether what is queued is worth a commit: as many entries as are `expected`, or enough bytes. If not, the loop is woken
    /// as soon as it is.
    fn is_due(&self, expected: usize) -> bool {
        let mut queue = self.queue.lock();
        queue.awaited = expected;
        queue.is_due()
    }

    /// Notes that `bytes` of what was taken are done with; how many entries were queued meanwhile.
    fn done(&self, bytes: usize) -> usize {
        let mut queue = self.queue.lock();
        queue.bytes -= bytes;
        let has_room = queue.bytes < QUEUE_BYTES_BUSY;
        let queued = queue.entries.len();
        drop(queue);
        if has_room {
            self.room.notify_waiters();
        }
        queued
    }

    /// Makes the loop write what is queued and end.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.wake_waiting();
        self.work.ring();
    }

    /// Drops what is still queued, for the loop has ended: nobody was told that it is safe.
    fn give_up(&self) {
        self.queue.lock().entries.clear();
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }
}
