//! Bytes from a client, cut into frames.
//!
//! The buffer grows with the bytes that have come, never by what a length prefix claims, except up to the size of a frame that this peer has
//! already sent in full (I42). A frame's bytes end up in a buffer of about its own size, so that a batch which the log keeps pins little more
//! than itself.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use futures::FutureExt;
use thiserror::Error;
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::answer::LENGTH_PREFIX_BYTES;
use crate::budget::Charge;
use crate::guard::{FIXED_HEAD_BYTES, key_and_version};
use crate::limits::{ORDINARY_REQUEST_BYTES_MAX, UNCHARGED_BYTES};

/// What a connection reads at once while it knows nothing of its peer's frames, bytes.
const FIRST_CHUNK_BYTES: usize = 4 * 1024;
/// Largest buffer that is kept at hand between frames, bytes.
const READ_AHEAD_BYTES_MAX: usize = 1024 * 1024;
const PRODUCE_KEY: i16 = 0;

/// A length prefix that can't be a request's.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum FrameError {
    #[error("a frame of {0} bytes is too short for a request")]
    TooShort(i32),
    #[error("a frame of {len} bytes exceeds the limit of {max}")]
    TooLong { len: i32, max: usize },
    #[error("the bytes are a TLS handshake, and this listener speaks plaintext: set the client's security.protocol")]
    Tls,
    #[error("the bytes are an HTTP request, and this is a Kafka port")]
    Http,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Inbound {
    buffer: BytesMut,
    /// Capacity of the allocation that `buffer` is a part of.
    allocation_bytes: usize,
    /// Size of the largest frame this peer has completed, prefix included.
    largest_frame: usize,
    last_frame: usize,
    request_bytes_max: usize,
    charge: Charge,
    /// The common budget has no room for the frame that has begun.
    waits_for_room: bool,
    eof: bool,
}

/// One frame without its prefix.
#[derive(Debug)]
pub(crate) struct InboundFrame {
    pub bytes: BytesMut,
    /// Capacity of the allocation it lies in: what a piece of it keeps alive.
    pub allocation_bytes: usize,
}

impl Inbound {
    pub(crate) fn new(request_bytes_max: usize, charge: Charge) -> Self {
        Self {
            buffer: BytesMut::new(),
            allocation_bytes: 0,
            largest_frame: 0,
            last_frame: 0,
            request_bytes_max,
            charge,
            waits_for_room: false,
            eof: false,
        }
    }

    /// True once the client has sent its last byte.
    pub(crate) fn is_eof(&self) -> bool {
        self.eof
    }

    /// True if the last read was put off until the common budget has room.
    pub(crate) fn waits_for_room(&self) -> bool {
        self.waits_for_room
    }

