//! Kafka's primitive encodings, as its coordinator records use them. Reading checks every length against what remains.

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

/// Longest text that the int16 length of a classic Kafka string can say.
pub(crate) const STRING_BYTES_MAX: usize = i16::MAX as usize;

/// Bytes that are not what their type and version say.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum WireError {
    #[error("the record is cut short")]
    Truncated,
    #[error("a length is impossible")]
    BadLength,
    #[error("a text is not utf-8")]
    BadText,
    #[error("a field that may not be null is null")]
    Null,
    #[error("version {0} is not known")]
    UnknownVersion(i16),
}

/// Reads fields one after the other. `flexible` switches to compact lengths and tagged fields.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    pub(crate) flexible: bool,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, flexible: false }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        self.take(N)?.try_into().map_err(|_| WireError::Truncated)
    }

    pub(crate) fn i8(&mut self) -> Result<i8, WireError> {
        Ok(i8::from_be_bytes(self.array()?))
    }

    pub(crate) fn uuid(&mut self) -> Result<uuid::Uuid, WireError> {
        Ok(uuid::Uuid::from_bytes(self.array()?))
    }

    pub(crate) fn i16(&mut self) -> Result<i16, WireError> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    pub(crate) fn i32(&mut self) -> Result<i32, WireError> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    pub(crate) fn i64(&mut self) -> Result<i64, WireError> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    fn uvarint(&mut self) -> Result<u32, WireError> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array()?;
            let bits = u32::from(byte & 0x7f);
            if shift == 28 && bits > 0x0f {
                return Err(WireError::BadLength);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(WireError::BadLength)
    }

    /// A length: `None` for null. `wide` for int32 lengths (bytes, arrays), else int16 (strings).
    fn length(&mut self, wide: bool) -> Result<Option<usize>, WireError> {
        let stated = if self.flexible {
            i64::from(self.uvarint()?) - 1
        } else if wide {
            i64::from(self.i32()?)
        } else {
            i64::from(self.i16()?)
        };
        match usize::try_from(stated) {
            Ok(len) => Ok(Some(len)),
            Err(_) if stated == -1 => Ok(None),
            Err(_) => Err(WireError::BadLength),
        }
    }

    pub(crate) fn nullable_string(&mut self) -> Result<Option<String>, WireError> {
        let Some(len) = self.length(false)? else { return Ok(None) };
        let text = std::str::from_utf8(self.take(len)?).map_err(|_| WireError::BadText)?;
        Ok(Some(text.to_owned()))
    }

    pub(crate) fn string(&mut self) -> Result<String, WireError> {
        self.nullable_string()?.ok_or(WireError::Null)
    }

    /// A copy, so that long-lived state does not hold the batch it was read from.
    pub(crate) fn bytes(&mut self) -> Result<Bytes, WireError> {
        let len = self.length(true)?.ok_or(WireError::Null)?;
        Ok(Bytes::copy_from_slice(self.take(len)?))
    }

    pub(crate) fn array_len(&mut self) -> Result<usize, WireError> {
        self.nullable_array_len()?.ok_or(WireError::Null)
    }

    /// The length of an array that may be null.
    pub(crate) fn nullable_array_len(&mut self) -> Result<Option<usize>, WireError> {
        match self.length(true)? {
            Some(len) if len > self.rest.len() => Err(WireError::BadLength),
            len => Ok(len),
        }
    }

    /// Skips the tagged fields at the end of a flexible struct.
    pub(crate) fn tagged_fields(&mut self) -> Result<(), WireError> {
        self.each_tagged_field(|_, _| Ok(()))
    }

    /// Gives each tagged field at the end of a flexible struct to `visit`.
    pub(crate) fn each_tagged_field(&mut self, mut visit: impl FnMut(u32, Reader<'a>) -> Result<(), WireError>) -> Result<(), WireError> {
        if self.flexible {
            for _ in 0..self.uvarint()? {
                let tag = self.uvarint()?;
                let len = self.uvarint()? as usize;
                visit(tag, Reader { rest: self.take(len)?, flexible: true })?;
            }
        }
        Ok(())
    }
}

/// A classic string. Names were checked against [`STRING_BYTES_MAX`] when the request came in.
pub(crate) fn put_string(buf: &mut BytesMut, text: &str) {
    debug_assert!(text.len() <= STRING_BYTES_MAX);
    let text = &text[..text.floor_char_boundary(STRING_BYTES_MAX)];
    buf.put_i16(text.len() as i16);
    buf.put_slice(text.as_bytes());
}

pub(crate) fn put_nullable_string(buf: &mut BytesMut, text: Option<&str>) {
    match text {
        Some(text) => put_string(buf, text),
        None => buf.put_i16(-1),
    }
}

pub(crate) fn put_compact_string(buf: &mut BytesMut, text: &str) {
    put_uvarint(buf, text.len() as u32 + 1);
    buf.put_slice(text.as_bytes());
}

pub(crate) fn put_compact_nullable_string(buf: &mut BytesMut, text: Option<&str>) {
    match text {
        Some(text) => put_compact_string(buf, text),
        None => put_uvarint(buf, 0),
    }
}

pub(crate) fn put_bytes(buf: &mut BytesMut, bytes: &[u8]) {
    buf.put_i32(bytes.len() as i32);
    buf.put_slice(bytes);
}

pub(crate) fn put_uvarint(buf: &mut BytesMut, mut value: u32) {
    while value >= 0x80 {
        buf.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    buf.put_u8(value as u8);
}
