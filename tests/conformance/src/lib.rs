//! Apache Kafka as the oracle: what a scenario sees of a real Kafka is kept as a golden file, and Siltstone must answer the same.
//!
//! A [`Scenario`] is a short function that opens raw connections, sends requests (good ones, edge cases, nonsense) and has every
//! answer noted as a step. `record` runs it on Apache Kafka and writes `golden/<scenario>.json`; the `verify` test runs it on the
//! `siltstone` binary and compares. Differences on purpose are listed, with their reason, in `differences.toml`.

#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // a test harness: it reads the clock, spawns threads and opens files

pub mod batch;
pub mod brokers;
pub mod debug_json;
pub mod golden;
pub mod normalise;
pub mod run;
pub mod scenarios;
pub mod session;

pub use session::{Conn, Session};

/// One recorded conversation with a broker.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// Name of the golden file and prefix of every topic and group the scenario makes.
    pub name: &'static str,
    /// Broker settings it needs besides [`brokers::BASE_SETTINGS`]; scenarios with the same settings share one broker.
    pub settings: &'static [(&'static str, &'static str)],
    /// The conversation.
    pub run: fn(&mut Session) -> anyhow::Result<()>,
}

/// A scenario on a broker with the base settings.
pub const fn scenario(name: &'static str, run: fn(&mut Session) -> anyhow::Result<()>) -> Scenario {
    Scenario { name, settings: &[], run }
}
