//! The formats of a WAL file: its header block and its entries.
//!
//! ```text
//! file header, in a block of 4096 bytes      entry, padded to 8 bytes
//!   0  magic "SILTWAL1"                        0  crc32c of bytes 4..56 and the payload
//!   8  version            u32 = 2              4  payload length      u32
//!  12  crc32c of 16..48   u32                  8  salt                u64
//!  16  generation         u64                 16  sequence            u64
//!  24  salt               u64                 24  durable sequence    u64
//!  32  first sequence     u64                 32  topic id            16 bytes
//!  40  previous end       u64                 48  partition           i32
//! 2048 the same again                         52  kind                u8 = 1 (batches), then 3 zero bytes
//!                                             56  payload
//! ```
//! The salt is random, another at each use of a file, and leaves the machine never: payloads, which clients choose, and what an earlier use left
//! can't pass for entries.

use siltstone_common::{TopicId, TopicIdPartition};
use uuid::Uuid;

use crate::batch::{at, batches};
use crate::codec::{Fields, crc32c, crc32c_of_both};

/// Where the entries of a file begin: the header has a block to itself, so that no torn write of an entry can hit it.
pub(crate) const FILE_HEADER_LEN: u64 = 4096;
/// Bytes of one copy of the header in that block.
const FILE_HEADER_FIELDS_LEN: usize = 48;
/// Where the copies begin: in sectors of their own.
const FILE_HEADER_COPIES: [usize; 2] = [0, 2048];
/// Bytes of an entry before its payload.
pub(crate) const ENTRY_HEADER_LEN: usize = 56;
const MAGIC: &[u8; 8] = b"SILTWAL1";
const VERSION: u32 = 2;
const KIND_BATCHES: u8 = 1;
/// A batch of so many bytes is dearer to read than its CRC to combine.
const COMBINED_BYTES_MIN: usize = 16 << 10;

/// Which use of a (recycled) file this is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileHeader {
    /// Strictly increasing over all files ever taken into use in this data directory.
    pub(crate) generation: u64,
    /// In each of its entries.
    pub(crate) salt: u64,
    /// Sequence of the first entry.
    pub(crate) first_sequence: u64,
    /// Sequence after the last entry of the file before. What lies between the two was a torn end, and void, when this use began.
    pub(crate) previous_end: u64,
}

impl FileHeader {
    /// The header's block.
    pub(crate) fn encode(&self) -> [u8; FILE_HEADER_LEN as usize] {
        let mut fields = [0; FILE_HEADER_FIELDS_LEN];
        fields[..8].copy_from_slice(MAGIC);
        fields[8..12].copy_from_slice(&VERSION.to_be_bytes());
        fields[16..24].copy_from_slice(&self.generation.to_be_bytes());
        fields[24..32].copy_from_slice(&self.salt.to_be_bytes());
        fields[32..40].copy_from_slice(&self.first_sequence.to_be_bytes());
        fields[40..].copy_from_slice(&self.previous_end.to_be_bytes());
        let crc = crc32c(&[&fields[16..]]);
        fields[12..16].copy_from_slice(&crc.to_be_bytes());
        let mut block = [0; FILE_HEADER_LEN as usize];
        for at in FILE_HEADER_COPIES {
            block[at..at + FILE_HEADER_FIELDS_LEN].copy_from_slice(&fields);
        }
        block
    }

    /// From a file's first block: of the copies that check out the newer one, since a torn write may have left one of the use before. `None` if
    /// there is none.
    pub(crate) fn decode(block: &[u8]) -> Option<Self> {
        let copies = FILE_HEADER_COPIES.into_iter().filter_map(|at| Self::decode_copy(block.get(at..at + FILE_HEADER_FIELDS_LEN)?));
        copies.max_by_key(|header| header.generation)
    }

    fn decode_copy(fields: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(fields);
        let known = fields.array::<8>()? == *MAGIC && fields.u32()? == VERSION;
        let crc_matches = fields.u32()? == crc32c(&[fields.rest()]);
        let (generation, salt) = (fields.u64()?, fields.u64()?);
        let header = Self { generation, salt, first_sequence: fields.u64()?, previous_end: fields.u64()? };
        (known && crc_matches).then_some(header)
    }
}

/// One entry's header.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct EntryHeader {
    /// Bytes of the payload.
    pub(crate) payload_len: u32,
    /// That of the file's use.
    pub(crate) salt: u64,
    /// Strictly increasing by one over all entries.
    pub(crate) sequence: u64,
    /// Every entry up to this sequence was synced when this one was written: a bad entry at or below it is corruption, one
    /// above it may be a torn end (I37).
    pub(crate) durable_sequence: u64,
    /// Whose batches these are.
    pub(crate) id: TopicIdPartition,
}

