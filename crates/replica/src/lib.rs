//! Partitions led or followed by this broker, and the one read path over tail, local segments and the remote tier.

mod background;
mod cleaner;
mod error;
mod follow;
mod list_offsets;
mod manager;
mod metrics;
mod mirror;
mod partition;
mod produce;
mod read_path;
mod registration;
mod restore;
mod session;

pub use cleaner::CleanerMetrics;
pub use error::ReplicaError;
pub use list_offsets::{FoundOffset, OffsetSpec};
pub use manager::{LogDirPartition, RemoteTier, ReplicaConfig, ReplicaManager};
pub use metrics::ReplicaMetrics;
pub use partition::Partition;
pub use produce::{PendingProduce, ProduceOutcome, ProducePartition};
pub use read_path::{FetchIsolation, FetchParams, FetchPartition, FetchedPartition, FetchedSlice};
pub use registration::register;
pub use session::Session;
