//! The records of consumer groups (KIP-848), version 0 of each, as Kafka 4.3 writes them.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes, BytesMut};
use siltstone_common::TopicId;

use super::wire::{Reader, WireError, put_compact_nullable_string, put_compact_string, put_string, put_uvarint};
use crate::assignor::Assignment;
use crate::consumer::{ClassicProfile, ConsumerRecord, CurrentAssignment, MemberProfile, MemberState, PartitionEpochs, ResolvedRegex};
use crate::messages::Protocol;
use crate::state_log::StateRecord;

const GROUP_METADATA_KEY: i16 = 3;
const PARTITION_METADATA_KEY: i16 = 4;
const MEMBER_METADATA_KEY: i16 = 5;
const TARGET_ASSIGNMENT_METADATA_KEY: i16 = 6;
const TARGET_ASSIGNMENT_MEMBER_KEY: i16 = 7;
const CURRENT_MEMBER_ASSIGNMENT_KEY: i16 = 8;
const REGULAR_EXPRESSION_KEY: i16 = 16;

const VALUE_VERSION: i16 = 0;

/// First byte of a tagged struct that may be null.
const PRESENT: i8 = 1;
/// Written even so, as Kafka does.
const ABSENT: u8 = 0;

/// True for the types that are read here.
pub(super) fn is_consumer_record(kind: i16) -> bool {
    matches!(kind, GROUP_METADATA_KEY..=CURRENT_MEMBER_ASSIGNMENT_KEY | REGULAR_EXPRESSION_KEY)
}

/// A record of a consumer group; its key begins after the type.
pub(super) fn decode(kind: i16, key: &mut Reader<'_>, value: Option<&[u8]>) -> Result<(String, ConsumerRecord), WireError> {
    let group = key.string()?;
    let record = match kind {
        GROUP_METADATA_KEY => ConsumerRecord::Epoch(read(value, read_epoch)?),
        PARTITION_METADATA_KEY => ConsumerRecord::PartitionMetadata { exists: value.is_some() },
        MEMBER_METADATA_KEY => {
            ConsumerRecord::Member { member_id: key.string()?.into(), profile: read(value, read_profile)?.map(Box::new) }
        }
        TARGET_ASSIGNMENT_METADATA_KEY => ConsumerRecord::TargetEpoch(read(value, read_epoch)?),
        TARGET_ASSIGNMENT_MEMBER_KEY => ConsumerRecord::Target { member_id: key.string()?.into(), target: read(value, read_target)? },
        CURRENT_MEMBER_ASSIGNMENT_KEY => {
            ConsumerRecord::Current { member_id: key.string()?.into(), current: read(value, read_current)?.map(Box::new) }
        }
        _ => ConsumerRecord::Regex { regex: key.string()?, resolved: read(value, read_regex)? },
    };
    Ok((group, record))
}

