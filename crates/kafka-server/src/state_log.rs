//! A coordinator's state log over `__consumer_offsets` or `__transaction_state`: batches in, records out.
//!
//! A replay reads from the log start to the log end, not to the high watermark: what a former leader acknowledged may still lie above the
//! high watermark that this broker knows (I21). The whole partition is read each time until the topic is compacted.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use siltstone_common::{Env, TopicIdPartition};
use siltstone_coordinator::{Replayed, StateLog, StateLogError, StateRecord, StateWrite, TransactionalAppend};
use siltstone_log::batch::{BatchError, Compression, NO_SEQUENCE, batches};
use siltstone_log::producers::{EndTxnMarker, VerificationGuard};
use siltstone_log::records::{BatchBuilder, inflate, records};
use siltstone_log::{AppendError, AppendOrigin, LogSlice};
use siltstone_metadata::{MetadataApi, MetadataError};
use siltstone_replica::{FetchIsolation, FetchParams, FetchPartition, OffsetSpec, ProducePartition, ReplicaError, ReplicaManager};
use tokio::sync::Semaphore;

use crate::txn_markers::marker_batch;

/// Bytes asked for in one read of a replay.
const REPLAY_READ_BYTES: usize = 1024 * 1024;
/// Bytes that one compressed batch may inflate to.
const INFLATED_BATCH_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Partitions that are read at the same time: 50 of them are loaded at start.
const CONCURRENT_REPLAYS: usize = 4;
/// Reads of a replay that may find nothing before it is given up, to be started again.
const EMPTY_READS_MAX: u32 = 20;
const EMPTY_READ_PAUSE: Duration = Duration::from_millis(250);
/// Room for a batch's header and a record's own fields.
const RECORD_OVERHEAD_BYTES: usize = 32;

/// See the module.
pub struct TopicLog {
    topic: &'static str,
    metadata: Arc<dyn MetadataApi>,
    replicas: Arc<ReplicaManager>,
    env: Env,
    commit_timeout: Duration,
    replays: Semaphore,
}

/// Where a replay stands.
struct Replay<'a> {
    log: &'a TopicLog,
    id: TopicIdPartition,
    next_offset: i64,
    end_offset: i64,
}

impl TopicLog {
    /// The log over the partitions of `topic` on this broker; an append fails unless it is committed within `commit_timeout`.
    pub fn new(
        topic: &'static str,
        metadata: Arc<dyn MetadataApi>,
        replicas: Arc<ReplicaManager>,
        env: Env,
        commit_timeout: Duration,
    ) -> Self {
        Self { topic, metadata, replicas, env, commit_timeout, replays: Semaphore::new(CONCURRENT_REPLAYS) }
    }

    /// The partition, and how large its batches may be.
    fn partition(&self, partition: i32) -> Result<(TopicIdPartition, usize), StateLogError> {
        let image = self.metadata.image();
        let topic = image.topic(self.topic).ok_or(StateLogError::UnknownPartition)?;
        let id = TopicIdPartition::new(topic.id, partition);
        image.partition(id).ok_or(StateLogError::UnknownPartition)?;
        let max_message_bytes = topic.configs.get("max.message.bytes").and_then(|value| value.parse().ok());
        Ok((id, max_message_bytes.unwrap_or(1_048_588)))
    }

    async fn append_batch(&self, id: TopicIdPartition, batch: BytesMut, origin: AppendOrigin) -> Result<(), StateLogError> {
        let parts = vec![ProducePartition { id, records: batch, origin }];
        let outcomes = self.replicas.append(-1, self.commit_timeout, parts).await;
        match outcomes.into_iter().next().map(|outcome| outcome.result) {
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(state_log_error(error)),
            None => Err(StateLogError::Storage("the append gave no answer".to_owned())),
        }
    }

