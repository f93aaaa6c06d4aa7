//! Look-ups over the remote range: by timestamp, and what a new replica needs to go on after it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use siltstone_common::TopicIdPartition;
use siltstone_log::batch::BatchHeader;
use siltstone_log::epochs::EpochEntry;
use siltstone_log::records::{inflate, records};
use siltstone_metadata::SegmentRow;

use super::walker::{Sink, Want};
use super::{Inner, RemoteReadError, RemoteReader, RemoteTail, Seats, Touched, Trial};

/// A batch that inflates to more than this is not looked into.
const INFLATED_BYTES_MAX: usize = 128 << 20;
/// Footers read at most to put the leader epochs of a partition together.
const EPOCH_FOOTERS_MAX: usize = 512;

/// Timestamp, offset, leader epoch.
type Found = (i64, i64, i32);

/// Finds the first record at or above an offset and a timestamp.
struct TimeSink {
    timestamp_ms: i64,
    from: i64,
    found: Option<Found>,
}

impl Sink for TimeSink {
    fn wants(&mut self, header: &BatchHeader) -> Want {
        if header.max_timestamp >= self.timestamp_ms && header.last_offset() >= self.from { Want::Take } else { Want::Skip }
    }

    fn take(&mut self, header: &BatchHeader, chunk: &Bytes, range: Range<usize>) -> Result<bool, String> {
        let body = inflate(header, &chunk[range], INFLATED_BYTES_MAX).map_err(|error| error.to_string())?;
        for record in records(header, &body) {
            let record = record.map_err(|error| error.to_string())?;
            if record.timestamp_ms >= self.timestamp_ms && record.offset >= self.from {
                self.found = Some((record.timestamp_ms, record.offset, header.partition_leader_epoch));
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl RemoteReader {
    /// The first remote record at or above `from` with timestamp >= `timestamp_ms`: (timestamp, offset, leader epoch).
    ///
    /// # Errors
    /// As [`RemoteReader::read`], but for `NotFound`.
    pub async fn offset_for_timestamp(
        &self,
        id: TopicIdPartition,
        timestamp_ms: i64,
        from: i64,
    ) -> Result<Option<(i64, i64, i32)>, RemoteReadError> {
        let inner = &self.inner;
        let mut trial = Trial::new(id);
        loop {
            let result = inner.find_time(id, timestamp_ms, from, &mut trial.touched).await;
            if let Some(verdict) = trial.judge(inner, result).await {
                return verdict;
            }
        }
    }

    /// The first remote record with the largest timestamp.
    ///
    /// # Errors
    /// As [`RemoteReader::offset_for_timestamp`].
    pub async fn max_timestamp(&self, id: TopicIdPartition) -> Result<Option<(i64, i64, i32)>, RemoteReadError> {
        let inner = &self.inner;
        let extent = inner.metadata.remote_extent(id).await?;
        if extent.log_start >= extent.remote_end {
            return Ok(None);
        }
        // From the newest segment to the first one with a larger timestamp, until there is none: few steps, as time mostly rises.
        let newest = inner.metadata.find_segment(id, extent.remote_end - 1).await?;
        let mut largest = newest.map_or(-1, |row| row.max_timestamp_ms);
        while let Some(larger) = largest.checked_add(1)
            && let Some(row) = inner.metadata.find_segment_by_time(id, larger).await?
        {
            largest = row.max_timestamp_ms;
        }
        let first = if largest < 0 { None } else { inner.metadata.find_segment_by_time(id, largest).await? };
        let Some(row) = first.map(Arc::new) else { return Ok(None) };
        let mut trial = Trial::new(id);
        loop {
            let result = inner.find_time_in(&row, row.max_timestamp_ms, row.base_offset, &mut trial.touched).await;
            if let Some(verdict) = trial.judge(inner, result).await {
                return verdict;
            }
        }
    }

    /// From the footer of the last committed segment; `None` if nothing is remote.
    ///
    /// # Errors
    /// As [`RemoteReader::offset_for_timestamp`].
    pub async fn tail(&self, id: TopicIdPartition) -> Result<Option<RemoteTail>, RemoteReadError> {
        let inner = &self.inner;
        let extent = inner.metadata.remote_extent(id).await?;
        if extent.segments == 0 {
            return Ok(None);
        }
        let mut trial = Trial::new(id);
        loop {
            let result = inner.tail_at(id, extent.log_start, extent.remote_end, &mut trial.touched).await;
            if let Some(verdict) = trial.judge(inner, result).await {
                return verdict;
            }
        }
    }
}

impl Inner {
    async fn find_time(
        &self,
        id: TopicIdPartition,
        timestamp_ms: i64,
        from: i64,
        touched: &mut Touched,
    ) -> Result<Option<Found>, RemoteReadError> {
        // Metadata skips what is older at once, if the search is not bounded from below.
        let Some(first) = self.metadata.find_segment_by_time(id, timestamp_ms).await? else { return Ok(None) };
        let mut next = first.base_offset.max(from);
        loop {
            let page = self.rows.page_from(id, next).await?;
            let Some(last) = page.last() else { return Ok(None) };
            next = last.last_offset + 1;
            for row in page.iter().filter(|row| row.max_timestamp_ms >= timestamp_ms) {
                if let Some(found) = self.find_time_in(row, timestamp_ms, from, touched).await? {
                    return Ok(Some(found));
                }
            }
        }
    }

    /// The first record of one segment; `None` if all that are new enough lie below `from`.
    async fn find_time_in(
        &self,
        row: &Arc<SegmentRow>,
        timestamp_ms: i64,
        from: i64,
        touched: &mut Touched,
    ) -> Result<Option<Found>, RemoteReadError> {
        let tail = self.tail_of(row, touched).await?;
        let Some(position) = tail.position_of_time(timestamp_ms) else { return Ok(None) };
        let position = position.max(tail.position_of(from.max(row.base_offset)));
        let mut walker = self.walker_from(row, &tail, position);
        let mut sink = TimeSink { timestamp_ms, from, found: None };
        self.walk(row, &mut walker, &mut Seats::new(), &mut sink, touched).await?;
        Ok(sink.found)
    }

    async fn tail_at(
        &self,
        id: TopicIdPartition,
        log_start: i64,
        remote_end: i64,
        touched: &mut Touched,
    ) -> Result<Option<RemoteTail>, RemoteReadError> {
        if log_start >= remote_end {
            return Ok(None);
        }
        let (Some(first), Some(last)) =
            (self.rows.page_from(id, log_start).await?.into_iter().next(), self.rows.holding(id, remote_end - 1).await?)
        else {
            return Ok(None);
        };
        let tail = self.tail_of(&last, touched).await?;
        let (producer_snapshot, aborted) = (tail.producer_snapshot.clone(), tail.aborted.clone());
        let leader_epochs = self.leader_epochs(id, (first, last), touched).await?;
        Ok(Some(RemoteTail { leader_epochs, producer_snapshot, aborted }))
    }

    /// The leader epochs from one segment to another. Where two segments begin and end in the same epoch, all between them lie in it, so only the
    /// rows and footers around changes are read.
    async fn leader_epochs(
        &self,
        id: TopicIdPartition,
        range: (Arc<SegmentRow>, Arc<SegmentRow>),
        touched: &mut Touched,
    ) -> Result<Vec<EpochEntry>, RemoteReadError> {
        let mut epochs = BTreeMap::<i32, i64>::new();
        let mut footers = 0;
        let mut spans = vec![range];
        while let Some((low, high)) = spans.pop() {
            let (first, last) = (self.tail_of(&low, touched).await?, self.tail_of(&high, touched).await?);
            for entry in first.leader_epochs.iter().chain(&last.leader_epochs) {
                let start = epochs.entry(entry.epoch).or_insert(entry.start_offset);
                *start = entry.start_offset.min(*start);
            }
            footers += 2;
            let settled = first.leader_epochs.last().map(|entry| entry.epoch) == last.leader_epochs.first().map(|entry| entry.epoch);
            let between = low.last_offset + 1..high.base_offset;
            if settled || between.is_empty() {
                continue;
            }
            if footers >= EPOCH_FOOTERS_MAX {
                tracing::warn!(%id, "too many leader epochs in the bucket to read all, the oldest are left out");
                break;
            }
            let middle = self.rows.holding(id, between.start + (between.end - between.start) / 2).await?;
            let Some(middle) = middle.filter(|middle| between.contains(&middle.base_offset)) else { continue };
            // The newer half first: it matters most.
            spans.push((low, Arc::clone(&middle)));
            spans.push((middle, high));
        }
        Ok(epochs.into_iter().map(|(epoch, start_offset)| EpochEntry { epoch, start_offset }).collect())
    }
}
