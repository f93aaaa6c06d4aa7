//! The Kafka wire: listener, connections, the API table, one file per API, and a client.
//! The only crate that knows `kafka-protocol`.

mod answer;
mod api_table;
mod authorizer;
mod broker_loggers;
mod budget;
mod by_topic_id;
pub mod client;
mod config_entries;
mod config_resource;
mod connection;
pub mod context;
mod dispatch;
pub mod error_codes;
pub mod groups;
mod guard;
pub mod handlers;
#[cfg(test)]
mod heap_meter;
pub mod limits;
pub mod metrics;
pub mod producer_ids;
mod quotas;
#[cfg(test)]
mod rig;
pub mod server;
pub mod session;
pub mod settings;
pub mod state_log;
pub mod state_topics;
pub mod telemetry;
mod topic_lookup;
pub mod transactions;
pub mod txn_markers;
mod txn_verify;

pub use context::{RequestContext, ServerConfig, Services};
pub use limits::Limits;
pub use metrics::ServerMetrics;
pub use server::{BoundListener, Server};
pub use session::Session;
