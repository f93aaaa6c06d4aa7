//! The Fetch answer, versions 4 to 18, framed by us: header bytes with records between them as they lie in memory or in files. The codec's
//! encoder would copy them.

use bytes::{BufMut, BytesMut};
use siltstone_common::TopicId;
use siltstone_log::LogSlice;

use crate::answer::{Answer, begin_frame, finish_frame};

/// First version with compact lengths and tag sections.
const FLEXIBLE_FROM: i16 = 12;
/// First version with topic ids in place of names (KIP-516).
pub(crate) const TOPIC_IDS_FROM: i16 = 13;
/// First version with an error and a session of the whole answer (KIP-227).
pub(crate) const SESSIONS_FROM: i16 = 7;
/// First version with the log start offset.
const LOG_START_FROM: i16 = 5;
/// First version with a preferred replica (KIP-392).
const PREFERRED_REPLICA_FROM: i16 = 11;
/// First version with the addresses of new leaders (KIP-951).
pub(crate) const ENDPOINTS_FROM: i16 = 16;
const NO_PREFERRED_REPLICA: i32 = -1;
/// Bytes of a partition without records, about.
const PARTITION_HEAD_BYTES: usize = 64;

/// A whole answer.
pub(crate) struct FetchAnswer {
    pub error_code: i16,
    pub session_id: i32,
    pub topics: Vec<TopicAnswer>,
    /// Leaders that partitions name.
    pub endpoints: Vec<Endpoint>,
}

/// A topic's partitions; the version decides whether name or id is sent.
pub(crate) struct TopicAnswer {
    pub name: std::sync::Arc<str>,
    pub id: TopicId,
    pub partitions: Vec<PartitionAnswer>,
}

/// A partition.
pub(crate) struct PartitionAnswer {
    pub index: i32,
    pub error_code: i16,
    pub high_watermark: i64,
    pub last_stable_offset: i64,
    pub log_start_offset: i64,
    /// Producer ids and first offsets; null for read_uncommitted.
    pub aborted: Option<Vec<(i64, i64)>>,
    pub diverging_epoch: Option<(i32, i64)>,
    pub current_leader: Option<(i32, i32)>,
    pub records: Vec<LogSlice>,
}

/// Where a broker is.
pub(crate) struct Endpoint {
    pub id: i32,
    pub host: String,
    pub port: i32,
    pub rack: Option<String>,
}

/// Puts an answer together: `head` holds all but the records; `cuts` says where they go.
struct Framer {
    version: i16,
    head: BytesMut,
    cuts: Vec<(usize, Vec<LogSlice>)>,
    records_bytes: usize,
}

/// Frames the answer in `version`.
pub(crate) fn frame(correlation_id: i32, version: i16, answer: FetchAnswer) -> Answer {
    let partitions: usize = answer.topics.iter().map(|topic| topic.partitions.len()).sum();
    let capacity = 64 * (1 + answer.topics.len()) + PARTITION_HEAD_BYTES * partitions;
    let header_version = i16::from(version >= FLEXIBLE_FROM);
    let head = begin_frame(correlation_id, header_version, capacity);
    let mut framer = Framer { version, head, cuts: Vec::with_capacity(partitions), records_bytes: 0 };
    framer.answer(answer);
    framer.finish()
}

impl Framer {
    fn flexible(&self) -> bool {
        self.version >= FLEXIBLE_FROM
    }

    fn answer(&mut self, answer: FetchAnswer) {
        self.head.put_i32(0); // throttle time
        if self.version >= SESSIONS_FROM {
            self.head.put_i16(answer.error_code);
            self.head.put_i32(answer.session_id);
        }
        self.count(answer.topics.len());
        for topic in answer.topics {
            self.topic(topic);
        }
        if !self.flexible() {
            return;
        }
        if self.version < ENDPOINTS_FROM || answer.endpoints.is_empty() {
            self.head.put_u8(0);
            return;
        }
        let mut endpoints = BytesMut::new();
        put_varint(&mut endpoints, answer.endpoints.len() + 1);
        for endpoint in &answer.endpoints {
            put_endpoint(&mut endpoints, endpoint);
        }
        self.head.put_u8(1);
        self.head.put_u8(0);
        put_varint(&mut self.head, endpoints.len());
        self.head.extend_from_slice(&endpoints);
    }