    /// Appends records, in as many batches as they need.
    async fn append_records(
        &self,
        partition: i32,
        records: Vec<StateRecord>,
        origin: AppendOrigin,
        builder: impl Fn() -> BatchBuilder + Send,
    ) -> Result<(), StateLogError> {
        let (id, batch_bytes_max) = self.partition(partition)?;
        let now_ms = self.env.clock.now_ms();
        let mut batch = builder();
        let mut origin = origin;
        let mut batch_bytes = 0;
        for record in &records {
            let size = record.size_bytes() + RECORD_OVERHEAD_BYTES;
            if !batch.is_empty() && batch_bytes + size > batch_bytes_max / 2 {
                let full = std::mem::replace(&mut batch, builder());
                self.append_batch(id, full.build(), origin).await?;
                // The first batch has begun the transaction.
                origin = AppendOrigin::Coordinator;
                batch_bytes = 0;
            }
            batch.record(now_ms, Some(&record.key), record.value.as_deref(), &[]);
            batch_bytes += size;
        }
        if batch.is_empty() { Ok(()) } else { self.append_batch(id, batch.build(), origin).await }
    }

    async fn begin_replay(&self, partition: i32) -> Result<Replay<'_>, StateLogError> {
        let (id, _) = self.partition(partition)?;
        let end = self.replicas.list_offset(id, -1, OffsetSpec::Latest, FetchIsolation::LogEnd).await.map_err(state_log_error)?;
        let start = self.replicas.list_offset(id, -1, OffsetSpec::Earliest, FetchIsolation::LogEnd).await.map_err(state_log_error)?;
        Ok(Replay { log: self, id, next_offset: start.offset, end_offset: end.offset })
    }

    /// The bytes of what was read, from memory or file.
    async fn read_slices(&self, slices: Vec<LogSlice>) -> Result<Bytes, StateLogError> {
        let mut whole = BytesMut::new();
        for slice in slices {
            match slice {
                LogSlice::Memory(bytes) => whole.extend_from_slice(&bytes),
                LogSlice::File { file, position, len } => {
                    let read = self.env.tasks.blocking(move || {
                        let mut buf = vec![0; len];
                        file.read_exact_at(&mut buf, position).map(|()| buf)
                    });
                    let read = read.await.unwrap_or_else(|| Err(std::io::Error::other("the read failed")));
                    whole.extend_from_slice(&read.map_err(|error| StateLogError::Storage(error.to_string()))?);
                }
            }
        }
        Ok(whole.freeze())
    }
}

#[async_trait]
impl StateLog for TopicLog {
    async fn append(&self, partition: i32, write: StateWrite) -> Result<(), StateLogError> {
        match write {
            StateWrite::Records(records) => {
                self.append_records(partition, records, AppendOrigin::Coordinator, || BatchBuilder::new(Compression::None)).await
            }
            StateWrite::Transactional(TransactionalAppend { producer, guard, records }) => {
                let guard = guard.map(|guard| AppendOrigin::VerifiedCoordinator(VerificationGuard::from_value(guard.0)));
                let builder =
                    || BatchBuilder::new(Compression::None).producer(producer.producer_id, producer.producer_epoch, NO_SEQUENCE, true);
                self.append_records(partition, records, guard.unwrap_or(AppendOrigin::Coordinator), builder).await
            }
            StateWrite::Marker(marker) => {
                let (id, _) = self.partition(partition)?;
                let origin = AppendOrigin::Marker { transaction_version: marker.version.level() };
                self.append_batch(id, marker_batch(marker, self.env.clock.now_ms()), origin).await
            }
        }
    }

    fn replay(&self, partition: i32) -> BoxStream<'_, Result<Vec<Replayed>, StateLogError>> {
        let pieces = async move {
            let permit = self.replays.acquire().await;
            let begun = self.begin_replay(partition).await;
            stream::try_unfold((begun, permit), |(replay, permit)| async move {
                let mut replay = replay?;
                let piece = replay.next_piece().await?;
                Ok(piece.map(|piece| (piece, (Ok(replay), permit))))
            })
        };
        stream::once(pieces).flatten().boxed()
    }
}

