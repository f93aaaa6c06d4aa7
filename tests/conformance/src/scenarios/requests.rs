//! Short ways to write requests.

use crate::batch::Batch;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{FetchRequest, ListOffsetsRequest, ProduceRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

/// A protocol string.
pub fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// A topic's name.
pub fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

/// How a request names a topic, which depends on its version.
#[derive(Clone)]
pub enum Topic {
    /// By name.
    Name(TopicName),
    /// By id.
    Id(Uuid),
}

/// Produce `batches` to partitions of one topic with acks=all.
pub fn produce(topic: &Topic, batches: &[(i32, &Batch)]) -> ProduceRequest {
    let encoded = batches.iter().map(|(partition, batch)| (*partition, batch.encode()));
    produce_bytes(topic, -1, encoded.collect())
}

/// Produce raw `records` to partitions of one topic.
pub fn produce_bytes(topic: &Topic, acks: i16, records: Vec<(i32, bytes::Bytes)>) -> ProduceRequest {
    let partitions =
        records.into_iter().map(|(partition, records)| PartitionProduceData::default().with_index(partition).with_records(Some(records)));
    let data = TopicProduceData::default().with_partition_data(partitions.collect());
    let data = match topic {
        Topic::Name(name) => data.with_name(name.clone()),
        Topic::Id(id) => data.with_topic_id(*id),
    };
    ProduceRequest::default().with_acks(acks).with_timeout_ms(10_000).with_topic_data(vec![data])
}

/// Fetch with no wait: partition, offset and byte limit of each partition of one topic.
pub fn fetch(topic: &Topic, partitions: &[(i32, i64, i32)]) -> FetchRequest {
    let partitions = partitions.iter().map(|(partition, offset, bytes_max)| {
        FetchPartition::default().with_partition(*partition).with_fetch_offset(*offset).with_partition_max_bytes(*bytes_max)
    });
    let fetched = FetchTopic::default().with_partitions(partitions.collect());
    let fetched = match topic {
        Topic::Name(name) => fetched.with_topic(name.clone()),
        Topic::Id(id) => fetched.with_topic_id(*id),
    };
    FetchRequest::default().with_max_wait_ms(0).with_min_bytes(0).with_topics(vec![fetched])
}

/// ListOffsets of one topic: partition and timestamp of each.
pub fn list_offsets(topic: TopicName, partitions: &[(i32, i64)]) -> ListOffsetsRequest {
    let partitions = partitions
        .iter()
        .map(|(partition, timestamp)| ListOffsetsPartition::default().with_partition_index(*partition).with_timestamp(*timestamp));
    let topic = ListOffsetsTopic::default().with_name(topic).with_partitions(partitions.collect());
    ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic])
}
