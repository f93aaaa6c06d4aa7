//! The records of `__consumer_offsets`, byte for byte Kafka's, so that Kafka's tools can read the topic.
//!
//! A key is an int16 record type and its fields; a value is an int16 version and its fields. Written as Kafka 4.3 writes
//! them: offset values in version 4 (version 1 with an expiry of their own), group values in version 3. All versions
//! that Kafka ever wrote are read.

mod consumer;
pub(crate) mod wire;

#[cfg(test)]
mod tests;

use bytes::{BufMut, Bytes, BytesMut};

use crate::consumer::ConsumerRecord;
use crate::offsets::OffsetAndMetadata;
use crate::state_log::StateRecord;
pub(crate) use consumer::consumer_record;
use wire::{Reader, put_bytes, put_compact_string, put_nullable_string, put_string, put_uvarint};
pub(crate) use wire::{STRING_BYTES_MAX, WireError};

/// Record type of an offset as brokers before 0.9 wrote it; its fields are those of [`OFFSET_COMMIT_KEY`].
const LEGACY_OFFSET_COMMIT_KEY: i16 = 0;
/// Record type of a committed offset.
const OFFSET_COMMIT_KEY: i16 = 1;
/// Record type of a classic group's metadata.
const GROUP_METADATA_KEY: i16 = 2;

const OFFSET_COMMIT_VALUE_VERSION: i16 = 4;
const OFFSET_COMMIT_VALUE_VERSION_WITH_EXPIRY: i16 = 1;
const GROUP_METADATA_VALUE_VERSION: i16 = 3;

/// GroupMetadataValue: a generation of a classic group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupMetadata {
    /// Empty for none.
    pub(crate) protocol_type: String,
    pub(crate) generation: i32,
    pub(crate) protocol: Option<String>,
    pub(crate) leader: Option<String>,
    /// -1 for unknown.
    pub(crate) current_state_timestamp_ms: i64,
    pub(crate) members: Vec<MemberMetadata>,
}

/// A member in [`GroupMetadata`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemberMetadata {
    pub(crate) member_id: String,
    pub(crate) group_instance_id: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    /// -1 in version 0: the session timeout counts.
    pub(crate) rebalance_timeout_ms: i32,
    pub(crate) session_timeout_ms: i32,
    pub(crate) subscription: Bytes,
    pub(crate) assignment: Bytes,
}

/// A record, read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum GroupRecord {
    /// A committed offset, or its end.
    Offset { group: String, topic: String, partition: i32, value: Option<OffsetAndMetadata> },
    /// A classic group's generation, or its end.
    Group { group: String, value: Option<GroupMetadata> },
    /// A change to a consumer group.
    Consumer { group: String, record: ConsumerRecord },
    /// A type of record that this version does not know.
    Unknown(i16),
}

/// Reads a record.
pub(crate) fn decode(record: &StateRecord) -> Result<GroupRecord, WireError> {
    let mut key = Reader::new(&record.key);
    match key.i16()? {
        LEGACY_OFFSET_COMMIT_KEY | OFFSET_COMMIT_KEY => {
            let (group, topic, partition) = (key.string()?, key.string()?, key.i32()?);
            let value = record.value.as_deref().map(decode_offset).transpose()?;
            Ok(GroupRecord::Offset { group, topic, partition, value })
        }
        GROUP_METADATA_KEY => {
            let group = key.string()?;
            let value = record.value.as_deref().map(decode_group).transpose()?;
            Ok(GroupRecord::Group { group, value })
        }
        kind if consumer::is_consumer_record(kind) => {
            let (group, record) = consumer::decode(kind, &mut key, record.value.as_deref())?;
            Ok(GroupRecord::Consumer { group, record })
        }
        other => Ok(GroupRecord::Unknown(other)),
    }
}

fn decode_offset(value: &[u8]) -> Result<OffsetAndMetadata, WireError> {
    let mut reader = Reader::new(value);
    let version = version(&mut reader)?;
    let offset = reader.i64()?;
    let leader_epoch = if version >= 3 { reader.i32()? } else { -1 };
    let metadata = reader.string()?;
    let commit_timestamp_ms = reader.i64()?;
    let expire_timestamp_ms = if version == 1 { Some(reader.i64()?).filter(|expiry| *expiry != -1) } else { None };
    reader.tagged_fields()?;
    Ok(OffsetAndMetadata { offset, leader_epoch, metadata, commit_timestamp_ms, expire_timestamp_ms })
}