/// A value of version 0, whose fields are flexible.
fn read<T>(value: Option<&[u8]>, fields: fn(&mut Reader<'_>) -> Result<T, WireError>) -> Result<Option<T>, WireError> {
    let Some(value) = value else { return Ok(None) };
    let mut reader = Reader::new(value);
    match reader.i16()? {
        VALUE_VERSION => reader.flexible = true,
        other => return Err(WireError::UnknownVersion(other)),
    }
    fields(&mut reader).map(Some)
}

/// An epoch, and under tag 0 a hash or a time.
fn read_epoch(reader: &mut Reader<'_>) -> Result<(i32, i64), WireError> {
    let epoch = reader.i32()?;
    let mut tagged = 0;
    reader.each_tagged_field(|tag, mut field| {
        if tag == 0 {
            tagged = field.i64()?;
        }
        Ok(())
    })?;
    Ok((epoch, tagged))
}

fn read_profile(reader: &mut Reader<'_>) -> Result<MemberProfile, WireError> {
    let mut profile = MemberProfile {
        instance_id: reader.nullable_string()?,
        rack_id: reader.nullable_string()?,
        client_id: reader.string()?,
        client_host: reader.string()?,
        subscribed_topics: read_strings(reader)?,
        subscribed_regex: reader.nullable_string()?.unwrap_or_default(),
        rebalance_timeout_ms: reader.i32()?,
        server_assignor: reader.nullable_string()?,
        classic: None,
    };
    reader.each_tagged_field(|tag, mut field| {
        if tag == 0 && field.i8()? == PRESENT {
            profile.classic = Some(read_classic(&mut field)?);
        }
        Ok(())
    })?;
    Ok(profile)
}

fn read_classic(reader: &mut Reader<'_>) -> Result<ClassicProfile, WireError> {
    let session_timeout_ms = reader.i32()?;
    let mut protocols = Vec::new();
    for _ in 0..reader.array_len()? {
        let protocol = Protocol { name: reader.string()?, metadata: reader.bytes()? };
        reader.tagged_fields()?;
        protocols.push(protocol);
    }
    reader.tagged_fields()?;
    Ok(ClassicProfile { session_timeout_ms, protocols })
}

fn read_strings(reader: &mut Reader<'_>) -> Result<BTreeSet<String>, WireError> {
    (0..reader.array_len()?).map(|_| reader.string()).collect()
}

fn read_ints(reader: &mut Reader<'_>) -> Result<Vec<i32>, WireError> {
    (0..reader.array_len()?).map(|_| reader.i32()).collect()
}

fn read_target(reader: &mut Reader<'_>) -> Result<Assignment, WireError> {
    let mut target = Assignment::new();
    for _ in 0..reader.array_len()? {
        let topic = TopicId(reader.uuid()?);
        target.insert(topic, read_ints(reader)?.into_iter().collect());
        reader.tagged_fields()?;
    }
    reader.tagged_fields()?;
    Ok(target)
}

fn read_current(reader: &mut Reader<'_>) -> Result<CurrentAssignment, WireError> {
    let epoch = reader.i32()?;
    let current = CurrentAssignment {
        epoch,
        previous_epoch: reader.i32()?,
        state: MemberState::from_code(reader.i8()?),
        assigned: read_partition_epochs(reader, epoch)?,
        revoking: read_partition_epochs(reader, epoch)?,
    };
    reader.tagged_fields()?;
    Ok(current)
}

/// Records of older versions have no epochs by partition: the member's counts.
fn read_partition_epochs(reader: &mut Reader<'_>, member_epoch: i32) -> Result<PartitionEpochs, WireError> {
    let mut owned = PartitionEpochs::new();
    for _ in 0..reader.array_len()? {
        let topic = TopicId(reader.uuid()?);
        let partitions = read_ints(reader)?;
        let mut epochs = Vec::new();
        reader.each_tagged_field(|tag, mut field| {
            if tag == 0 {
                epochs = field.nullable_array_len()?.map(|len| (0..len).map(|_| field.i32()).collect()).transpose()?.unwrap_or_default();
            }
            Ok(())
        })?;
        if epochs.len() != partitions.len() {
            epochs = vec![member_epoch.max(0); partitions.len()];
        }
        owned.insert(topic, partitions.into_iter().zip(epochs).collect());
    }
    Ok(owned)
}

fn read_regex(reader: &mut Reader<'_>) -> Result<ResolvedRegex, WireError> {
    let resolved = ResolvedRegex { topics: read_strings(reader)?, version: reader.i64()?, timestamp_ms: reader.i64()? };
    reader.tagged_fields()?;
    Ok(resolved)
}

/// The record of a change to a consumer group.
pub(crate) fn consumer_record(group: &str, record: &ConsumerRecord) -> StateRecord {
    let (kind, part, value) = match record {
        ConsumerRecord::Epoch(value) => (GROUP_METADATA_KEY, None, value.map(|(epoch, hash)| epoch_value(epoch, hash))),
        ConsumerRecord::PartitionMetadata { .. } => (PARTITION_METADATA_KEY, None, None),
        ConsumerRecord::Member { member_id, profile } => (MEMBER_METADATA_KEY, Some(&**member_id), profile.as_deref().map(profile_value)),
        ConsumerRecord::TargetEpoch(value) => {
            (TARGET_ASSIGNMENT_METADATA_KEY, None, value.map(|(epoch, timestamp_ms)| epoch_value(epoch, timestamp_ms)))
        }
        ConsumerRecord::Target { member_id, target } => {
            (TARGET_ASSIGNMENT_MEMBER_KEY, Some(&**member_id), target.as_ref().map(target_value))
        }
        ConsumerRecord::Current { member_id, current } => {
            (CURRENT_MEMBER_ASSIGNMENT_KEY, Some(&**member_id), current.as_deref().map(current_value))
        }
        ConsumerRecord::Regex { regex, resolved } => (REGULAR_EXPRESSION_KEY, Some(regex.as_str()), resolved.as_ref().map(regex_value)),
    };
    let mut key = BytesMut::with_capacity(6 + group.len() + part.map_or(0, str::len));
    key.put_i16(kind);
    put_string(&mut key, group);
    part.into_iter().for_each(|part| put_string(&mut key, part));
    StateRecord { key: key.freeze(), value }
}

fn value() -> BytesMut {
    let mut buf = BytesMut::new();
    buf.put_i16(VALUE_VERSION);
    buf
}

/// One tagged field, number 0.
fn put_tag(buf: &mut BytesMut, field: &[u8]) {
    put_uvarint(buf, 1);
    put_uvarint(buf, 0);
    put_uvarint(buf, field.len() as u32);
    buf.put_slice(field);
}

fn put_len(buf: &mut BytesMut, len: usize) {
    put_uvarint(buf, len as u32 + 1);
}

/// A tagged field with its default value is left out.
fn epoch_value(epoch: i32, tagged: i64) -> Bytes {
    let mut buf = value();
    buf.put_i32(epoch);
    match tagged {
        0 => put_uvarint(&mut buf, 0),
        _ => put_tag(&mut buf, &tagged.to_be_bytes()),
    }
    buf.freeze()
}

fn profile_value(profile: &MemberProfile) -> Bytes {
    let mut buf = value();
    put_compact_nullable_string(&mut buf, profile.instance_id.as_deref());
    put_compact_nullable_string(&mut buf, profile.rack_id.as_deref());
    put_compact_string(&mut buf, &profile.client_id);
    put_compact_string(&mut buf, &profile.client_host);
    put_strings(&mut buf, &profile.subscribed_topics);
    put_compact_string(&mut buf, &profile.subscribed_regex);
    buf.put_i32(profile.rebalance_timeout_ms);
    put_compact_nullable_string(&mut buf, profile.server_assignor.as_deref());
    let Some(classic) = &profile.classic else {
        put_tag(&mut buf, &[ABSENT]);
        return buf.freeze();
    };
    let mut field = BytesMut::new();
    field.put_i8(PRESENT);
    field.put_i32(classic.session_timeout_ms);
    put_len(&mut field, classic.protocols.len());
    for protocol in &classic.protocols {
        put_compact_string(&mut field, &protocol.name);
        put_len(&mut field, protocol.metadata.len());
        field.put_slice(&protocol.metadata);
        put_uvarint(&mut field, 0);
    }
    put_uvarint(&mut field, 0);
    put_tag(&mut buf, &field);
    buf.freeze()
}

fn put_strings(buf: &mut BytesMut, texts: &BTreeSet<String>) {
    put_len(buf, texts.len());
    texts.iter().for_each(|text| put_compact_string(buf, text));
}

fn target_value(target: &Assignment) -> Bytes {
    let mut buf = value();
    put_len(&mut buf, target.len());
    for (topic, partitions) in target {
        buf.put_slice(topic.0.as_bytes());
        put_len(&mut buf, partitions.len());
        partitions.iter().for_each(|partition| buf.put_i32(*partition));
        put_uvarint(&mut buf, 0);
    }
    put_uvarint(&mut buf, 0);
    buf.freeze()
}

fn current_value(current: &CurrentAssignment) -> Bytes {
    let mut buf = value();
    buf.put_i32(current.epoch);
    buf.put_i32(current.previous_epoch);
    buf.put_i8(current.state.code());
    for owned in [&current.assigned, &current.revoking] {
        put_len(&mut buf, owned.len());
        owned.iter().for_each(|(topic, partitions)| put_partition_epochs(&mut buf, *topic, partitions));
    }
    put_uvarint(&mut buf, 0);
    buf.freeze()
}

fn put_partition_epochs(buf: &mut BytesMut, topic: TopicId, partitions: &BTreeMap<i32, i32>) {
    buf.put_slice(topic.0.as_bytes());
    put_len(buf, partitions.len());
    partitions.keys().for_each(|partition| buf.put_i32(*partition));
    let mut field = BytesMut::new();
    put_len(&mut field, partitions.len());
    partitions.values().for_each(|epoch| field.put_i32(*epoch));
    put_tag(buf, &field);
}

fn regex_value(resolved: &ResolvedRegex) -> Bytes {
    let mut buf = value();
    put_strings(&mut buf, &resolved.topics);
    buf.put_i64(resolved.version);
    buf.put_i64(resolved.timestamp_ms);
    put_uvarint(&mut buf, 0);
    buf.freeze()
}
