//! Producing and consuming.

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{BrokerId, FetchRequest, ProduceRequest};
use siltstone_log::batch::{Compression, batches};
use siltstone_log::records::{BatchBuilder, inflate, records};
use uuid::Uuid;

use super::admin::{EARLIEST, LATEST};
use super::{Client, ClientError, check};
use crate::topic_lookup::topic_name;

/// Bytes of one partition in one Fetch.
const FETCH_BYTES: i32 = 8 << 20;
/// A batch that inflates to more is refused.
const INFLATED_BYTES_MAX: usize = 256 << 20;

/// A record to send.
#[derive(Clone, Debug, Default)]
pub struct ProducedRecord {
    /// Key.
    pub key: Option<Bytes>,
    /// Value.
    pub value: Option<Bytes>,
    /// Timestamp, ms.
    pub timestamp_ms: i64,
}

/// A record that was read.
#[derive(Clone, Debug)]
pub struct ConsumedRecord {
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Timestamp, ms.
    pub timestamp_ms: i64,
    /// Key.
    pub key: Option<Vec<u8>>,
    /// Value.
    pub value: Option<Vec<u8>>,
    /// Headers.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// Where a consumption begins.
#[derive(Copy, Clone, Debug)]
pub enum StartAt {
    /// The log start.
    Beginning,
    /// The log end.
    End,
    /// An offset.
    Offset(i64),
    /// The first record at or after a time, ms.
    Time(i64),
}

/// A consumption under way: where each partition stands.
#[derive(Clone, Debug)]
pub struct Consumption {
    topic: String,
    topic_id: Uuid,
    positions: Vec<Position>,
}

#[derive(Clone, Debug)]
struct Position {
    partition: i32,
    leader: i32,
    next_offset: i64,
    high_watermark: i64,
}

impl Consumption {
    /// True when every partition has been read to the end seen last.
    pub fn at_end(&self) -> bool {
        self.positions.iter().all(|position| position.next_offset >= position.high_watermark)
    }

    /// Records still to be read, by offsets.
    pub fn remaining(&self) -> u64 {
        self.positions.iter().map(|position| u64::try_from(position.high_watermark - position.next_offset).unwrap_or(0)).sum()
    }
}

impl Client {
    /// Partition count of a topic, made if the broker does that.
    pub async fn partition_count(&mut self, topic: &str) -> Result<i32, ClientError> {
        let metadata = self.metadata(Some(&[topic]), true).await?;
        let found = metadata.topics.first().ok_or_else(|| ClientError::refused(topic, 3, None))?;
        check(topic, found.error_code, None)?;
        Ok(i32::try_from(found.partitions.len()).unwrap_or(i32::MAX))
    }

    /// Sends one batch to one partition, acknowledged by all in-sync replicas; its base offset.
    pub async fn produce(
        &mut self,
        topic: &str,
        partition: i32,
        batch: &[ProducedRecord],
        compression: Compression,
    ) -> Result<i64, ClientError> {
        let metadata = self.metadata(Some(&[topic]), true).await?;
        let found = metadata.topics.first().ok_or_else(|| ClientError::refused(topic, 3, None))?;
        check(topic, found.error_code, None)?;
        let leader = found.partitions.iter().find(|state| state.partition_index == partition).map_or(-1, |state| state.leader_id.0);
        let mut builder = BatchBuilder::new(compression);
        for record in batch {
            builder.record(record.timestamp_ms, record.key.as_deref(), record.value.as_deref(), &[]);
        }
        let data = PartitionProduceData::default().with_index(partition).with_records(Some(builder.build().freeze()));
        // The codec writes the id from version 13 on, the name before.
        let topics =
            vec![TopicProduceData::default().with_name(topic_name(topic)).with_topic_id(found.topic_id).with_partition_data(vec![data])];
        let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(topics);
        let answer = self.call_broker(leader, request).await?;
        let result = answer.responses.first().and_then(|topic| topic.partition_responses.first());
        let result = result.ok_or_else(|| ClientError::refused(topic, -1, Some("no answer for the partition")))?;
        check(format!("{topic}-{partition}"), result.error_code, result.error_message.as_deref())?;
        Ok(result.base_offset)
    }

