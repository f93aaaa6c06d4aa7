//! Produce: batches good and bad.

use super::requests::{Topic, produce};
use crate::batch::Batch;
use crate::{Scenario, Session, scenario};
use anyhow::Result;

pub const SCENARIOS: &[Scenario] = &[scenario("produce-versions", versions)];

fn versions(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    let id = s.create_topic(&mut c, "t", 2, &[])?;
    let batch = Batch::of(3, s.start_ms);
    for version in 3..=13 {
        let topic = match version {
            13 => Topic::Id(id),
            _ => Topic::Name(s.topic("t")),
        };
        let request = produce(&topic, &[(0, &batch), (1, &batch), (7, &batch)]);
        s.ask(&mut c, &format!("v{version}"), version, &request)?;
    }
    Ok(())
}
