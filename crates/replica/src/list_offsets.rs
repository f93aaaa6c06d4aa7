//! ListOffsets over both tiers.

/// What is asked for, by ListOffsets' timestamp values.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum OffsetSpec {
    /// -1
    Latest,
    /// -2
    Earliest,
    /// -3: the record with the largest timestamp
    MaxTimestamp,
    /// -4: first offset on the local disk
    EarliestLocal,
    /// -5: last offset in the bucket
    LatestTiered,
    /// >= 0: first record at or after, ms
    Timestamp(i64),
}

/// The answer; offset -1 if there is none.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct FoundOffset {
    /// Timestamp of the record, ms; -1 unless asked by time.
    pub timestamp_ms: i64,
    /// The offset.
    pub offset: i64,
    /// Epoch of the leader that wrote it; -1 if unknown.
    pub leader_epoch: i32,
}
