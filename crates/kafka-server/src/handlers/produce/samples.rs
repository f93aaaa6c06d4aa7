//! Requests for tests elsewhere in the crate.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ProduceRequest, TopicName};
use kafka_protocol::protocol::{Encodable, StrBytes};

use crate::connection::InboundFrame;
use crate::guard::Malformed;
use crate::handlers::produce::codec;

/// The body of a request of `topics` topics with as many partitions each.
pub(crate) fn sample_request(version: i16, topics: usize) -> Vec<u8> {
    let partition =
        |index: usize| PartitionProduceData::default().with_index(index as i32).with_records(Some(Bytes::from(vec![7; 10 * index])));
    let topic = |index: usize| {
        let topic = TopicProduceData::default().with_partition_data((0..topics).map(partition).collect());
        if version >= codec::TOPIC_IDS_FROM { topic } else { topic.with_name(TopicName(StrBytes::from_string(format!("topic-{index}")))) }
    };
    let request = ProduceRequest::default().with_acks(1).with_topic_data((0..topics).map(topic).collect());
    let mut bytes = BytesMut::new();
    request.encode(&mut bytes, version).expect("encodes");
    bytes.to_vec()
}

/// Takes a request apart; how many partitions it has.
pub(crate) fn decode_only(frame: InboundFrame, version: i16) -> Result<usize, Malformed> {
    codec::decode(frame, 0, version).map(|request| request.topics.iter().map(|topic| topic.partitions.len()).sum())
}
