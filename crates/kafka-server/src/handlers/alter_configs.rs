//! AlterConfigs: replaces all of a resource's settings (the old form; IncrementalAlterConfigs is the better one).

use std::collections::BTreeSet;

use kafka_protocol::messages::alter_configs_request::AlterConfigsResource;
use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{AlterConfigsRequest, AlterConfigsResponse};
use siltstone_metadata::MetadataError;
use siltstone_metadata::acls::AclOperation;
use siltstone_metadata::api::{ConfigOp, ConfigResource};

use crate::config_resource::{Resource, alter, authorize, resource};
use crate::context::RequestContext;
use crate::error_codes::{Refused, with_error};

pub(crate) async fn handle(ctx: &RequestContext, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let mut responses = Vec::with_capacity(request.resources.len());
    for asked in &request.resources {
        let permitted = authorize(ctx, AclOperation::AlterConfigs, asked.resource_type, asked.resource_name.as_str());
        let outcome = match permitted.map_err(Refused::from).and_then(|()| Ok(replacement(ctx, asked)?)) {
            Ok(ops) => alter(ctx, asked.resource_type, asked.resource_name.as_str(), ops, request.validate_only).await,
            Err(error) => Err(error),
        };
        let response = AlterConfigsResourceResponse::default().with_error_message(None).with_resource_type(asked.resource_type);
        responses.push(with_error!(response.with_resource_name(asked.resource_name.clone()), outcome));
    }
    AlterConfigsResponse::default().with_responses(responses)
}

/// What turns the settings now into the settings asked for.
fn replacement(ctx: &RequestContext, asked: &AlterConfigsResource) -> Result<Vec<ConfigOp>, MetadataError> {
    let image = ctx.services.metadata.image();
    let current = match resource(ctx, asked.resource_type, asked.resource_name.as_str())? {
        Resource::Stored(ConfigResource::Topic(name)) => image.topic(&name).map(|topic| topic.configs.clone()),
        Resource::Stored(ConfigResource::Broker(name)) => image.broker_configs.get(&name).cloned(),
        Resource::Stored(ConfigResource::Group(name)) => image.group_configs.get(&name).cloned(),
        Resource::Stored(ConfigResource::ClientMetrics(name)) => image.client_metrics.get(&name).cloned(),
        Resource::Loggers => {
            let reason = "AlterConfigs is deprecated and does not support the resource type BROKER_LOGGER";
            return Err(MetadataError::InvalidRequest(reason.to_owned()));
        }
    };
    let mut ops = Vec::new();
    let mut kept = BTreeSet::new();
    for config in &asked.configs {
        let name = config.name.to_string();
        let value = config.value.as_ref().ok_or_else(|| MetadataError::InvalidRequest(format!("Null value not supported for : {name}")))?;
        if !kept.insert(name.clone()) {
            return Err(MetadataError::InvalidRequest("Error due to duplicate config keys".to_owned()));
        }
        ops.push(ConfigOp::Set(name, value.to_string()));
    }
    let gone = current.unwrap_or_default().into_keys().filter(|name| !kept.contains(name));
    ops.extend(gone.map(ConfigOp::Delete));
    Ok(ops)
}
