//! The records of `__transaction_state`, byte for byte Kafka's: key version 0; values in version 1 (flexible), version 0 is read too.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use crate::messages::TopicPartition;
use crate::records::wire::{Reader, WireError, put_compact_string, put_string, put_uvarint};
use crate::state_log::StateRecord;
use crate::transaction::messages::{NO_PRODUCER_EPOCH, NO_PRODUCER_ID, TransactionVersion};
use crate::transaction::metadata::{TransactionData, TransactionState};

/// Record type of a transactional id.
const TRANSACTION_LOG_KEY: i16 = 0;
const VALUE_VERSION: i16 = 1;

const PREVIOUS_PRODUCER_ID_TAG: u32 = 0;
const NEXT_PRODUCER_ID_TAG: u32 = 1;
const CLIENT_VERSION_TAG: u32 = 2;

/// A record, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TransactionRecord {
    /// The state of a transactional id, or its end.
    Transaction { transactional_id: String, value: Option<TransactionData> },
    /// A type of record that this version does not know.
    Unknown(i16),
}

/// Reads a record.
pub(crate) fn decode(record: &StateRecord) -> Result<TransactionRecord, WireError> {
    let mut key = Reader::new(&record.key);
    match key.i16()? {
        TRANSACTION_LOG_KEY => {
            let transactional_id = key.string()?;
            let value = record.value.as_deref().map(decode_value).transpose()?;
            Ok(TransactionRecord::Transaction { transactional_id, value })
        }
        other => Ok(TransactionRecord::Unknown(other)),
    }
}

fn decode_value(value: &[u8]) -> Result<TransactionData, WireError> {
    let mut reader = Reader::new(value);
    match reader.i16()? {
        0 => {}
        1 => reader.flexible = true,
        other => return Err(WireError::UnknownVersion(other)),
    }
    let mut data = TransactionData {
        producer_id: reader.i64()?,
        previous_producer_id: NO_PRODUCER_ID,
        next_producer_id: NO_PRODUCER_ID,
        producer_epoch: reader.i16()?,
        last_producer_epoch: NO_PRODUCER_EPOCH,
        timeout_ms: reader.i32()?,
        state: reader.i8().map(TransactionState::from_id)?.ok_or(WireError::BadLength)?,
        partitions: Default::default(),
        start_timestamp_ms: -1,
        last_update_timestamp_ms: -1,
        client_version: TransactionVersion::V1,
    };
    for _ in 0..reader.nullable_array_len()?.unwrap_or(0) {
        let topic: Arc<str> = reader.string()?.into();
        for _ in 0..reader.array_len()? {
            data.partitions.insert(TopicPartition { topic: topic.clone(), partition: reader.i32()? });
        }
        reader.tagged_fields()?;
    }
    data.last_update_timestamp_ms = reader.i64()?;
    data.start_timestamp_ms = reader.i64()?;
    reader.each_tagged_field(|tag, mut field| {
        match tag {
            PREVIOUS_PRODUCER_ID_TAG => data.previous_producer_id = field.i64()?,
            NEXT_PRODUCER_ID_TAG => data.next_producer_id = field.i64()?,
            CLIENT_VERSION_TAG => data.client_version = TransactionVersion::from_level(field.i16()?),
            _ => {}
        }
        Ok(())
    })?;
    Ok(data)
}

/// The record of a transactional id; a tombstone without `value`.
pub(crate) fn transaction_record(transactional_id: &str, value: Option<&TransactionData>) -> StateRecord {
    let mut key = BytesMut::with_capacity(4 + transactional_id.len());
    key.put_i16(TRANSACTION_LOG_KEY);
    put_string(&mut key, transactional_id);
    StateRecord { key: key.freeze(), value: value.map(encode_value) }
}

fn encode_value(data: &TransactionData) -> Bytes {
    let mut buf = BytesMut::with_capacity(64 + 32 * data.partitions.len());
    buf.put_i16(VALUE_VERSION);
    buf.put_i64(data.producer_id);
    buf.put_i16(data.producer_epoch);
    buf.put_i32(data.timeout_ms);
    buf.put_i8(data.state as i8);
    put_partitions(&mut buf, data);
    buf.put_i64(data.last_update_timestamp_ms);
    buf.put_i64(data.start_timestamp_ms);
    let ids = [(PREVIOUS_PRODUCER_ID_TAG, data.previous_producer_id), (NEXT_PRODUCER_ID_TAG, data.next_producer_id)];
    let ids: Vec<_> = ids.into_iter().filter(|(_, id)| *id != NO_PRODUCER_ID).collect();
    let level = data.client_version.level();
    put_uvarint(&mut buf, ids.len() as u32 + u32::from(level != 0));
    for (tag, id) in ids {
        put_uvarint(&mut buf, tag);
        put_uvarint(&mut buf, 8);
        buf.put_i64(id);
    }
    if level != 0 {
        put_uvarint(&mut buf, CLIENT_VERSION_TAG);
        put_uvarint(&mut buf, 2);
        buf.put_i16(level);
    }
    buf.freeze()
}

