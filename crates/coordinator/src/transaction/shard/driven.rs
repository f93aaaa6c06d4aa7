//! What the driver asks of the shard of a `__transaction_state` partition.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::{Reply, TransactionShard};
use crate::driver::{BATCH_BYTES_TARGET, Now, Shard, Sweep, WaiterId};
use crate::records::wire::WireError;
use crate::state_log::{Replayed, StateLogError, StateWrite};
use crate::transaction::error::TransactionError;
use crate::transaction::markers::{TransactionSetup, write_markers};
use crate::transaction::records;

impl Shard for TransactionShard {
    const COORDINATOR: &'static str = "transaction-coordinator";
    type Setup = TransactionSetup;
    type Reply = Reply;
    type Error = TransactionError;
    /// Whose markers are written; `None` if this coordinator is fenced.
    type Done = Option<Arc<str>>;

    fn open(setup: &TransactionSetup, leader_epoch: i32) -> Self {
        Self::new(setup.config.clone(), leader_epoch)
    }

    fn on_replayed(&mut self, item: &Replayed, _: Now) -> Result<Option<i16>, WireError> {
        match item {
            Replayed::Record(record) => self.replay(record),
            // Nobody writes transactional ids within transactions.
            Replayed::Transactional(..) | Replayed::Marker(..) => Ok(None),
        }
    }

    fn begin(&mut self, _: &TransactionSetup, now: Now) {
        self.on_loaded(now);
    }

    fn len(&self) -> usize {
        self.transactions.len()
    }

    fn sweeps(setup: &TransactionSetup) -> Vec<Sweep<Self>> {
        let config = &setup.config;
        vec![
            Sweep { interval_ms: config.abort_timed_out_interval_ms, run: Self::abort_timed_out },
            Sweep { interval_ms: config.remove_expired_interval_ms, run: Self::expire },
        ]
    }

    fn has_work(&self) -> bool {
        (self.in_flight.is_none() && !self.queue.is_empty()) || !self.markers.is_empty()
    }

    fn next_deadline(&self) -> Option<Duration> {
        self.retries.keys().next().copied()
    }

    fn on_tick(&mut self, now: Now) {
        while self.retries.first_key_value().is_some_and(|(deadline, _)| *deadline <= now.monotonic) {
            let Some((_, due)) = self.retries.pop_first() else { return };
            for transactional_id in due {
                self.complete(&transactional_id, now);
            }
        }
    }

    fn next_batch(&mut self, _: Now) -> Option<StateWrite> {
        if self.in_flight.is_some() || self.queue.is_empty() {
            return None;
        }
        let (mut records, mut writes, mut bytes) = (Vec::new(), Vec::new(), 0);
        while bytes < BATCH_BYTES_TARGET {
            let Some(write) = self.queue.pop_front() else { break };
            let record = records::transaction_record(&write.transactional_id, write.next.as_ref());
            bytes += record.size_bytes();
            records.push(record);
            writes.push(write);
        }
        self.in_flight = Some(writes);
        Some(StateWrite::Records(records))
    }

    fn on_appended(&mut self, result: &Result<(), StateLogError>, now: Now) {
        let result = result.as_ref().copied().map_err(TransactionError::from);
        for write in self.in_flight.take().unwrap_or_default() {
            match result {
                Ok(()) => self.committed(write, now),
                Err(error) => self.failed(write, error, now),
            }
        }
    }

    fn must_reload(&self) -> bool {
        // A change is made once it is committed, never before.
        false
    }

    fn take_jobs(&mut self, setup: &Arc<TransactionSetup>) -> Vec<BoxFuture<'static, Self::Done>> {
        self.take_markers().into_iter().map(|job| write_markers(setup.clone(), job).boxed()).collect()
    }

    fn on_job_done(&mut self, done: Self::Done, now: Now) {
        if let Some(transactional_id) = done {
            self.on_markers_written(&transactional_id, now);
        }
    }

    fn take_replies(&mut self) -> Vec<(WaiterId, Reply)> {
        std::mem::take(&mut self.replies)
    }
}