    fn topic(&mut self, topic: TopicAnswer) {
        if self.version >= TOPIC_IDS_FROM {
            self.head.extend_from_slice(topic.id.0.as_bytes());
        } else {
            if self.flexible() {
                put_varint(&mut self.head, topic.name.len() + 1);
            } else {
                self.head.put_u16(u16::try_from(topic.name.len()).unwrap_or(u16::MAX));
            }
            self.head.extend_from_slice(topic.name.as_bytes());
        }
        self.count(topic.partitions.len());
        for partition in topic.partitions {
            self.partition(partition);
        }
        if self.flexible() {
            self.head.put_u8(0);
        }
    }

    fn partition(&mut self, partition: PartitionAnswer) {
        self.head.put_i32(partition.index);
        self.head.put_i16(partition.error_code);
        self.head.put_i64(partition.high_watermark);
        self.head.put_i64(partition.last_stable_offset);
        if self.version >= LOG_START_FROM {
            self.head.put_i64(partition.log_start_offset);
        }
        match &partition.aborted {
            None if self.flexible() => self.head.put_u8(0),
            None => self.head.put_i32(-1),
            Some(aborted) => self.aborted(aborted),
        }
        if self.version >= PREFERRED_REPLICA_FROM {
            self.head.put_i32(NO_PREFERRED_REPLICA);
        }
        let len: usize = partition.records.iter().map(LogSlice::len).sum();
        if self.flexible() {
            put_varint(&mut self.head, len + 1);
        } else {
            self.head.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
        }
        if len > 0 {
            self.records_bytes += len;
            self.cuts.push((self.head.len(), partition.records));
        }
        if self.flexible() {
            self.partition_tags(partition.diverging_epoch, partition.current_leader);
        }
    }

    fn aborted(&mut self, aborted: &[(i64, i64)]) {
        self.count(aborted.len());
        for (producer_id, first_offset) in aborted {
            self.head.put_i64(*producer_id);
            self.head.put_i64(*first_offset);
            if self.flexible() {
                self.head.put_u8(0);
            }
        }
    }

    fn partition_tags(&mut self, diverging_epoch: Option<(i32, i64)>, current_leader: Option<(i32, i32)>) {
        self.head.put_u8(u8::from(diverging_epoch.is_some()) + u8::from(current_leader.is_some()));
        if let Some((epoch, end_offset)) = diverging_epoch {
            self.head.extend_from_slice(&[0, 13]);
            self.head.put_i32(epoch);
            self.head.put_i64(end_offset);
            self.head.put_u8(0);
        }
        if let Some((leader, epoch)) = current_leader {
            self.head.extend_from_slice(&[1, 9]);
            self.head.put_i32(leader);
            self.head.put_i32(epoch);
            self.head.put_u8(0);
        }
    }

    fn count(&mut self, count: usize) {
        if self.flexible() {
            put_varint(&mut self.head, count + 1);
        } else {
            self.head.put_u32(u32::try_from(count).unwrap_or(u32::MAX));
        }
    }

    /// Cuts the head at the records' places.
    fn finish(mut self) -> Answer {
        finish_frame(&mut self.head, self.records_bytes);
        let mut head = self.head.freeze();
        let mut pieces = Vec::with_capacity(2 * self.cuts.len() + 1);
        let mut cut = 0;
        for (at, records) in self.cuts {
            pieces.push(LogSlice::Memory(head.split_to(at - cut)));
            pieces.extend(records);
            cut = at;
        }
        pieces.push(LogSlice::Memory(head));
        Answer::Frame(pieces)
    }
}

fn put_endpoint(out: &mut BytesMut, endpoint: &Endpoint) {
    out.put_i32(endpoint.id);
    put_varint(out, endpoint.host.len() + 1);
    out.extend_from_slice(endpoint.host.as_bytes());
    out.put_i32(endpoint.port);
    let rack = endpoint.rack.as_deref();
    put_varint(out, rack.map_or(0, |rack| rack.len() + 1));
    out.extend_from_slice(rack.unwrap_or_default().as_bytes());
    out.put_u8(0);
}

