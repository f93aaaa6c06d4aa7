//! One partition's log on local disk: batch view, WAL, tail cache, hot segments, indexes, producer state, recovery.

pub mod batch;
pub mod cleaner;
mod codec;
pub mod compression;
pub mod epochs;
pub mod error;
pub mod index;
pub mod manager;
mod manifest;
pub mod partition;
pub mod producers;
pub mod records;
mod sealed;
pub mod segment;
mod shared;
mod tail;
pub mod validate;
mod wal;

pub use error::{AppendError, InvalidTimestamps, LogError, ReadError};
pub use manager::{LogListener, LogManager, LogManagerConfig};
pub use partition::{AppendInfo, AppendOrigin, LogConfig, LogOffsets, LogRead, LogSlice, PartitionLog};

#[cfg(test)]
mod testing;
