//! The Kafka wire: listener, connections, the API table, one file per API, and a client.
//! The only crate that knows `kafka-protocol`.

pub mod context;
pub mod error_codes;
pub mod handlers;

pub use context::{RequestContext, ServerConfig, Services};
