//! The envelope of every small file that the log persists: magic, version, body, CRC-32C of all before it. Big-endian.

use bytes::{BufMut, Bytes, BytesMut};

/// Bytes before the body: magic and version.
const PREFIX_LEN: usize = 6;
/// Bytes after the body.
const CRC_LEN: usize = 4;

/// Bytes that are not a sealed body of the wanted kind.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnsealError {
    /// Fewer bytes than there should be.
    #[error("cut short")]
    Truncated,
    /// Another kind of file, or none of ours.
    #[error("not a file of this kind")]
    BadMagic,
    /// A format that this release does not know.
    #[error("version {0} is not known: it was written by a newer release")]
    BadVersion(u16),
    /// The bytes are not those that were written.
    #[error("checksum mismatch")]
    BadCrc,
    /// Checksummed, but it makes no sense.
    #[error("{0}")]
    Invalid(&'static str),
}

impl From<bytes::TryGetError> for UnsealError {
    fn from(_: bytes::TryGetError) -> Self {
        Self::Truncated
    }
}

fn crc(bytes: &[u8]) -> u32 {
    // The algorithm is 32 bits wide; the crate hands every checksum out in 64.
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// Wraps what `body` writes.
pub(crate) fn seal(magic: [u8; 4], version: u16, body: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::new();
    out.put_slice(&magic);
    out.put_u16(version);
    body(&mut out);
    let crc = crc(&out);
    out.put_u32(crc);
    out.freeze()
}

/// The body, if envelope, version and checksum are right.
pub(crate) fn unseal(magic: [u8; 4], version: u16, bytes: &[u8]) -> Result<&[u8], UnsealError> {
    if bytes.len() < PREFIX_LEN + CRC_LEN {
        return Err(UnsealError::Truncated);
    }
    let (covered, stated) = bytes.split_last_chunk::<CRC_LEN>().ok_or(UnsealError::Truncated)?;
    if covered[..4] != magic {
        return Err(UnsealError::BadMagic);
    }
    if crc(covered) != u32::from_be_bytes(*stated) {
        return Err(UnsealError::BadCrc);
    }
    match u16::from_be_bytes([covered[4], covered[5]]) {
        found if found == version => Ok(&covered[PREFIX_LEN..]),
        other => Err(UnsealError::BadVersion(other)),
    }
}
