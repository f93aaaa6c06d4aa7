//! Kafka's codecs with a bound on what comes out (decompression bombs end in an error, not in memory).

use std::io::{self, Read, Write};

use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};
use thiserror::Error;

use crate::batch::Compression;

/// What snappy-java writes before its blocks: magic, version 1, compatible with version 1.
const XERIAL_HEADER: [u8; 16] = *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
/// Bytes of the xerial header that tell it from a raw block.
const XERIAL_MAGIC_LEN: usize = 8;
/// Uncompressed bytes per xerial block, snappy-java's default.
const XERIAL_BLOCK_LEN: usize = 32 * 1024;
/// A snappy element of 3 bytes makes at most 64: a block that claims more than this ratio lies.
const SNAPPY_RATIO_MAX: usize = 32;
/// The first guess at the size of what comes out: doubled until it fits.
const FIRST_OUTPUT_LEN: usize = 64 * 1024;
const ZSTD_LEVEL: i32 = 3;

/// Compressed bytes that can't be had back.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum CompressionError {
    /// More than the limit would come out.
    #[error("decompressed data exceeds {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// Not the codec's format.
    #[error("corrupt {codec:?} data: {reason}")]
    Corrupt {
        /// The codec.
        codec: Compression,
        /// What is wrong.
        reason: String,
    },
}

impl CompressionError {
    fn corrupt(codec: Compression, reason: impl ToString) -> Self {
        Self::Corrupt { codec, reason: reason.to_string() }
    }
}

/// Inflates `data`, at most `limit` bytes. Snappy: both Java's framing (xerial) and raw blocks, as Kafka's clients send them.
/// Memory held is at most twice what came out, plus a constant per codec.
///
/// # Errors
/// [`CompressionError::TooLarge`] as soon as the limit is passed, [`CompressionError::Corrupt`] otherwise.
pub fn decompress(codec: Compression, data: &[u8], limit: usize) -> Result<Vec<u8>, CompressionError> {
    let corrupt = |error: io::Error| CompressionError::corrupt(codec, error);
    match codec {
        Compression::None if data.len() > limit => Err(CompressionError::TooLarge { limit }),
        Compression::None => Ok(data.to_vec()),
        // Java's GZIPInputStream reads members one after the other.
        Compression::Gzip => read_bounded(codec, flate2::bufread::MultiGzDecoder::new(data), limit),
        Compression::Snappy => decompress_snappy(data, limit),
        Compression::Lz4 => read_bounded(codec, FrameDecoder::new(data), limit),
        Compression::Zstd => read_bounded(codec, zstd::stream::read::Decoder::with_buffer(data).map_err(corrupt)?, limit),
    }
}

/// Reads to the end in large pieces (`read_to_end`'s small probes cost lz4 most of its speed), at most `limit` bytes.
fn read_bounded(codec: Compression, mut reader: impl Read, limit: usize) -> Result<Vec<u8>, CompressionError> {
    // One byte of room past the limit tells "exactly the limit" from "more".
    let room = limit.saturating_add(1);
    let mut out = Vec::new();
    let mut filled = 0;
    loop {
        if filled == out.len() {
            out.resize(out.len().saturating_mul(2).max(FIRST_OUTPUT_LEN).min(room), 0);
        }
        match reader.read(&mut out[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(CompressionError::corrupt(codec, error)),
        }
        if filled > limit {
            return Err(CompressionError::TooLarge { limit });
        }
    }
    out.truncate(filled);
    Ok(out)
}

fn decompress_snappy(data: &[u8], limit: usize) -> Result<Vec<u8>, CompressionError> {
    let corrupt = |reason: &str| CompressionError::corrupt(Compression::Snappy, reason);
    let mut out = Vec::new();
    if !data.starts_with(&XERIAL_HEADER[..XERIAL_MAGIC_LEN]) {
        inflate_snappy_block(data, &mut out, limit)?;
        return Ok(out);
    }
    let mut rest = data;
    while !rest.is_empty() {
        // Streams may follow one another, each with its header.
        if rest.starts_with(&XERIAL_HEADER[..XERIAL_MAGIC_LEN]) {
            rest = rest.get(XERIAL_HEADER.len()..).ok_or_else(|| corrupt("header is cut short"))?;
            continue;
        }
        let (len, after) = rest.split_first_chunk::<4>().ok_or_else(|| corrupt("block length is cut short"))?;
        let len = usize::try_from(i32::from_be_bytes(*len)).map_err(|_| corrupt("negative block length"))?;
        let (block, after) = after.split_at_checked(len).ok_or_else(|| corrupt("block is cut short"))?;
        inflate_snappy_block(block, &mut out, limit)?;
        rest = after;
    }
    Ok(out)
}

fn inflate_snappy_block(block: &[u8], out: &mut Vec<u8>, limit: usize) -> Result<(), CompressionError> {
    let corrupt = |error: snap::Error| CompressionError::corrupt(Compression::Snappy, error);
    let len = snap::raw::decompress_len(block).map_err(corrupt)?;
    if len > limit.saturating_sub(out.len()) {
        return Err(CompressionError::TooLarge { limit });
    }
    if len > block.len().saturating_mul(SNAPPY_RATIO_MAX) {
        return Err(CompressionError::corrupt(Compression::Snappy, "block claims more than it can hold"));
    }
    let start = out.len();
    out.resize(start + len, 0);
    let written = snap::raw::Decoder::new().decompress(block, &mut out[start..]).map_err(corrupt)?;
    out.truncate(start + written);
    Ok(())
}

/// Deflates `data` in the framing that Kafka's clients expect.
///
/// # Errors
/// [`CompressionError::Corrupt`] if the codec fails, which memory-to-memory it has no cause to.
pub fn compress(codec: Compression, data: &[u8]) -> Result<Vec<u8>, CompressionError> {
    compress_at(codec, None, data)
}

/// As [`compress`], at a level: gzip's 1 to 9, zstd's own; `None` for the codec's default. Our lz4 and snappy have one level.
///
/// # Errors
/// As [`compress`].
pub fn compress_at(codec: Compression, level: Option<i32>, data: &[u8]) -> Result<Vec<u8>, CompressionError> {
    let failed = |error: io::Error| CompressionError::corrupt(codec, error);
    match codec {
        Compression::None => Ok(data.to_vec()),
        Compression::Gzip => {
            let level = level.and_then(|level| u32::try_from(level).ok()).map_or(flate2::Compression::default(), flate2::Compression::new);
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(data).and_then(|()| encoder.finish()).map_err(failed)
        }
        Compression::Snappy => compress_snappy(data),
        Compression::Lz4 => {
            // Java's reader takes independent blocks only.
            let info = FrameInfo::new().block_size(BlockSize::Max64KB).block_mode(BlockMode::Independent);
            let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
            encoder.write_all(data).map_err(failed)?;
            encoder.finish().map_err(|error| CompressionError::corrupt(codec, error))
        }
        Compression::Zstd => zstd::bulk::compress(data, level.unwrap_or(ZSTD_LEVEL)).map_err(failed),
    }
}

fn compress_snappy(data: &[u8]) -> Result<Vec<u8>, CompressionError> {
    let mut out = XERIAL_HEADER.to_vec();
    let mut encoder = snap::raw::Encoder::new();
    for chunk in data.chunks(XERIAL_BLOCK_LEN) {
        let block = encoder.compress_vec(chunk).map_err(|error| CompressionError::corrupt(Compression::Snappy, error))?;
        let len = i32::try_from(block.len()).map_err(|error| CompressionError::corrupt(Compression::Snappy, error))?;
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(&block);
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
