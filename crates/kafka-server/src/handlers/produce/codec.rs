//! Produce requests taken apart in place: every partition's batches become a buffer of their own, split off the frame without a copy, so that the
//! log can stamp offsets into them. (The codec would hand out shared, read-only bytes.)
//!
//! A piece of a frame keeps the frame's whole allocation alive, and the log keeps pieces in its tail cache: so a piece that is less than half of
//! its allocation is copied out instead.

use bytes::BytesMut;
use kafka_protocol::protocol::StrBytes;
use siltstone_common::TopicId;
use uuid::Uuid;

use crate::connection::InboundFrame;
use crate::guard::{Malformed, Walker};

/// First version with compact lengths and tag sections.
const FLEXIBLE_FROM: i16 = 9;
/// First version with topic ids in place of names (KIP-516).
pub(crate) const TOPIC_IDS_FROM: i16 = 13;
/// Partitions of one request, and topics, far above what a client's `max.request.size` allows.
const PARTITIONS_MAX: usize = 100_000;

/// A decoded request.
#[derive(Debug)]
pub(crate) struct ProduceRequest {
    pub transactional_id: Option<String>,
    pub acks: i16,
    pub timeout_ms: i32,
    pub topics: Vec<ProduceTopic>,
}

/// A topic, by name or (from version 13 on) by id.
#[derive(Debug)]
pub(crate) struct ProduceTopic {
    pub name: StrBytes,
    pub id: TopicId,
    pub partitions: Vec<ProducePartitionData>,
}

/// A partition's batches.
#[derive(Debug)]
pub(crate) struct ProducePartitionData {
    pub index: i32,
    /// `None` if null.
    pub records: Option<BytesMut>,
}

/// Where a partition's batches lie in the frame.
type RecordsRange = Option<std::ops::Range<usize>>;

/// Decodes the body of a request, which starts at `body_start` of the frame.
pub(crate) fn decode(frame: InboundFrame, body_start: usize, version: i16) -> Result<ProduceRequest, Malformed> {
    let mut ranges: Vec<RecordsRange> = Vec::new();
    let mut request = read(&frame.bytes, body_start, version, &mut ranges)?;
    let InboundFrame { mut bytes, allocation_bytes } = frame;
    let mut taken = 0;
    let partitions = request.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
    for (partition, range) in partitions.zip(ranges) {
        let Some(range) = range else { continue };
        partition.records = Some(if range.len() * 2 < allocation_bytes {
            BytesMut::from(&bytes[range.start - taken..range.end - taken])
        } else {
            let _before = bytes.split_to(range.start - taken);
            let records = bytes.split_to(range.len());
            taken = range.end;
            records
        });
    }
    Ok(request)
}

/// Reads all but the batches, whose places go to `ranges`.
fn read(frame: &[u8], body_start: usize, version: i16, ranges: &mut Vec<RecordsRange>) -> Result<ProduceRequest, Malformed> {
    let flexible = version >= FLEXIBLE_FROM;
    let mut walker = Walker::new(frame, body_start, version, flexible);
    let transactional_id = walker.nullable_str()?.map(str::to_owned);
    let acks = walker.i16()?;
    let timeout_ms = walker.i32()?;
    let mut topics = Vec::new();
    let count = walker.array_count(MIN_TOPIC_BYTES)?;
    if count > PARTITIONS_MAX {
        return Err(Malformed::ArrayTooLong { count, remaining: walker.remaining() });
    }
    for _ in 0..count {
        let topic = read_topic(&mut walker, version, ranges)?;
        // One without partitions is not answered, and must not cost more than its bytes (I42).
        if !topic.partitions.is_empty() {
            topics.push(topic);
        }
    }
    if flexible {
        walker.tags(&[])?;
    }
    Ok(ProduceRequest { transactional_id, acks, timeout_ms, topics })
}

/// A name's length and an array's count.
const MIN_TOPIC_BYTES: usize = 2;
/// An index and a length.
const MIN_PARTITION_BYTES: usize = 5;

