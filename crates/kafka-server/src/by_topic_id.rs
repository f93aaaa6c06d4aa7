//! Requests in versions that the codec does not know: OffsetCommit 10 and OffsetFetch 10, which name topics by id (KIP-848), and WriteTxnMarkers 2,
//! which tells each marker's version of transactions (KIP-1228). The codec knows their answers.

use bytes::{Buf, Bytes};
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_protocol::messages::write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
use kafka_protocol::messages::{GroupId, OffsetCommitRequest, OffsetFetchRequest, ProducerId, TopicName, WriteTxnMarkersRequest};
use kafka_protocol::protocol::{Decodable, StrBytes};
use siltstone_common::TopicId;
use siltstone_metadata::MetadataImage;

/// The first version of either request that names topics by id.
pub(crate) const FIRST_VERSION: i16 = 10;

/// A request, and the ids of its topics in their order: none before version 10, and then names; in version 10 the names are still empty.
#[derive(Debug, PartialEq)]
pub(crate) struct ById<R> {
    pub(crate) request: R,
    pub(crate) topic_ids: Vec<TopicId>,
}

type Decoded<T> = Result<T, String>;

const CUT_SHORT: &str = "the request is cut short";

fn cut_short<E>(_: E) -> String {
    CUT_SHORT.to_owned()
}

fn int32(buf: &mut Bytes) -> Decoded<i32> {
    buf.try_get_i32().map_err(cut_short)
}

fn topic_id(buf: &mut Bytes) -> Decoded<TopicId> {
    buf.try_get_u128().map(|id| TopicId(uuid::Uuid::from_u128(id))).map_err(cut_short)
}

fn varint(buf: &mut Bytes) -> Decoded<u32> {
    let mut value = 0u64;
    for shift in [0, 7, 14, 21, 28] {
        let byte = buf.try_get_u8().map_err(cut_short)?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return u32::try_from(value).map_err(|_| "a length is impossible".to_owned());
        }
    }
    Err("a length is impossible".to_owned())
}

fn take(buf: &mut Bytes, len: u32) -> Decoded<Bytes> {
    let len = len as usize;
    if len > buf.remaining() { Err(CUT_SHORT.to_owned()) } else { Ok(buf.split_to(len)) }
}

fn nullable_text(buf: &mut Bytes) -> Decoded<Option<StrBytes>> {
    let Some(len) = varint(buf)?.checked_sub(1) else { return Ok(None) };
    StrBytes::from_utf8(take(buf, len)?).map(Some).map_err(|error| error.to_string())
}

fn text(buf: &mut Bytes) -> Decoded<StrBytes> {
    no_null(nullable_text(buf)?)
}

/// A compact array; `None` for null. It grows with its elements, whatever its length says.
fn array<T>(buf: &mut Bytes, mut element: impl FnMut(&mut Bytes) -> Decoded<T>) -> Decoded<Option<Vec<T>>> {
    let Some(len) = varint(buf)?.checked_sub(1) else { return Ok(None) };
    let mut elements = Vec::new();
    for _ in 0..len {
        elements.push(element(buf)?);
    }
    Ok(Some(elements))
}

fn no_null<T>(value: Option<T>) -> Decoded<T> {
    value.ok_or_else(|| "a field that may not be null is null".to_owned())
}

/// Tagged fields, of which none of these requests has any: skipped.
fn tags(buf: &mut Bytes) -> Decoded<()> {
    for _ in 0..varint(buf)? {
        varint(buf)?;
        let size = varint(buf)?;
        take(buf, size)?;
    }
    Ok(())
}

/// OffsetCommit in any version.
pub(crate) fn decode_offset_commit(mut body: Bytes, version: i16) -> Decoded<ById<OffsetCommitRequest>> {
    let buf = &mut body;
    if version < FIRST_VERSION {
        return Ok(ById { request: OffsetCommitRequest::decode(buf, version).map_err(|error| error.to_string())?, topic_ids: Vec::new() });
    }
    let mut topic_ids = Vec::new();
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId(text(buf)?))
        .with_generation_id_or_member_epoch(int32(buf)?)
        .with_member_id(text(buf)?)
        .with_group_instance_id(nullable_text(buf)?);
    let topics = array(buf, |buf| {
        topic_ids.push(topic_id(buf)?);
        let partitions = no_null(array(buf, commit_partition)?)?;
        tags(buf)?;
        Ok(OffsetCommitRequestTopic::default().with_partitions(partitions))
    })?;
    tags(buf)?;
    Ok(ById { request: request.with_topics(no_null(topics)?), topic_ids })
}