fn decode_group(value: &[u8]) -> Result<GroupMetadata, WireError> {
    let mut reader = Reader::new(value);
    let version = version(&mut reader)?;
    let protocol_type = reader.string()?;
    let generation = reader.i32()?;
    let protocol = reader.nullable_string()?;
    let leader = reader.nullable_string()?;
    let current_state_timestamp_ms = if version >= 2 { reader.i64()? } else { -1 };
    let mut members = Vec::new();
    for _ in 0..reader.array_len()? {
        members.push(decode_member(&mut reader, version)?);
    }
    reader.tagged_fields()?;
    Ok(GroupMetadata { protocol_type, generation, protocol, leader, current_state_timestamp_ms, members })
}

fn decode_member(reader: &mut Reader<'_>, version: i16) -> Result<MemberMetadata, WireError> {
    let member = MemberMetadata {
        member_id: reader.string()?,
        group_instance_id: if version >= 3 { reader.nullable_string()? } else { None },
        client_id: reader.string()?,
        client_host: reader.string()?,
        rebalance_timeout_ms: if version >= 1 { reader.i32()? } else { -1 },
        session_timeout_ms: reader.i32()?,
        subscription: reader.bytes()?,
        assignment: reader.bytes()?,
    };
    reader.tagged_fields()?;
    Ok(member)
}

fn version(reader: &mut Reader<'_>) -> Result<i16, WireError> {
    match reader.i16()? {
        version @ 0..=4 => {
            reader.flexible = version >= 4;
            Ok(version)
        }
        other => Err(WireError::UnknownVersion(other)),
    }
}

/// The record of a committed offset; a tombstone without `value`.
pub(crate) fn offset_record(group: &str, topic: &str, partition: i32, value: Option<&OffsetAndMetadata>) -> StateRecord {
    let mut key = BytesMut::with_capacity(10 + group.len() + topic.len());
    key.put_i16(OFFSET_COMMIT_KEY);
    put_string(&mut key, group);
    put_string(&mut key, topic);
    key.put_i32(partition);
    StateRecord { key: key.freeze(), value: value.map(encode_offset) }
}

fn encode_offset(value: &OffsetAndMetadata) -> Bytes {
    let mut buf = BytesMut::with_capacity(32 + value.metadata.len());
    if let Some(expire_timestamp_ms) = value.expire_timestamp_ms {
        buf.put_i16(OFFSET_COMMIT_VALUE_VERSION_WITH_EXPIRY);
        buf.put_i64(value.offset);
        put_string(&mut buf, &value.metadata);
        buf.put_i64(value.commit_timestamp_ms);
        buf.put_i64(expire_timestamp_ms);
        return buf.freeze();
    }
    buf.put_i16(OFFSET_COMMIT_VALUE_VERSION);
    buf.put_i64(value.offset);
    buf.put_i32(value.leader_epoch);
    put_compact_string(&mut buf, &value.metadata);
    buf.put_i64(value.commit_timestamp_ms);
    put_uvarint(&mut buf, 0);
    buf.freeze()
}

/// The record of a classic group's generation; a tombstone without `value`.
pub(crate) fn group_record(group: &str, value: Option<&GroupMetadata>) -> StateRecord {
    let mut key = BytesMut::with_capacity(4 + group.len());
    key.put_i16(GROUP_METADATA_KEY);
    put_string(&mut key, group);
    StateRecord { key: key.freeze(), value: value.map(encode_group) }
}

fn encode_group(value: &GroupMetadata) -> Bytes {
    let mut buf = BytesMut::with_capacity(64 + 256 * value.members.len());
    buf.put_i16(GROUP_METADATA_VALUE_VERSION);
    put_string(&mut buf, &value.protocol_type);
    buf.put_i32(value.generation);
    put_nullable_string(&mut buf, value.protocol.as_deref());
    put_nullable_string(&mut buf, value.leader.as_deref());
    buf.put_i64(value.current_state_timestamp_ms);
    buf.put_i32(value.members.len() as i32);
    for member in &value.members {
        put_string(&mut buf, &member.member_id);
        put_nullable_string(&mut buf, member.group_instance_id.as_deref());
        put_string(&mut buf, &member.client_id);
        put_string(&mut buf, &member.client_host);
        buf.put_i32(member.rebalance_timeout_ms);
        buf.put_i32(member.session_timeout_ms);
        put_bytes(&mut buf, &member.subscription);
        put_bytes(&mut buf, &member.assignment);
    }
    buf.freeze()
}
