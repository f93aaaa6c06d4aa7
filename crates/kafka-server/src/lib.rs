//! The Kafka wire: listener, connections, the API table, one file per API, and a client.
//! The only crate that knows `kafka-protocol`.

mod config_entries;
mod config_resource;
pub mod context;
pub mod error_codes;
pub mod handlers;
pub mod producer_ids;
pub mod settings;
mod topic_lookup;

pub use context::{RequestContext, ServerConfig, Services};