fn commit_partition(buf: &mut Bytes) -> Decoded<OffsetCommitRequestPartition> {
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(int32(buf)?)
        .with_committed_offset(buf.try_get_i64().map_err(cut_short)?)
        .with_committed_leader_epoch(int32(buf)?)
        .with_committed_metadata(nullable_text(buf)?);
    tags(buf)?;
    Ok(partition)
}

/// OffsetFetch in any version. The ids are those of all groups, one after the other.
pub(crate) fn decode_offset_fetch(mut body: Bytes, version: i16) -> Decoded<ById<OffsetFetchRequest>> {
    let buf = &mut body;
    if version < FIRST_VERSION {
        return Ok(ById { request: OffsetFetchRequest::decode(buf, version).map_err(|error| error.to_string())?, topic_ids: Vec::new() });
    }
    let mut topic_ids = Vec::new();
    let groups = array(buf, |buf| {
        let group = OffsetFetchRequestGroup::default()
            .with_group_id(GroupId(text(buf)?))
            .with_member_id(nullable_text(buf)?)
            .with_member_epoch(int32(buf)?);
        let topics = array(buf, |buf| {
            topic_ids.push(topic_id(buf)?);
            let indexes = no_null(array(buf, int32)?)?;
            tags(buf)?;
            Ok(OffsetFetchRequestTopics::default().with_partition_indexes(indexes))
        })?;
        tags(buf)?;
        Ok(group.with_topics(topics))
    })?;
    let require_stable = buf.try_get_u8().map_err(cut_short)? != 0;
    tags(buf)?;
    let request = OffsetFetchRequest::default().with_groups(no_null(groups)?).with_require_stable(require_stable);
    Ok(ById { request, topic_ids })
}

/// First version of WriteTxnMarkers whose markers have a version of transactions.
const VERSIONED_MARKERS_FROM: i16 = 2;

/// WriteTxnMarkers, and the level of `transaction.version` of each marker in their order: none before version 2.
#[derive(Debug, PartialEq)]
pub(crate) struct VersionedMarkers {
    pub(crate) request: WriteTxnMarkersRequest,
    pub(crate) levels: Vec<i8>,
}

/// WriteTxnMarkers in any version.
pub(crate) fn decode_write_txn_markers(mut body: Bytes, version: i16) -> Decoded<VersionedMarkers> {
    let buf = &mut body;
    if version < VERSIONED_MARKERS_FROM {
        let request = WriteTxnMarkersRequest::decode(buf, version).map_err(|error| error.to_string())?;
        return Ok(VersionedMarkers { request, levels: Vec::new() });
    }
    let mut levels = Vec::new();
    let markers = array(buf, |buf| {
        let marker = WritableTxnMarker::default()
            .with_producer_id(ProducerId(buf.try_get_i64().map_err(cut_short)?))
            .with_producer_epoch(buf.try_get_i16().map_err(cut_short)?)
            .with_transaction_result(buf.try_get_u8().map_err(cut_short)? != 0)
            .with_topics(no_null(array(buf, marker_topic)?)?)
            .with_coordinator_epoch(int32(buf)?);
        levels.push(buf.try_get_i8().map_err(cut_short)?);
        tags(buf)?;
        Ok(marker)
    })?;
    tags(buf)?;
    Ok(VersionedMarkers { request: WriteTxnMarkersRequest::default().with_markers(no_null(markers)?), levels })
}

fn marker_topic(buf: &mut Bytes) -> Decoded<WritableTxnMarkerTopic> {
    let topic = WritableTxnMarkerTopic::default().with_name(TopicName(text(buf)?)).with_partition_indexes(no_null(array(buf, int32)?)?);
    tags(buf)?;
    Ok(topic)
}

