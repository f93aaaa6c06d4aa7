//! How a broker presents itself: which data directory it comes with, and what that means for what the directory holds.
//!
//! A broker's data directory is disposable, so there may have been several in turn: a volume on one machine, an empty one on another, the first
//! again. Metadata knows which one registered last, until the broker is unregistered. Unless it is this one, others may have written in between: the
//! directory is marked as returned, durably and before it registers itself, and each partition is compared with the bucket before it is used (I30: see
//! `adopt_remote`).

use std::sync::Arc;
use std::time::Duration;

use siltstone_common::Env;
use siltstone_log::LogManager;
use siltstone_metadata::api::RegisterBroker;
use siltstone_metadata::{MetadataApi, MetadataError};

use crate::error::ReplicaError;

const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Registers the broker with the directory of `logs`; its epoch. Another process's session of the same id is waited for as long as `patience`,
/// as Kafka does: after a restart with another data directory it ends by itself.
///
/// # Errors
/// [`MetadataError::DuplicateBroker`] when `patience` is over, and what else metadata or the directory refuse.
pub async fn register(
    env: &Env,
    metadata: &dyn MetadataApi,
    logs: &Arc<LogManager>,
    broker: RegisterBroker,
    patience: Duration,
) -> Result<i64, ReplicaError> {
    let broker = RegisterBroker { directory: logs.directory_id(), ..broker };
    let deadline = env.clock.monotonic().saturating_add(patience);
    loop {
        note_return(env, metadata, logs, &broker).await?;
        match metadata.register_broker(broker.clone()).await {
            Err(MetadataError::DuplicateBroker) if env.clock.monotonic() < deadline => {
                tracing::warn!(broker = broker.id, "another process has a session as this broker: waiting for its end");
                env.clock.sleep(RETRY_INTERVAL).await;
            }
            registered => return Ok(registered?),
        }
    }
}

async fn note_return(env: &Env, metadata: &dyn MetadataApi, logs: &Arc<LogManager>, broker: &RegisterBroker) -> Result<(), ReplicaError> {
    let image = metadata.image();
    let last = image.brokers.get(&broker.id).map(|known| known.directory);
    if last.is_some_and(|last| last.is_nil() || last == broker.directory) || logs.has_returned() || logs.ids().is_empty() {
        return Ok(());
    }
    tracing::warn!(
        broker = broker.id,
        was_unregistered = last.is_none(),
        "another data directory may have been in this one's place: comparing what is here with the bucket"
    );
    let logs = Arc::clone(logs);
    match env.tasks.blocking(move || logs.set_returned(true)).await {
        Some(result) => result.map_err(|error| ReplicaError::Storage(error.to_string())),
        None => Err(ReplicaError::Storage("marking the data directory failed".to_owned())),
    }
}
