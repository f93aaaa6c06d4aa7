//! The scenarios, one file per area.

mod api_versions;
mod idempotence;
mod metadata;
mod produce;
pub mod requests;

use crate::Scenario;

/// Every scenario.
pub fn all() -> Vec<Scenario> {
    [api_versions::SCENARIOS, metadata::SCENARIOS, produce::SCENARIOS, idempotence::SCENARIOS].concat()
}
