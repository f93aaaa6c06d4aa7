//! The admission guard: what a request's bytes claim is checked against the bytes that are there, before anything is allocated for them.
//!
//! The codec trusts lengths on the wire (an array count goes straight into an allocation, unknown tagged fields are kept in maps), so every
//! frame is first walked along a skeleton of its API: the kinds of its fields in its version. The walk allocates nothing. It refuses a length
//! beyond the bytes that remain, more unknown tags than any client sends, elements whose structs would need far more memory than
//! their bytes, and questions that ask for too many things at once (I42); it ends with an estimate of what decoding will allocate. Bytes after the last field are ignored, as Kafka ignores them.

mod skeletons;
mod walker;

pub(crate) use skeletons::skeleton;
pub(crate) use walker::{Malformed, Walker};

use crate::limits::{QUESTION_PARTS_MAX, QUESTIONS};

/// The fixed part of a request header, and where the body begins.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RequestHead<'a> {
    /// Matches the answer to the request.
    pub correlation_id: i32,
    /// The client's name for itself.
    pub client_id: Option<&'a str>,
    /// Offset of the body in the frame.
    pub body_start: usize,
}

/// Bytes of key, version, correlation id: what every frame must have.
pub(crate) const FIXED_HEAD_BYTES: usize = 8;

/// Key and version, which say how the rest is to be read; `None` if the frame is too short.
pub(crate) fn key_and_version(frame: &[u8]) -> Option<(i16, i16)> {
    let head: [u8; 4] = frame.get(..4)?.try_into().ok()?;
    Some((i16::from_be_bytes([head[0], head[1]]), i16::from_be_bytes([head[2], head[3]])))
}

/// The correlation id, which stands at the same place in every header.
pub(crate) fn correlation_id(frame: &[u8]) -> Option<i32> {
    frame.get(4..FIXED_HEAD_BYTES)?.try_into().ok().map(i32::from_be_bytes)
}

/// Reads the request header in `header_version` (1, or 2 with a tag section).
pub(crate) fn request_head(frame: &[u8], header_version: i16) -> Result<RequestHead<'_>, Malformed> {
    let correlation_id = correlation_id(frame).ok_or(Malformed::Truncated)?;
    let mut walker = Walker::new(frame, FIXED_HEAD_BYTES, 0, false);
    let client_id = walker.nullable_str()?;
    if header_version >= 2 {
        walker.set_flexible(true);
        walker.tags(&[])?;
    }
    Ok(RequestHead { correlation_id, client_id, body_start: walker.position() })
}

/// Walks a request's body (which starts at `body_start`) along its skeleton; bytes that its decoded form will take.
pub(crate) fn admit(frame: &[u8], body_start: usize, key: i16, version: i16) -> Result<usize, Malformed> {
    let skeleton = skeleton(key).ok_or(Malformed::NoSkeleton)?;
    let mut walker = Walker::new(frame, body_start, version, version >= skeleton.flexible_from);
    walker.fields(skeleton.fields)?;
    if QUESTIONS.contains(&key) && walker.parts() > QUESTION_PARTS_MAX {
        return Err(Malformed::TooManyParts(walker.parts()));
    }
    walker.estimate()
}

#[cfg(test)]
mod amplification;
#[cfg(test)]
mod mutation;
#[cfg(test)]
mod tests;
