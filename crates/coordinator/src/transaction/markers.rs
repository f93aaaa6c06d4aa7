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
