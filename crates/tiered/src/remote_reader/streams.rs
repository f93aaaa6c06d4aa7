//! Who reads on where an earlier read ended: such a stream gets a read-ahead window that doubles with every read, and needs no index to find
//! its place again.

use siltstone_common::TopicIdPartition;
use uuid::Uuid;

/// Streams known at a time; the one unused for longest goes first.
const STREAMS_MAX: usize = 256;
/// Streams used within so many reads share the read-ahead budget.
const ACTIVE_WITHIN_READS: u64 = 256;

/// Where a batch begins: the object (by its attempt) and the position in it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) attempt: Uuid,
    pub(super) position: u64,
}

#[derive(Copy, Clone, Debug)]
struct Stream {
    id: TopicIdPartition,
    next_offset: i64,
    /// Of the batch that begins with `next_offset`.
    place: Place,
    window_bytes: u64,
    last_read: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Streams {
    streams: Vec<Stream>,
    reads: u64,
    window_first: u64,
    window_max: u64,
    budget: u64,
}

impl Streams {
    /// Windows begin at `window_first` bytes and grow up to `window_max`; all active streams together stay near `budget`.
    pub(super) fn new(window_first: u64, window_max: u64, budget: u64) -> Self {
        Self { streams: Vec::new(), reads: 0, window_first, window_max, budget }
    }

    /// Bytes to read ahead for a read at `offset`, and its place; nothing for one that continues nothing.
    pub(super) fn window(&mut self, id: TopicIdPartition, offset: i64) -> (u64, Option<Place>) {
        self.reads += 1;
        let reads = self.reads;
        let active = self.streams.iter().filter(|stream| reads - stream.last_read <= ACTIVE_WITHIN_READS).count() as u64;
        let limit = self.window_max.min(self.budget / active.max(1));
        match self.streams.iter_mut().find(|stream| stream.id == id && stream.next_offset == offset) {
            Some(stream) => {
                stream.last_read = reads;
                stream.window_bytes = (stream.window_bytes * 2).max(self.window_first);
                stream.window_bytes = stream.window_bytes.min(limit);
                (stream.window_bytes, Some(stream.place))
            }
            None => (0, None),
        }
    }

    /// Notes that the read at `offset` ended before the batch at `place`, which begins with `next_offset`.
    pub(super) fn ended(&mut self, id: TopicIdPartition, offset: i64, next_offset: i64, place: Place) {
        let last_read = self.reads;
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.id == id && stream.next_offset == offset) {
            (stream.next_offset, stream.place) = (next_offset, place);
            stream.last_read = last_read;
            return;
        }
        if self.streams.len() >= STREAMS_MAX
            && let Some(oldest) = (0..self.streams.len()).min_by_key(|i| self.streams[*i].last_read)
        {
            self.streams.swap_remove(oldest);
        }
        self.streams.push(Stream { id, next_offset, place, window_bytes: 0, last_read });
    }
}

#[cfg(test)]
mod tests {
    use siltstone_common::TopicId;

    use super::*;

    #[test]
    fn windows_double_for_sequential_reads_only_and_share_the_budget() {
        let a = TopicIdPartition::new(TopicId::ZERO, 0);
        let b = TopicIdPartition::new(TopicId::ZERO, 1);
        let place = Place { attempt: Uuid::nil(), position: 7 };
        let mut streams = Streams::new(4, 32, 40);
        let mut windows = Vec::new();
        for i in 0..6 {
            windows.push(streams.window(a, i).0);
            streams.ended(a, i, i + 1, place);
        }
        assert_eq!(windows, [0, 4, 8, 16, 32, 32]);
        assert_eq!(streams.window(a, 100), (0, None), "a jump reads nothing ahead");
        streams.ended(b, 0, 1, place);
        assert_eq!(streams.window(b, 1), (4, Some(place)));
        assert_eq!(streams.window(a, 6).0, 20, "two active streams share");
        for i in 0..1000 {
            streams.ended(b, 1000 + 10 * i, 1001 + 10 * i, place);
        }
        assert!(streams.streams.len() <= STREAMS_MAX);
    }
}
