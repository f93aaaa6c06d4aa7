//! IncrementalAlterConfigs (KIP-339): set, delete, append to and subtract from single settings.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};
use siltstone_metadata::MetadataError;
use siltstone_metadata::api::ConfigOp;

use crate::config_resource::{BROKER_LOGGER, alter};
use crate::context::RequestContext;
use crate::error_codes::{Refused, with_error};

pub(crate) async fn handle(ctx: &RequestContext, request: IncrementalAlterConfigsRequest) -> IncrementalAlterConfigsResponse {
    let mut responses = Vec::with_capacity(request.resources.len());
    let mut times: BTreeMap<(i8, &str), usize> = BTreeMap::new();
    for asked in &request.resources {
        *times.entry((asked.resource_type, asked.resource_name.as_str())).or_default() += 1;
    }
    for asked in &request.resources {
        let twice = times.get(&(asked.resource_type, asked.resource_name.as_str())).is_some_and(|times| *times > 1);
        let outcome = match changes(asked) {
            _ if twice => Err(MetadataError::InvalidRequest("Each resource must appear at most once.".to_owned()).into()),
            Ok(ops) => alter(ctx, asked.resource_type, asked.resource_name.as_str(), ops, request.validate_only).await,
            Err(error) => Err(error.into()),
        };
        let response = AlterConfigsResourceResponse::default().with_error_message(None).with_resource_type(asked.resource_type);
        let response = response.with_resource_name(asked.resource_name.clone());
        responses.push(match outcome {
            // As Kafka: no words for those who may not alter loggers.
            Err(Refused::Denied(error)) if asked.resource_type == BROKER_LOGGER => response.with_error_code(error.code()),
            outcome => with_error!(response, outcome),
        });
    }
    IncrementalAlterConfigsResponse::default().with_responses(responses)
}

fn changes(asked: &AlterConfigsResource) -> Result<Vec<ConfigOp>, MetadataError> {
    let mut seen = BTreeSet::new();
    if !asked.configs.iter().all(|config| seen.insert(config.name.as_str())) {
        return Err(MetadataError::InvalidRequest("Error due to duplicate config keys".to_owned()));
    }
    asked.configs.iter().map(change).collect()
}

fn change(config: &AlterableConfig) -> Result<ConfigOp, MetadataError> {
    let name = config.name.to_string();
    let value = config.value.as_ref().map(ToString::to_string);
    match (config.config_operation, value) {
        (1, _) => Ok(ConfigOp::Delete(name)),
        (0, Some(value)) => Ok(ConfigOp::Set(name, value)),
        (2, Some(value)) => Ok(ConfigOp::Append(name, value)),
        (3, Some(value)) => Ok(ConfigOp::Subtract(name, value)),
        (0 | 2 | 3, None) => Err(MetadataError::InvalidRequest(format!("Null value not supported for : {name}"))),
        (other, _) => Err(MetadataError::InvalidRequest(format!("Unknown config operation {other}"))),
    }
}