    /// Begins to read a topic's partitions, or one of them.
    pub async fn consume(&mut self, topic: &str, partition: Option<i32>, start: StartAt) -> Result<Consumption, ClientError> {
        let metadata = self.metadata(Some(&[topic]), false).await?;
        let found = metadata.topics.first().ok_or_else(|| ClientError::refused(topic, 3, None))?;
        check(topic, found.error_code, None)?;
        let mut positions = Vec::new();
        for state in found.partitions.iter().filter(|state| partition.is_none_or(|wanted| wanted == state.partition_index)) {
            let (index, leader) = (state.partition_index, state.leader_id.0);
            let high_watermark = self.offset(topic, index, leader, LATEST).await?;
            let next_offset = match start {
                StartAt::Beginning => self.offset(topic, index, leader, EARLIEST).await?,
                StartAt::End => high_watermark,
                StartAt::Offset(offset) => offset,
                StartAt::Time(timestamp_ms) => match self.offset(topic, index, leader, timestamp_ms).await? {
                    -1 => high_watermark,
                    offset => offset,
                },
            };
            positions.push(Position { partition: index, leader, next_offset, high_watermark });
        }
        if let Some(partition) = partition.filter(|_| positions.is_empty()) {
            let reason = format!("the topic has {} partitions, from 0 on", found.partitions.len());
            return Err(ClientError::refused(format!("{topic}-{partition}"), ResponseError::UnknownTopicOrPartition.code(), Some(&reason)));
        }
        Ok(Consumption { topic: topic.to_owned(), topic_id: found.topic_id, positions })
    }

    /// The next records, waiting up to a second for the first; empty if there are none now.
    pub async fn poll(&mut self, consumption: &mut Consumption) -> Result<Vec<ConsumedRecord>, ClientError> {
        let mut read = Vec::new();
        let mut leaders: Vec<i32> = consumption.positions.iter().map(|position| position.leader).collect();
        leaders.sort_unstable();
        leaders.dedup();
        for leader in leaders {
            let answer = self.call_broker(leader, fetch_request(consumption, leader)).await?;
            check(&consumption.topic, answer.error_code, None)?;
            for data in answer.responses.iter().flat_map(|topic| &topic.partitions) {
                let Some(position) = consumption.positions.iter_mut().find(|position| position.partition == data.partition_index) else {
                    continue;
                };
                check(format!("{}-{}", consumption.topic, position.partition), data.error_code, None)?;
                position.high_watermark = data.high_watermark;
                let bytes = data.records.clone().unwrap_or_default();
                decode(position, &bytes, &mut read).map_err(|reason| ClientError::Protocol { address: leader.to_string(), reason })?;
            }
        }
        Ok(read)
    }
}

fn fetch_request(consumption: &Consumption, leader: i32) -> FetchRequest {
    let partitions = consumption.positions.iter().filter(|position| position.leader == leader).map(|position| {
        FetchPartition::default()
            .with_partition(position.partition)
            .with_current_leader_epoch(-1)
            .with_fetch_offset(position.next_offset)
            .with_log_start_offset(-1)
            .with_partition_max_bytes(FETCH_BYTES)
    });
    let topic = FetchTopic::default().with_topic(topic_name(&consumption.topic)).with_topic_id(consumption.topic_id);
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(1000)
        .with_min_bytes(1)
        .with_max_bytes(4 * FETCH_BYTES)
        .with_session_epoch(-1)
        .with_topics(vec![topic.with_partitions(partitions.collect())])
}

/// Adds the records of `bytes` from the position on, and moves it. The last batch may be cut short, the first may not: it would be read for ever.
fn decode(position: &mut Position, bytes: &[u8], read: &mut Vec<ConsumedRecord>) -> Result<(), String> {
    for (batch, at) in batches(bytes).zip(0..) {
        let (header, batch) = match batch {
            Ok(batch) => batch,
            Err(error) if at == 0 => return Err(format!("the batch at offset {} can't be read: {error}", position.next_offset)),
            Err(_) => break,
        };
        if !header.is_control() {
            let body = inflate(&header, batch, INFLATED_BYTES_MAX).map_err(|error| error.to_string())?;
            for record in records(&header, &body) {
                let record = record.map_err(|error| error.to_string())?;
                if record.offset >= position.next_offset {
                    read.push(ConsumedRecord {
                        partition: position.partition,
                        offset: record.offset,
                        timestamp_ms: record.timestamp_ms,
                        key: record.key.map(<[u8]>::to_vec),
                        value: record.value.map(<[u8]>::to_vec),
                        headers: record
                            .headers
                            .iter()
                            .map(|(key, value)| (String::from_utf8_lossy(key).into_owned(), value.map(<[u8]>::to_vec)))
                            .collect(),
                    });
                }
            }
        }
        position.next_offset = position.next_offset.max(header.last_offset() + 1);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_is_broken_is_an_error_and_one_cut_short_behind_others_is_not() {
        let mut builder = BatchBuilder::new(Compression::None);
        builder.record(1, None, Some(b"value"), &[]);
        let whole = builder.build().freeze();
        let decode_from_start = |bytes: &[u8]| {
            let mut position = Position { partition: 0, leader: 0, next_offset: 0, high_watermark: 9 };
            let mut read = Vec::new();
            decode(&mut position, bytes, &mut read).map(|()| (read.len(), position.next_offset))
        };
        assert_eq!(decode_from_start(&[]), Ok((0, 0)));
        assert_eq!(decode_from_start(&[&whole[..], &whole[..whole.len() - 3]].concat()), Ok((1, 1)));
        assert!(decode_from_start(&whole[..whole.len() - 3]).is_err_and(|reason| reason.contains("offset 0")));
    }
}