fn put_varint(out: &mut BytesMut, mut value: usize) {
    while value >= 0x80 {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// The frame as one buffer, for tests.
#[cfg(test)]
pub(crate) fn joined(answer: Answer) -> bytes::Bytes {
    let Answer::Frame(pieces) = answer else { panic!("no frame") };
    let mut whole = BytesMut::new();
    for piece in pieces {
        let LogSlice::Memory(bytes) = piece else { panic!("not in memory") };
        whole.extend_from_slice(&bytes);
    }
    whole.freeze()
}

#[cfg(test)]
mod tests {
    use bytes::{Buf, Bytes};
    use kafka_protocol::messages::FetchResponse;
    use kafka_protocol::protocol::{Decodable, HeaderVersion};

    use super::*;

    fn partition(index: i32, records: &[&'static [u8]]) -> PartitionAnswer {
        PartitionAnswer {
            index,
            error_code: 0,
            high_watermark: 100 + i64::from(index),
            last_stable_offset: 90,
            log_start_offset: 7,
            aborted: None,
            diverging_epoch: None,
            current_leader: None,
            records: records.iter().map(|bytes| LogSlice::Memory(Bytes::from_static(bytes))).collect(),
        }
    }

    fn answer() -> FetchAnswer {
        let mut refused = partition(2, &[]);
        refused.error_code = 6;
        refused.diverging_epoch = Some((3, 44));
        refused.current_leader = Some((9, 5));
        let mut committed = partition(3, &[b"x"]);
        committed.aborted = Some(vec![(1, 2), (3, 4)]);
        let topic =
            |name: &str, id: u128, partitions| TopicAnswer { name: name.into(), id: TopicId(uuid::Uuid::from_u128(id)), partitions };
        FetchAnswer {
            error_code: 0,
            session_id: 77,
            topics: vec![
                topic("first", 1, vec![partition(0, &[b"some", b"", b"records"]), partition(1, &[]), refused, committed]),
                topic("second", 2, vec![partition(0, &[b"tail"])]),
            ],
            endpoints: vec![Endpoint { id: 9, host: "host".to_owned(), port: 9092, rack: Some("r".to_owned()) }],
        }
    }

    #[test]
    fn the_codec_reads_every_version_back() {
        for version in 4..=18 {
            let mut frame = joined(super::frame(5, version, answer()));
            assert_eq!(frame.get_u32() as usize, frame.len(), "v{version}");
            assert_eq!(frame.get_i32(), 5);
            if FetchResponse::header_version(version) >= 1 {
                assert_eq!(frame.get_u8(), 0);
            }
            let decoded = FetchResponse::decode(&mut frame, version).unwrap_or_else(|error| panic!("v{version}: {error}"));
            assert!(!frame.has_remaining(), "v{version}");
            assert_eq!(decoded.session_id, if version >= SESSIONS_FROM { 77 } else { 0 });
            assert_eq!(decoded.responses.len(), 2);
            let first = &decoded.responses[0];
            if version >= TOPIC_IDS_FROM {
                assert_eq!(first.topic_id.as_u128(), 1);
            } else {
                assert_eq!(&**first.topic, "first");
            }
            let records: Vec<_> = first.partitions.iter().map(|part| part.records.clone().unwrap_or_default()).collect();
            assert_eq!(records, [&b"somerecords"[..], b"", b"", b"x"]);
            assert_eq!(first.partitions[1].high_watermark, 101);
            assert_eq!(first.partitions[1].log_start_offset, if version >= LOG_START_FROM { 7 } else { -1 });
            assert!(first.partitions[1].aborted_transactions.is_none());
            assert_eq!(first.partitions[3].aborted_transactions.as_ref().map(Vec::len), Some(2));
            assert_eq!(first.partitions[2].error_code, 6);
            if version >= FLEXIBLE_FROM {
                assert_eq!((first.partitions[2].diverging_epoch.epoch, first.partitions[2].diverging_epoch.end_offset), (3, 44));
                assert_eq!((first.partitions[2].current_leader.leader_id.0, first.partitions[2].current_leader.leader_epoch), (9, 5));
            }
            assert_eq!(decoded.node_endpoints.len(), usize::from(version >= ENDPOINTS_FROM));
            assert_eq!(decoded.responses[1].partitions[0].records.as_deref(), Some(&b"tail"[..]));
        }
    }

    #[test]
    fn long_lengths_take_more_bytes_of_a_varint() {
        let mut long = answer();
        long.topics[1].partitions[0].records = vec![LogSlice::Memory(Bytes::from(vec![1; 70_000]))];
        let mut frame = joined(super::frame(5, 12, long));
        frame.advance(4 + 4 + 1);
        let decoded = FetchResponse::decode(&mut frame, 12).expect("decodes");
        assert_eq!(decoded.responses[1].partitions[0].records.as_ref().map(Bytes::len), Some(70_000));
    }
}
