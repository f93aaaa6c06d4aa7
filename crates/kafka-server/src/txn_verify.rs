//! The question whether partitions belong to an open transaction, to its coordinator (KIP-890).

use std::time::Duration;

use siltstone_coordinator::{TopicPartition, TransactionError, TransactionVersion, TxnProducer};

use crate::context::Services;

/// `add.partitions.to.txn.retry.backoff.ms` and `.max.ms`: the transaction before may still be ending.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
const RETRIES_MAX: u32 = 5;

/// Asks whether `partitions` belong to the transaction, or adds them to it for clients of version 2: an answer for each, in their order.
pub(crate) async fn verify(
    services: &Services,
    version: TransactionVersion,
    who: TxnProducer,
    partitions: Vec<TopicPartition>,
) -> Vec<Result<(), TransactionError>> {
    let count = partitions.len();
    if version == TransactionVersion::V1 {
        if !services.broker_setting("transaction.partition.verification.enable").unwrap_or(true) {
            return vec![Ok(()); count];
        }
        let verified = services.transactions.verify_partitions(&who, &partitions);
        return verified.unwrap_or_else(|error| vec![Err(error); count]);
    }
    let mut retries = 0;
    loop {
        match services.transactions.add_partitions(who.clone(), partitions.clone(), TransactionVersion::V2).await {
            Err(TransactionError::ConcurrentTransactions) if retries < RETRIES_MAX => {
                retries += 1;
                services.env.clock.sleep(RETRY_PAUSE).await;
            }
            result => return vec![result; count],
        }
    }
}
