//! One partition's log on local disk: batch view, WAL, tail cache, hot segments, indexes, producer state, recovery.

pub mod batch;
pub mod compression;
pub mod epochs;
pub mod error;
pub mod index;
pub mod manager;
pub mod partition;
pub mod producers;
pub mod records;
mod sealed;
pub mod segment;
pub mod validate;

pub use error::{AppendError, LogError, ReadError};
pub use manager::{LogListener, LogManager, LogManagerConfig};
pub use partition::{AppendInfo, AppendOrigin, LogConfig, LogOffsets, LogRead, LogSlice, PartitionLog};
