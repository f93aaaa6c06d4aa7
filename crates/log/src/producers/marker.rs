//! Transaction markers: the control records that end a transaction in a partition.

use bytes::{Buf, BufMut, BytesMut};

use crate::batch::{BATCH_HEADER_LEN, BatchHeader, Compression, NO_SEQUENCE};
use crate::records::{BatchBuilder, inflate, records};

/// The record by which a transaction coordinator ends a transaction in a partition (KIP-98). Key: version, type; value: version,
/// coordinator epoch.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct EndTxnMarker {
    /// Committed, or else aborted.
    pub commit: bool,
    /// Epoch of the coordinator that wrote it.
    pub coordinator_epoch: i32,
}

impl EndTxnMarker {
    /// From a control record; `None` for other kinds of control record and for malformed ones.
    pub fn parse(mut key: &[u8], mut value: &[u8]) -> Option<Self> {
        let key_version = key.try_get_i16().ok()?;
        let commit = match key.try_get_i16().ok()? {
            0 => false,
            1 => true,
            _ => return None,
        };
        let value_version = value.try_get_i16().ok()?;
        let coordinator_epoch = value.try_get_i32().ok()?;
        (key_version >= 0 && value_version >= 0).then_some(Self { commit, coordinator_epoch })
    }

    /// From a whole batch; `None` if it holds no such marker.
    pub fn from_batch(header: &BatchHeader, batch: &[u8]) -> Option<Self> {
        if !header.is_control() || !header.has_producer_id() {
            return None;
        }
        // Markers are a few bytes; nobody compresses them.
        let body = inflate(header, batch, BATCH_HEADER_LEN + batch.len()).ok()?;
        let record = records(header, &body).next()?.ok()?;
        Self::parse(record.key?, record.value?)
    }

    /// The control batch that carries the marker into a partition.
    pub fn to_batch(self, producer_id: i64, producer_epoch: i16, timestamp_ms: i64) -> BytesMut {
        let mut key = [0; 4];
        (&mut key[2..]).put_i16(i16::from(self.commit));
        let mut value = [0; 6];
        (&mut value[2..]).put_i32(self.coordinator_epoch);
        let mut builder = BatchBuilder::new(Compression::None).producer(producer_id, producer_epoch, NO_SEQUENCE, true).control();
        builder.record(timestamp_ms, Some(&key), Some(&value), &[]);
        builder.build()
    }
}