impl Replay<'_> {
    /// The next records; `None` at the end.
    async fn next_piece(&mut self) -> Result<Option<Vec<Replayed>>, StateLogError> {
        for _ in 0..EMPTY_READS_MAX {
            if self.next_offset >= self.end_offset {
                return Ok(None);
            }
            let bytes = self.fetch().await?;
            if !bytes.is_empty() {
                return self.decode(&bytes).map(Some).map_err(|error| StateLogError::Storage(error.to_string()));
            }
            // The bucket did not answer in time; it goes on reading for us.
            self.log.env.clock.sleep(EMPTY_READ_PAUSE).await;
        }
        Err(StateLogError::TimedOut)
    }

    async fn fetch(&self) -> Result<Bytes, StateLogError> {
        let params =
            FetchParams { max_wait: Duration::ZERO, min_bytes: 0, max_bytes: REPLAY_READ_BYTES, isolation: FetchIsolation::LogEnd };
        let part = FetchPartition {
            id: self.id,
            fetch_offset: self.next_offset,
            current_leader_epoch: -1,
            last_fetched_epoch: -1,
            max_bytes: REPLAY_READ_BYTES,
        };
        let fetched = self.log.replicas.fetch(params, vec![part]).await.into_iter().next();
        match fetched {
            Some(fetched) => match fetched.error {
                Some(error) => Err(state_log_error(error)),
                None => self.log.read_slices(fetched.slices).await,
            },
            None => Err(StateLogError::Storage("the read gave no answer".to_owned())),
        }
    }

    fn decode(&mut self, bytes: &[u8]) -> Result<Vec<Replayed>, BatchError> {
        let mut found = Vec::new();
        let first_offset = self.next_offset;
        for item in batches(bytes) {
            let (header, batch) = match item {
                Ok(item) => item,
                // A read may end within a batch: the next one begins with it.
                Err(BatchError::Truncated { .. }) if self.next_offset > first_offset => break,
                Err(error) => return Err(error),
            };
            self.next_offset = header.next_offset();
            if header.is_control() {
                let marker = EndTxnMarker::from_batch(&header, batch).filter(|_| header.base_offset >= first_offset);
                found.extend(marker.map(|marker| Replayed::Marker(header.producer_id, marker.commit)));
                continue;
            }
            let body = inflate(&header, batch, INFLATED_BATCH_BYTES_MAX)?;
            for record in records(&header, &body) {
                let record = record?;
                let Some(key) = record.key else { continue };
                if record.offset >= first_offset {
                    let record = StateRecord { key: Bytes::copy_from_slice(key), value: record.value.map(Bytes::copy_from_slice) };
                    found.push(match header.is_transactional() {
                        true => Replayed::Transactional(header.producer_id, record),
                        false => Replayed::Record(record),
                    });
                }
            }
        }
        Ok(found)
    }
}

/// What a refusal means to the coordinator.
fn state_log_error(error: ReplicaError) -> StateLogError {
    match error {
        ReplicaError::UnknownPartition => StateLogError::UnknownPartition,
        ReplicaError::NotLeader | ReplicaError::FencedLeaderEpoch { .. } | ReplicaError::UnknownLeaderEpoch { .. } => {
            StateLogError::NotLeader
        }
        ReplicaError::NotEnoughReplicas | ReplicaError::NotEnoughReplicasAfterAppend => StateLogError::NotEnoughReplicas,
        ReplicaError::TimedOut => StateLogError::TimedOut,
        ReplicaError::Metadata(MetadataError::Unavailable(_)) => StateLogError::TimedOut,
        ReplicaError::Append(AppendError::InvalidProducerEpoch { .. }) => StateLogError::InvalidProducerEpoch,
        ReplicaError::Append(AppendError::InvalidTxnState(_)) => StateLogError::InvalidTxnState,
        ReplicaError::Append(AppendError::CoordinatorFenced { .. }) => StateLogError::CoordinatorFenced,
        ReplicaError::Append(AppendError::MessageTooLarge { .. } | AppendError::RecordListTooLarge { .. }) => StateLogError::TooLarge,
        other @ (ReplicaError::OffsetOutOfRange { .. }
        | ReplicaError::OffsetNotAvailable
        | ReplicaError::InvalidRequiredAcks
        | ReplicaError::InternalTopic
        | ReplicaError::PolicyViolation(_)
        | ReplicaError::Append(_)
        | ReplicaError::Storage(_)
        | ReplicaError::Metadata(_)) => StateLogError::Storage(other.to_string()),
    }
}