/// Puts the names of topics where only their ids are known; unknown ones stay without.
pub(crate) fn put_names<'a>(image: &MetadataImage, topic_ids: &[TopicId], names: impl Iterator<Item = &'a mut TopicName>) {
    for (id, name) in topic_ids.iter().zip(names) {
        if let Some(topic) = image.topic_by_id(*id) {
            *name = crate::topic_lookup::topic_name(&topic.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut, BytesMut};

    use super::*;

    fn commit_bytes() -> BytesMut {
        let mut body = BytesMut::new();
        body.put_slice(b"\x02g\0\0\0\x07\x02m\0\x02");
        body.put_slice(&[9; 16]);
        body.put_slice(b"\x02\0\0\0\x03\0\0\0\0\0\0\0\x05\0\0\0\x06\x02x\0\0\0");
        body
    }

    fn marker_bytes() -> BytesMut {
        let mut body = BytesMut::new();
        body.put_slice(b"\x03\0\0\0\0\0\0\0\x07\0\x03\x01\x02\x02t\x03\0\0\0\x04\0\0\0\x05\0\0\0\0\x06\x02\0");
        body.put_slice(b"\0\0\0\0\0\0\0\x08\0\0\0\x01\0\0\0\x09\0\0\0");
        body
    }

    #[test]
    fn markers_tell_their_version_of_transactions() {
        let body = marker_bytes();
        let decoded = decode_write_txn_markers(body.clone().freeze(), 2).unwrap();
        assert_eq!(decoded.levels, [2, 0]);
        let [first, second] = &decoded.request.markers[..] else { panic!("two markers") };
        assert_eq!((first.producer_id.0, first.producer_epoch, first.transaction_result, first.coordinator_epoch), (7, 3, true, 6));
        assert_eq!((first.topics[0].name.0.as_str(), &first.topics[0].partition_indexes[..]), ("t", &[4, 5][..]));
        assert_eq!((second.producer_id.0, second.transaction_result, second.topics.len(), second.coordinator_epoch), (8, false, 0, 9));
        for len in 0..body.len() {
            assert!(decode_write_txn_markers(body.clone().freeze().slice(..len), 2).is_err(), "{len}");
        }
        let older = kafka_protocol::protocol::Encodable::encode;
        let mut v1 = BytesMut::new();
        older(&decoded.request, &mut v1, 1).unwrap();
        assert_eq!(decode_write_txn_markers(v1.freeze(), 1), Ok(VersionedMarkers { request: decoded.request, levels: Vec::new() }));
    }

    fn fetch_bytes() -> BytesMut {
        let mut body = BytesMut::new();
        body.put_slice(b"\x03\x02g\x02m\0\0\0\x07\x02");
        body.put_slice(&[9; 16]);
        body.put_slice(b"\x03\0\0\0\x03\0\0\0\x04\0\0\x02h\0\xff\xff\xff\xff\0\0\x01\0");
        body
    }

    #[test]
    fn version_10_is_version_9_with_ids() {
        let ById { request, topic_ids } = decode_offset_commit(commit_bytes().freeze(), 10).unwrap();
        let partition = &request.topics[0].partitions[0];
        assert_eq!((request.group_id.0.as_str(), request.generation_id_or_member_epoch, request.member_id.as_str()), ("g", 7, "m"));
        assert_eq!((partition.partition_index, partition.committed_offset, partition.committed_leader_epoch), (3, 5, 6));
        assert_eq!(topic_ids, [TopicId(uuid::Uuid::from_bytes([9; 16]))]);

        let ById { request, topic_ids } = decode_offset_fetch(fetch_bytes().freeze(), 10).unwrap();
        assert_eq!(request.groups[0].topics.as_ref().unwrap()[0].partition_indexes, [3, 4]);
        assert_eq!((request.groups[0].member_epoch, &request.groups[1].topics, request.require_stable), (7, &None, true));
        assert_eq!(topic_ids.len(), 1);
    }

    #[test]
    fn the_guard_admits_whole_requests_and_nothing_cut_short_is_decoded() {
        for (key, body) in [(8, commit_bytes()), (9, fetch_bytes())] {
            assert!(crate::guard::admit(&body, 0, key, 10).is_ok(), "{key}");
            for cut in 0..body.len() {
                let part = body.clone().freeze().slice(..cut);
                assert!(crate::guard::admit(&part, 0, key, 10).is_err(), "{key} cut at {cut}");
                let is_refused = if key == 8 { decode_offset_commit(part, 10).is_err() } else { decode_offset_fetch(part, 10).is_err() };
                assert!(is_refused, "{key} cut at {cut}");
            }
        }
    }
}
