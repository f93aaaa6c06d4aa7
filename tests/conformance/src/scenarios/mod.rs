//! The scenarios, one file per area.

mod acl_denied;
mod acls;
mod api_versions;
mod cluster;
mod configs;
mod consumer_groups;
mod fetch;
mod fetch_sessions;
mod frames;
mod group_admin;
mod group_offsets;
mod group_requests;
mod group_static;
mod groups;
mod idempotence;
mod metadata;
mod offsets;
mod produce;
pub mod requests;
mod topics;
mod transactions;

use crate::Scenario;

/// Every scenario.
pub fn all() -> Vec<Scenario> {
    let areas = [
        acl_denied::SCENARIOS,
        acls::SCENARIOS,
        api_versions::SCENARIOS,
        cluster::SCENARIOS,
        consumer_groups::SCENARIOS,
        configs::SCENARIOS,
        fetch::SCENARIOS,
        frames::SCENARIOS,
        fetch_sessions::SCENARIOS,
        group_admin::SCENARIOS,
        group_offsets::SCENARIOS,
        group_static::SCENARIOS,
        groups::SCENARIOS,
        idempotence::SCENARIOS,
        metadata::SCENARIOS,
        offsets::SCENARIOS,
        produce::SCENARIOS,
        topics::SCENARIOS,
        transactions::SCENARIOS,
    ];
    areas.concat()
}
