//! Recent transactions in memory, for providers that emulate watches in their process.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::{StoreError, StoreEvent};

/// Bytes of keys and values kept, and so how far a watcher may lag behind.
const KEPT_BYTES_MAX: usize = 8 << 20;
/// Transactions kept.
const KEPT_EVENTS_MAX: usize = 16_384;

#[derive(Debug)]
struct Kept {
    events: VecDeque<StoreEvent>,
    bytes: usize,
    /// Every transaction after this revision is in `events`.
    compacted: u64,
}

/// The newest transactions of a store, bounded.
#[derive(Debug)]
pub(crate) struct EventLog {
    kept: Mutex<Kept>,
    head: watch::Sender<u64>,
}

impl EventLog {
    /// An empty log of a store at `revision`.
    pub(crate) fn new(revision: u64) -> Arc<Self> {
        let kept = Kept { events: VecDeque::new(), bytes: 0, compacted: revision };
        Arc::new(Self { kept: Mutex::new(kept), head: watch::Sender::new(revision) })
    }

    /// The store's revision: that of the newest transaction.
    pub(crate) fn revision(&self) -> u64 {
        *self.head.borrow()
    }

    /// Adds transactions, which must come in order.
    pub(crate) fn append(&self, events: impl IntoIterator<Item = StoreEvent>) {
        let mut kept = self.kept.lock();
        let mut head = None;
        for event in events {
            debug_assert!(kept.events.back().is_none_or(|last| last.revision < event.revision), "events come in order (I46)");
            head = Some(event.revision);
            kept.bytes += size_bytes(&event);
            kept.events.push_back(event);
        }
        while kept.bytes > KEPT_BYTES_MAX || kept.events.len() > KEPT_EVENTS_MAX {
            let Some(oldest) = kept.events.pop_front() else { break };
            kept.bytes -= size_bytes(&oldest);
            kept.compacted = oldest.revision;
        }
        drop(kept);
        if let Some(head) = head {
            self.head.send_replace(head);
        }
    }

    /// Everything after `revision`, now and later.
    pub(crate) fn watch(self: &Arc<Self>, revision: u64) -> Result<StoreWatch, StoreError> {
        let watch = StoreWatch { log: self.clone(), head: self.head.subscribe(), seen: revision };
        watch.take()?;
        Ok(watch)
    }
}

fn size_bytes(event: &StoreEvent) -> usize {
    64 + event.rows.iter().map(|(key, value)| 64 + key.len() + value.as_ref().map_or(0, bytes::Bytes::len)).sum::<usize>()
}

/// Follows a store; see the contract of [`super::MetadataStore`].
#[derive(Debug)]
pub struct StoreWatch {
    log: Arc<EventLog>,
    head: watch::Receiver<u64>,
    seen: u64,
}

impl StoreWatch {
    /// The next transactions in order, at least one; waits for it. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Vec<StoreEvent>, StoreError> {
        loop {
            self.head.mark_unchanged();
            let events = self.take()?;
            if let Some(last) = events.last() {
                self.seen = last.revision;
                return Ok(events);
            }
            if self.head.changed().await.is_err() {
                return Err(StoreError::Unavailable("the store is closed".into()));
            }
        }
    }

    fn take(&self) -> Result<Vec<StoreEvent>, StoreError> {
        let kept = self.log.kept.lock();
        if self.seen < kept.compacted {
            return Err(StoreError::Compacted(kept.compacted));
        }
        let first = kept.events.partition_point(|event| event.revision <= self.seen);
        Ok(kept.events.range(first..).take(256).cloned().collect())
    }
}