    /// True while a frame has begun and is not complete.
    pub(crate) fn has_partial_frame(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Bytes received and not yet taken.
    pub(crate) fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Size of the frame that has begun, prefix included, once its prefix is there.
    fn frame_size(&self) -> Result<Option<usize>, FrameError> {
        let Some(prefix) = self.buffer.first_chunk::<LENGTH_PREFIX_BYTES>() else { return Ok(None) };
        let len = i32::from_be_bytes(*prefix);
        let too_long = |max| FrameError::TooLong { len, max };
        match usize::try_from(len) {
            Err(_) => Err(foreign_protocol(prefix).unwrap_or(FrameError::TooShort(len))),
            Ok(size) if size < FIXED_HEAD_BYTES => Err(FrameError::TooShort(len)),
            Ok(size) if size > self.request_bytes_max => Err(foreign_protocol(prefix).unwrap_or(too_long(self.request_bytes_max))),
            Ok(size) => {
                let key = key_and_version(&self.buffer[LENGTH_PREFIX_BYTES..]).map(|(key, _)| key);
                let max = match key {
                    None | Some(PRODUCE_KEY) => size,
                    Some(_) => ORDINARY_REQUEST_BYTES_MAX,
                };
                if size > max {
                    return Err(too_long(max));
                }
                Ok(Some(size + LENGTH_PREFIX_BYTES))
            }
        }
    }

    /// API key and version of the next frame, if it is complete.
    pub(crate) fn peek(&self) -> Result<Option<(i16, i16)>, FrameError> {
        match self.frame_size()? {
            Some(size) if self.buffer.len() >= size => Ok(key_and_version(&self.buffer[LENGTH_PREFIX_BYTES..])),
            _ => Ok(None),
        }
    }

    /// Takes the next frame, if it is complete, with the charge for it.
    pub(crate) fn take_frame(&mut self) -> Result<Option<(InboundFrame, Charge)>, FrameError> {
        let Some(size) = self.frame_size()?.filter(|size| self.buffer.len() >= *size) else { return Ok(None) };
        self.buffer.advance(LENGTH_PREFIX_BYTES);
        let bytes = self.buffer.split_to(size - LENGTH_PREFIX_BYTES);
        self.largest_frame = self.largest_frame.max(size);
        self.last_frame = size;
        Ok(Some((InboundFrame { bytes, allocation_bytes: self.allocation_bytes }, self.charge.take())))
    }

    /// Reads once. `Pending` also while the common budget has no room for a larger buffer; then the task is woken when it has.
    pub(crate) fn poll_fill(&mut self, stream: &mut TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.buffer.is_empty() {
            ready!(stream.poll_read_ready(cx))?;
        }
        self.waits_for_room = self.buffer.len() == self.buffer.capacity() && !self.grow(cx);
        if self.waits_for_room {
            return Poll::Pending;
        }
        match tokio_util::io::poll_read_buf(Pin::new(stream), cx, &mut self.buffer) {
            Poll::Ready(read) => {
                self.eof = read? == 0;
                Poll::Ready(Ok(()))
            }
            Poll::Pending => {
                // An idle connection holds no buffer.
                if self.buffer.is_empty() {
                    self.buffer = BytesMut::new();
                    drop(self.charge.take());
                }
                Poll::Pending
            }
        }
    }

    /// Makes room for more bytes; false if the budget has none. Memory grows with the bytes; the charge is the whole frame's from the start.
    fn grow(&mut self, cx: &Context<'_>) -> bool {
        let have = self.buffer.len();
        let known = self.largest_frame.min(READ_AHEAD_BYTES_MAX);
        let (target, charged) = match self.frame_size() {
            Ok(Some(size)) => (size.min(FIRST_CHUNK_BYTES.max(known).max(have * 2)), size),
            // Frames of one producer are about the same size: one read gets the next one whole.
            _ => {
                let target = have + self.last_frame.clamp(FIRST_CHUNK_BYTES, READ_AHEAD_BYTES_MAX);
                (target, target)
            }
        };
        if target > UNCHARGED_BYTES && !self.charge.grow_to(charged, cx.waker()) {
            return false;
        }
        if have == 0 && self.buffer.try_reclaim(target) {
            self.allocation_bytes = self.allocation_bytes.max(self.buffer.capacity());
            return true;
        }
        let mut fresh = BytesMut::with_capacity(target.max(have + 1));
        fresh.extend_from_slice(&self.buffer);
        self.buffer = fresh;
        self.allocation_bytes = self.buffer.capacity();
        true
    }
}

/// True if the client has closed its side, whatever it has sent before.
pub(crate) fn has_ended(stream: &TcpStream) -> bool {
    let readiness = stream.ready(Interest::READABLE).now_or_never();
    readiness.is_some_and(|ready| ready.map_or(true, |ready| ready.is_read_closed()))
}

/// Says what a peer that speaks another protocol speaks.
fn foreign_protocol(prefix: &[u8; LENGTH_PREFIX_BYTES]) -> Option<FrameError> {
    match prefix {
        [0x16, 0x03, _, _] => Some(FrameError::Tls),
        b"GET " | b"POST" | b"HEAD" | b"PUT " | b"OPTI" | b"PRI " => Some(FrameError::Http),
        _ => None,
    }
}
