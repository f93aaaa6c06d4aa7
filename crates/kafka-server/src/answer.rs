//! What goes back to a client: nothing, a frame in pieces, or the end of the connection.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::protocol::{Encodable, HeaderVersion};
use siltstone_log::LogSlice;

use crate::error_codes::Refused;

/// The end of a request.
#[derive(Debug)]
pub(crate) enum Answer {
    /// No answer is due (acks=0).
    Nothing,
    /// One whole frame, length prefix included, in pieces: records are never copied into it.
    Frame(Vec<LogSlice>),
    /// The request can't be answered: the connection ends, with the reason in the log.
    Close(String),
}

impl Answer {
    /// An answer of one piece.
    pub(crate) fn bytes(frame: Bytes) -> Self {
        Answer::Frame(vec![LogSlice::Memory(frame)])
    }
}

/// Memory that one answer may take, bytes: far above what tools ask for, and what they ask for twice counts twice.
const ANSWER_BYTES_MAX: usize = 128 * 1024 * 1024;
/// What a part of it takes without its text, bytes.
const PART_BYTES: usize = 256;

/// Room for what an answer holds, where a few bytes of a request ask for many: what comes when it is used up is refused (I42).
#[derive(Debug)]
pub(crate) struct AnswerRoom {
    left: usize,
}

impl AnswerRoom {
    /// All of it.
    pub(crate) fn new() -> Self {
        Self { left: ANSWER_BYTES_MAX }
    }

    /// The error for a part that finds no room.
    pub(crate) fn check(&self) -> Result<(), ResponseError> {
        if self.left > 0 { Ok(()) } else { Err(ResponseError::InvalidRequest) }
    }

    /// Refuses a request that asks for so many parts that there is no room even for those without text.
    pub(crate) fn check_parts(&self, parts: usize) -> Result<(), ResponseError> {
        if parts.saturating_mul(PART_BYTES) <= self.left { Ok(()) } else { Err(ResponseError::InvalidRequest) }
    }

    /// Counts a part that was put in, by its parts and their text or other bytes.
    pub(crate) fn take(&mut self, parts: usize, bytes: usize) {
        self.left = self.left.saturating_sub(parts.saturating_mul(PART_BYTES).saturating_add(bytes));
    }

    /// Counts a part with the words of its error, if it has one.
    pub(crate) fn take_outcome(&mut self, outcome: &Result<(), Refused>) {
        self.take(1, outcome.as_ref().err().map_or(0, |error| error.to_string().len()));
    }
}

/// Bytes of a frame's length prefix.
pub(crate) const LENGTH_PREFIX_BYTES: usize = 4;

/// A buffer that starts with room for the length prefix and the response header: version 1 of the header has a tag section, version 0 none.
pub(crate) fn begin_frame(correlation_id: i32, header_version: i16, capacity: usize) -> BytesMut {
    let mut frame = BytesMut::with_capacity(capacity);
    frame.put_u32(0);
    frame.put_i32(correlation_id);
    if header_version >= 1 {
        frame.put_u8(0);
    }
    frame
}

/// Writes the length prefix; `outside_bytes` of the frame are not in `frame` itself.
pub(crate) fn finish_frame(frame: &mut BytesMut, outside_bytes: usize) {
    let len = frame.len() - LENGTH_PREFIX_BYTES + outside_bytes;
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    frame[..LENGTH_PREFIX_BYTES].copy_from_slice(&len.to_be_bytes());
}

/// Encodes `response` in `version`, header included.
pub(crate) fn encode_answer<R: Encodable + HeaderVersion>(correlation_id: i32, version: i16, response: &R) -> Answer {
    const FIRST_CAPACITY: usize = 256;
    let mut frame = begin_frame(correlation_id, R::header_version(version), FIRST_CAPACITY);
    match response.encode(&mut frame, version) {
        Ok(()) => {
            finish_frame(&mut frame, 0);
            Answer::bytes(frame.freeze())
        }
        // A field was set that this version lacks: a defect of ours, found by the round-trip tests.
        Err(error) => Answer::Close(format!("could not encode the answer: {error}")),
    }
}
