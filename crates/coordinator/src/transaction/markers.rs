//! Writing the markers of a prepared transaction: again and again, until every partition has its own.

use std::sync::Arc;
use std::time::Duration;

use siltstone_common::Env;
use siltstone_common::retry::Backoff;

use crate::messages::TopicPartition;
use crate::transaction::config::TransactionCoordinatorConfig;
use crate::transaction::ports::{MarkerOutcome, TxnMarker, TxnMarkerLog};

/// First pause after a marker that could not be written; doubles up to [`RETRY_PAUSE_MAX`].
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(50);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);

/// What all partitions of the transaction coordinator share.
pub(crate) struct TransactionSetup {
    pub(crate) config: Arc<TransactionCoordinatorConfig>,
    pub(crate) env: Env,
    pub(crate) markers: Arc<dyn TxnMarkerLog>,
}

/// Markers to be written for a prepared transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MarkersToWrite {
    pub(crate) transactional_id: Arc<str>,
    pub(crate) marker: TxnMarker,
    pub(crate) partitions: Vec<TopicPartition>,
}

/// Writes the markers of one transaction until every partition has its own; `None` if this coordinator is fenced.
pub(crate) async fn write_markers(setup: Arc<TransactionSetup>, job: MarkersToWrite) -> Option<Arc<str>> {
    let MarkersToWrite { transactional_id, marker, mut partitions } = job;
    let env = &setup.env;
    let mut backoff = Backoff::new(RETRY_PAUSE_MIN, RETRY_PAUSE_MAX);
    loop {
        let outcomes = setup.markers.write(marker, &partitions).await;
        debug_assert_eq!(outcomes.len(), partitions.len(), "an outcome per partition");
        if outcomes.contains(&MarkerOutcome::Fenced) {
            tracing::warn!(
                %transactional_id, producer_id = marker.producer.producer_id, epoch = marker.producer.producer_epoch,
                "a newer coordinator or producer has been here: leaving the markers of a transaction to it"
            );
            return None;
        }
        let left = partitions.into_iter().zip(outcomes).filter(|(_, outcome)| *outcome == MarkerOutcome::Retry);
        partitions = left.map(|(id, _)| id).collect::<Vec<TopicPartition>>();
        if partitions.is_empty() {
            return Some(transactional_id);
        }
        tracing::debug!(%transactional_id, left = partitions.len(), "markers could not be written yet, trying again");
        env.clock.sleep(backoff.next_delay(env.entropy.as_ref())).await;
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use parking_lot::Mutex;
    use siltstone_common::fs::SimFs;

    use super::*;
    use crate::transaction::messages::{ProducerIdAndEpoch, TransactionVersion};

    /// Gives its outcomes from the last to the first, and notes what it was asked for.
    struct Scripted(Mutex<(Vec<Vec<MarkerOutcome>>, Vec<Vec<i32>>)>);

    #[async_trait]
    impl TxnMarkerLog for Scripted {
        async fn write(&self, _: TxnMarker, partitions: &[TopicPartition]) -> Vec<MarkerOutcome> {
            let mut script = self.0.lock();
            script.1.push(partitions.iter().map(|id| id.partition).collect());
            script.0.pop().unwrap()
        }
    }

    async fn written(script: Vec<Vec<MarkerOutcome>>) -> (bool, Vec<Vec<i32>>) {
        let log = Arc::new(Scripted(Mutex::new((script, Vec::new()))));
        let env = Env::simulated(1, Arc::new(SimFs::new()));
        let setup = Arc::new(TransactionSetup { config: Arc::default(), env, markers: log.clone() });
        let producer = ProducerIdAndEpoch { producer_id: 1, producer_epoch: 1 };
        let marker = TxnMarker { producer, coordinator_epoch: 0, commit: true, version: TransactionVersion::V2 };
        let partitions = (0..3).map(|partition| TopicPartition { topic: "t".into(), partition }).collect();
        let done = write_markers(setup, MarkersToWrite { transactional_id: "id".into(), marker, partitions }).await;
        let asked = log.0.lock().1.clone();
        (done.is_some(), asked)
    }

    /// I19: a transaction is over once every partition has its marker, not earlier; and it is no longer ours once anybody newer was there.
    #[tokio::test(start_paused = true)]
    async fn i19_markers_are_written_until_every_partition_has_its_own() {
        use MarkerOutcome::{Fenced, Gone, Retry, Written};
        let asked = vec![vec![0, 1, 2], vec![0, 2], vec![2]];
        assert_eq!(written(vec![vec![Written], vec![Gone, Retry], vec![Retry, Written, Retry]]).await, (true, asked));
        assert_eq!(written(vec![vec![Written, Fenced, Retry]]).await, (false, vec![vec![0, 1, 2]]));
    }
}
