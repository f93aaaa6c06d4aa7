//! Runs scenarios on brokers.

use crate::brokers::Broker;
use crate::session::{Conn, Session};
use crate::{Scenario, scenarios};
use anyhow::{Result, ensure};
use kafka_protocol::messages::{FindCoordinatorRequest, GroupId, InitProducerIdRequest, OffsetFetchRequest};
use kafka_protocol::protocol::StrBytes;
use serde_json::Value;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const WARM_UP_TIMEOUT: Duration = Duration::from_secs(60);

/// The scenarios whose name starts with one of `prefixes` (all without any), grouped by the broker settings they need.
pub fn groups(prefixes: &[String]) -> Vec<Vec<Scenario>> {
    let mut groups: Vec<Vec<Scenario>> = Vec::new();
    for scenario in scenarios::all() {
        if !prefixes.is_empty() && !prefixes.iter().any(|p| scenario.name.starts_with(p.as_str())) {
            continue;
        }
        match groups.iter_mut().find(|g| g[0].settings == scenario.settings) {
            Some(group) => group.push(scenario),
            None => groups.push(vec![scenario]),
        }
    }
    groups
}

/// What a scenario noted, and the error that ended it early.
pub struct Outcome {
    /// The scenario.
    pub scenario: Scenario,
    /// Its notes.
    pub steps: Vec<Value>,
    /// Why it could not go on.
    pub error: Option<anyhow::Error>,
}

/// Runs one scenario.
pub fn run(scenario: Scenario, addr: SocketAddr) -> Outcome {
    let mut session = Session::new(addr, scenario.name);
    let error = (scenario.run)(&mut session).err();
    Outcome { scenario, steps: session.into_steps(), error }
}

/// Waits until the broker has a group coordinator and gives out producer ids: a real Kafka makes their topics on first use.
pub fn warm_up(broker: &Broker) -> Result<()> {
    let mut conn = Conn::open(broker.addr)?;
    let group = StrBytes::from_static_str("warm-up");
    let find = FindCoordinatorRequest::default().with_key(group.clone());
    let fetch = OffsetFetchRequest::default().with_group_id(GroupId(group)).with_topics(None);
    let init = InitProducerIdRequest::default().with_transactional_id(None).with_transaction_timeout_ms(60_000);
    let deadline = Instant::now() + WARM_UP_TIMEOUT;
    loop {
        let errors = (conn.call(3, &find)?.error_code, conn.call(7, &fetch)?.error_code, conn.call(4, &init)?.error_code);
        if errors == (0, 0, 0) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "the broker is not ready: {errors:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