fn read_topic(walker: &mut Walker<'_>, version: i16, ranges: &mut Vec<RecordsRange>) -> Result<ProduceTopic, Malformed> {
    let (mut name, mut id) = (StrBytes::default(), TopicId::ZERO);
    if version >= TOPIC_IDS_FROM {
        id = TopicId(Uuid::from_bytes(walker.array()?));
    } else {
        name = StrBytes::from_string(walker.nullable_str()?.ok_or(Malformed::BadLength(-1))?.to_owned());
    }
    let count = walker.array_count(MIN_PARTITION_BYTES)?;
    if ranges.len() + count > PARTITIONS_MAX {
        return Err(Malformed::ArrayTooLong { count, remaining: walker.remaining() });
    }
    let mut partitions = Vec::with_capacity(count);
    for _ in 0..count {
        let index = walker.i32()?;
        ranges.push(match walker.bytes_len()? {
            None => None,
            Some(len) => {
                let start = walker.position();
                walker.take(len)?;
                Some(start..start + len)
            }
        });
        if version >= FLEXIBLE_FROM {
            walker.tags(&[])?;
        }
        partitions.push(ProducePartitionData { index, records: None });
    }
    if version >= FLEXIBLE_FROM {
        walker.tags(&[])?;
    }
    Ok(ProduceTopic { name, id, partitions })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
    use kafka_protocol::messages::{ProduceRequest as WireRequest, TopicName, TransactionalId};
    use kafka_protocol::protocol::Encodable;

    use super::*;

    const PREFIX: usize = 7;

    fn frame(request: &WireRequest, version: i16) -> InboundFrame {
        let mut bytes = BytesMut::from(&[0u8; PREFIX][..]);
        request.encode(&mut bytes, version).expect("encodes");
        InboundFrame { allocation_bytes: bytes.len(), bytes }
    }

    fn request(version: i16) -> WireRequest {
        let partition = |index: i32, len: usize| {
            PartitionProduceData::default().with_index(index).with_records(Some(Bytes::from(vec![index as u8; len])))
        };
        let topic = |name: &'static str, partitions| {
            let topic = TopicProduceData::default().with_partition_data(partitions);
            match version >= TOPIC_IDS_FROM {
                true => topic.with_topic_id(Uuid::from_u128(name.len() as u128)),
                false => topic.with_name(TopicName(StrBytes::from_static_str(name))),
            }
        };
        WireRequest::default()
            .with_transactional_id(Some(TransactionalId(StrBytes::from_static_str("tx"))))
            .with_acks(-1)
            .with_timeout_ms(1234)
            .with_topic_data(vec![
                topic("a", vec![partition(1, 10), partition(2, 0), PartitionProduceData::default().with_index(3).with_records(None)]),
                topic("bb", vec![]),
                topic("ccc", vec![partition(4, 200_000), partition(5, 1)]),
            ])
    }

    #[test]
    fn every_version_is_read_as_the_codec_writes_it() {
        for version in 3..=13 {
            let decoded = decode(frame(&request(version), version), PREFIX, version).expect("decodes");
            assert_eq!((decoded.transactional_id.as_deref(), decoded.acks, decoded.timeout_ms), (Some("tx"), -1, 1234));
            // "bb" has no partitions.
            let wanted = [("a", vec![(1, Some(10)), (2, Some(0)), (3, None)]), ("ccc", vec![(4, Some(200_000)), (5, Some(1))])];
            assert_eq!(decoded.topics.len(), wanted.len());
            for (topic, (name, partitions)) in decoded.topics.iter().zip(wanted) {
                if version >= TOPIC_IDS_FROM {
                    assert_eq!(topic.id.0.as_u128(), name.len() as u128);
                } else {
                    assert_eq!(&*topic.name, name);
                }
                let lens: Vec<_> =
                    topic.partitions.iter().map(|part| (part.index, part.records.as_ref().map(|bytes| bytes.len()))).collect();
                assert_eq!(lens, partitions, "v{version}");
                for part in &topic.partitions {
                    assert!(part.records.iter().all(|bytes| bytes.iter().all(|byte| *byte == part.index as u8)));
                }
            }
        }
    }

    #[test]
    fn a_large_piece_is_not_copied_and_a_small_one_is() {
        let frame = frame(&request(9), 9);
        let whole = frame.bytes.as_ptr_range();
        let decoded = decode(frame, PREFIX, 9).expect("decodes");
        let lies_in_frame = |topic: usize, part: usize| {
            decoded.topics[topic].partitions[part].records.as_ref().is_some_and(|bytes| whole.contains(&bytes.as_ptr()))
        };
        assert!(lies_in_frame(1, 0));
        assert!(!lies_in_frame(0, 0) && !lies_in_frame(1, 1));
    }

    #[test]
    fn every_prefix_is_refused_or_read_without_panic() {
        for version in [3, 8, 9, 13] {
            let whole = frame(&request(version), version).bytes;
            for cut in (PREFIX..whole.len()).step_by(13).chain(whole.len() - 20..whole.len()) {
                let bytes = BytesMut::from(&whole[..cut]);
                assert!(decode(InboundFrame { allocation_bytes: cut, bytes }, PREFIX, version).is_err(), "v{version} cut at {cut}");
            }
        }
    }
}