/// By topic; null for a transactional id without a transaction, as Kafka writes it.
fn put_partitions(buf: &mut BytesMut, data: &TransactionData) {
    if data.state == TransactionState::Empty {
        return put_uvarint(buf, 0);
    }
    let mut topics: Vec<(&str, Vec<i32>)> = Vec::new();
    for id in &data.partitions {
        match topics.last_mut() {
            Some((topic, partitions)) if *topic == &*id.topic => partitions.push(id.partition),
            _ => topics.push((&id.topic, vec![id.partition])),
        }
    }
    put_uvarint(buf, topics.len() as u32 + 1);
    for (topic, partitions) in topics {
        put_compact_string(buf, topic);
        put_uvarint(buf, partitions.len() as u32 + 1);
        partitions.iter().for_each(|partition| buf.put_i32(*partition));
        put_uvarint(buf, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(state: TransactionState, partitions: &[(&str, i32)]) -> TransactionData {
        let partitions = partitions.iter().map(|(topic, partition)| TopicPartition { topic: (*topic).into(), partition: *partition });
        TransactionData {
            producer_id: 7,
            previous_producer_id: 7,
            next_producer_id: NO_PRODUCER_ID,
            producer_epoch: 3,
            last_producer_epoch: NO_PRODUCER_EPOCH,
            timeout_ms: 60_000,
            state,
            partitions: partitions.collect(),
            start_timestamp_ms: 11,
            last_update_timestamp_ms: 12,
            client_version: TransactionVersion::V2,
        }
    }

    #[test]
    fn a_record_comes_back_as_it_was() {
        for data in [
            data(TransactionState::Empty, &[]),
            data(TransactionState::Ongoing, &[("a", 0), ("a", 7), ("b", 2)]),
            TransactionData { next_producer_id: 99, ..data(TransactionState::PrepareAbort, &[("a", 1)]) },
            TransactionData { client_version: TransactionVersion::V1, ..data(TransactionState::CompleteCommit, &[]) },
        ] {
            let record = transaction_record("id", Some(&data));
            let expected = TransactionRecord::Transaction { transactional_id: "id".to_owned(), value: Some(data) };
            assert_eq!(decode(&record), Ok(expected));
        }
        let expected = TransactionRecord::Transaction { transactional_id: "id".to_owned(), value: None };
        assert_eq!(decode(&transaction_record("id", None)), Ok(expected));
    }

    #[test]
    fn the_bytes_are_kafkas() {
        let record = transaction_record("id", Some(&data(TransactionState::Ongoing, &[("t", 0), ("t", 2)])));
        assert_eq!(&record.key[..], [0, 0, 0, 2, b'i', b'd']);
        let value: Vec<u8> = [
            &[0, 1][..],
            &7i64.to_be_bytes(),
            &3i16.to_be_bytes(),
            &60_000i32.to_be_bytes(),
            &[1, 2, 2, b't', 3, 0, 0, 0, 0, 0, 0, 0, 2, 0],
            &12i64.to_be_bytes(),
            &11i64.to_be_bytes(),
            &[2, 0, 8],
            &7i64.to_be_bytes(),
            &[2, 2, 0, 2],
        ]
        .concat();
        assert_eq!(record.value.as_deref(), Some(&value[..]));
    }

    #[test]
    fn version_0_is_read_and_nonsense_is_an_error() {
        let mut value = BytesMut::new();
        value.put_i16(0);
        value.put_i64(7);
        value.put_i16(3);
        value.put_i32(60_000);
        value.put_i8(1);
        value.put_i32(1);
        put_string(&mut value, "a");
        value.put_i32(1);
        value.put_i32(5);
        value.put_i64(12);
        value.put_i64(11);
        let key = transaction_record("id", None).key;
        let record = StateRecord { key: key.clone(), value: Some(value.clone().freeze()) };
        let expected = TransactionData {
            previous_producer_id: NO_PRODUCER_ID,
            client_version: TransactionVersion::V1,
            ..data(TransactionState::Ongoing, &[("a", 5)])
        };
        assert_eq!(decode(&record), Ok(TransactionRecord::Transaction { transactional_id: "id".to_owned(), value: Some(expected) }));
        for len in 0..value.len() {
            let cut = StateRecord { key: key.clone(), value: Some(value.clone().freeze().slice(..len)) };
            assert!(decode(&cut).is_err(), "{len}");
        }
    }
}