impl EntryHeader {
    /// The header's bytes for `payload`: batches whose own CRCs are right.
    pub(crate) fn encode(&self, payload: &[u8]) -> [u8; ENTRY_HEADER_LEN] {
        let mut bytes = [0; ENTRY_HEADER_LEN];
        bytes[4..8].copy_from_slice(&self.payload_len.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.salt.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[24..32].copy_from_slice(&self.durable_sequence.to_be_bytes());
        bytes[32..48].copy_from_slice(self.id.topic_id.0.as_bytes());
        bytes[48..52].copy_from_slice(&self.id.partition.to_be_bytes());
        bytes[52] = KIND_BATCHES;
        let crc = crc_of_entry(&bytes[4..], payload);
        debug_assert_eq!(crc, crc32c(&[&bytes[4..], payload]), "a batch's CRC is not that of its bytes");
        bytes[..4].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// The fields of `bytes`, and the stated CRC; nothing is checked but the kind.
    pub(crate) fn decode(bytes: &[u8]) -> Option<(Self, u32)> {
        let mut fields = Fields::new(bytes.get(..ENTRY_HEADER_LEN)?);
        let crc = fields.u32()?;
        let payload_len = fields.u32()?;
        let (salt, sequence, durable_sequence) = (fields.u64()?, fields.u64()?, fields.u64()?);
        let topic_id = TopicId(Uuid::from_bytes(fields.array()?));
        let id = TopicIdPartition::new(topic_id, fields.i32()?);
        let header = Self { payload_len, salt, sequence, durable_sequence, id };
        (fields.u8()? == KIND_BATCHES).then_some((header, crc))
    }

    /// True if `crc` fits the header's bytes and the payload.
    pub(crate) fn matches(bytes: &[u8; ENTRY_HEADER_LEN], payload: &[u8], crc: u32) -> bool {
        crc32c(&[&bytes[4..], payload]) == crc
    }
}

/// CRC of an entry's header fields and payload. A large batch is not read again: its own CRC tells of its bytes.
fn crc_of_entry(fields: &[u8], payload: &[u8]) -> u32 {
    let mut crc = crc32c(&[fields]);
    let mut rest = payload;
    while let Some((header, batch)) = batches(rest).next().and_then(Result::ok).filter(|(_, batch)| batch.len() >= COMBINED_BYTES_MIN) {
        let (head, covered) = batch.split_at(at::ATTRIBUTES);
        crc = crc32c_of_both(crc, crc32c(&[head]), head.len());
        crc = crc32c_of_both(crc, header.crc, covered.len());
        rest = &rest[batch.len()..];
    }
    crc32c_of_both(crc, crc32c(&[rest]), rest.len())
}

/// Bytes that an entry with this payload takes in the file.
pub(crate) fn entry_len(payload_len: usize) -> usize {
    (ENTRY_HEADER_LEN + payload_len).next_multiple_of(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: TopicIdPartition = TopicIdPartition { topic_id: TopicId(Uuid::from_u128(0x0102_0304)), partition: 7 };

    #[test]
    fn file_header_golden() {
        let header = FileHeader { generation: 3, salt: 0x5a17, first_sequence: 1000, previous_end: 990 };
        let golden = "53494c5457414c3100000002ff64a28d00000000000000030000000000005a17\
            00000000000003e800000000000003de";
        let block = header.encode();
        assert_eq!(hex(&block[..48]), golden);
        assert_eq!(FileHeader::decode(&block), Some(header));
        let mut damaged = block;
        damaged[20] ^= 1;
        assert_eq!(FileHeader::decode(&damaged), Some(header), "by its copy");
        damaged[2048 + 20] ^= 1;
        assert_eq!(FileHeader::decode(&damaged), None);
    }

    #[test]
    fn of_two_uses_in_a_torn_file_header_the_newer_counts() {
        let before = FileHeader { generation: 3, salt: 1, first_sequence: 1000, previous_end: 990 };
        let after = FileHeader { generation: 9, salt: 2, first_sequence: 2000, previous_end: 2000 };
        let torn = |first: FileHeader, second: FileHeader| [&first.encode()[..512], &second.encode()[512..]].concat();
        assert_eq!(FileHeader::decode(&torn(before, after)), Some(after));
        assert_eq!(FileHeader::decode(&torn(after, before)), Some(after));
    }

    #[test]
    fn entry_golden() {
        let header = EntryHeader { payload_len: 5, salt: 3, sequence: 1001, durable_sequence: 999, id: ID };
        let golden = "ef2a207800000005000000000000000300000000000003e900000000000003e7\
            000000000000000000000000010203040000000701000000";
        let bytes = header.encode(b"hello");
        assert_eq!(hex(&bytes), golden);
        let (decoded, crc) = EntryHeader::decode(&bytes).unwrap();
        assert_eq!(decoded, header);
        assert!(EntryHeader::matches(&bytes, b"hello", crc));
        assert!(!EntryHeader::matches(&bytes, b"hellp", crc));
    }

    #[test]
    fn the_crc_of_large_and_small_batches_is_that_of_the_bytes() {
        let header = EntryHeader { payload_len: 0, salt: 3, sequence: 1001, durable_sequence: 999, id: ID };
        let large = crate::testing::batch(0, &[&[7; 40_000]]);
        let small = crate::testing::batch(0, &[b"small"]);
        for batches in [vec![&large[..]], vec![&small[..], &large[..]], vec![&large[..], &large[..], &small[..]]] {
            let payload = batches.concat();
            let bytes = header.encode(&payload);
            assert_eq!(bytes[..4], crc32c(&[&bytes[4..], &payload]).to_be_bytes());
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
