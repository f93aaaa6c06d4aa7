//! The field `throttle_time_ms` of an answer that is encoded already. Where it stands is part of Kafka's published message schemas.

use bytes::BytesMut;
use siltstone_log::LogSlice;

use crate::answer::LENGTH_PREFIX_BYTES;

const CORRELATION_ID_BYTES: usize = 4;
const FIELD_BYTES: usize = 4;

/// Where the field stands in the body.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Place {
    /// So many bytes after the beginning.
    At(usize),
    /// Right before the end; flexible versions end with an empty tag section.
    AtEnd,
}

fn place(key: i16, version: i16) -> Option<Place> {
    let first_since = |since: i16| (version >= since).then_some(Place::At(0));
    match key {
        0 => (version >= 1).then_some(Place::AtEnd),
        3 | 8 | 9 => first_since(3),
        2 | 11 | 19 | 23 => first_since(2),
        1 | 10 | 12..=16 | 20 => first_since(1),
        // SaslHandshake, ApiVersions, SaslAuthenticate, DescribeQuorum: nowhere, or behind what has no fixed size.
        17 | 18 | 36 | 55 => None,
        // OffsetDelete: behind its error code.
        47 => Some(Place::At(2)),
        _ => Some(Place::At(0)),
    }
}

/// Where the field stands in the frame, whose first piece has `len` bytes; `header_version` is that of the response.
fn position(key: i16, version: i16, header_version: i16, len: usize) -> Option<usize> {
    let tags = usize::from(header_version >= 1);
    match place(key, version)? {
        Place::At(offset) => Some(LENGTH_PREFIX_BYTES + CORRELATION_ID_BYTES + tags + offset),
        Place::AtEnd => len.checked_sub(FIELD_BYTES + tags),
    }
}

/// The time that an answer tells.
pub(crate) fn read_throttle(key: i16, version: i16, header_version: i16, pieces: &[LogSlice]) -> u32 {
    let Some(LogSlice::Memory(head)) = pieces.first() else { return 0 };
    let field = position(key, version, header_version, head.len()).and_then(|at| head.get(at..at + FIELD_BYTES)?.try_into().ok());
    // Before the tag section of a Produce answer that names other leaders stand its tags, not this field: too large a number to be one.
    field.map(i32::from_be_bytes).and_then(|ms| u32::try_from(ms).ok()).filter(|ms| *ms <= 3_600_000).unwrap_or(0)
}

/// Tells `throttle_ms` in an answer that tells none yet. A Produce answer that names other leaders is left as it is: its end has no fixed form.
pub(crate) fn write_throttle(key: i16, version: i16, header_version: i16, pieces: &mut [LogSlice], throttle_ms: u32) {
    let only_piece = pieces.len() == 1;
    let Some(LogSlice::Memory(head)) = pieces.first_mut() else { return };
    let Some(at) = position(key, version, header_version, head.len()) else { return };
    let Some(field) = head.get(at..at + FIELD_BYTES) else { return };
    let end_is_plain = place(key, version) != Some(Place::AtEnd) || (only_piece && (header_version == 0 || head.last() == Some(&0)));
    if field != [0; FIELD_BYTES] || !end_is_plain {
        return;
    }
    let mut changed = match std::mem::take(head).try_into_mut() {
        Ok(owned) => owned,
        Err(shared) => BytesMut::from(&shared[..]),
    };
    changed[at..at + FIELD_BYTES].copy_from_slice(&throttle_ms.to_be_bytes());
    *head = changed.freeze();
}
