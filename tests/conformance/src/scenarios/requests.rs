//! Short ways to write requests.

use crate::batch::Batch;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ProduceRequest, TopicName};
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
    let encoded = batches
        .iter()
        .map(|(partition, batch)| (*partition, batch.encode()));
    produce_bytes(topic, -1, encoded.collect())
}

/// Produce raw `records` to partitions of one topic.
pub fn produce_bytes(
    topic: &Topic,
    acks: i16,
    records: Vec<(i32, bytes::Bytes)>,
) -> ProduceRequest {
    let partitions = records.into_iter().map(|(partition, records)| {
        PartitionProduceData::default()
            .with_index(partition)
            .with_records(Some(records))
    });
    let data = TopicProduceData::default().with_partition_data(partitions.collect());
    let data = match topic {
        Topic::Name(name) => data.with_name(name.clone()),
        Topic::Id(id) => data.with_topic_id(*id),
    };
    ProduceRequest::default()
        .with_acks(acks)
        .with_timeout_ms(10_000)
        .with_topic_data(vec![data])
}
