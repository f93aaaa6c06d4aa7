//! The scenarios, one file per area.

mod api_versions;
mod fetch;
mod fetch_sessions;
mod idempotence;
mod metadata;
mod offsets;
mod produce;
pub mod requests;

use crate::Scenario;

/// Every scenario.
pub fn all() -> Vec<Scenario> {
    let areas = [
        api_versions::SCENARIOS,
        fetch::SCENARIOS,
        fetch_sessions::SCENARIOS,
        idempotence::SCENARIOS,
        metadata::SCENARIOS,
        offsets::SCENARIOS,
        produce::SCENARIOS,
    ];
    areas.concat()
}
