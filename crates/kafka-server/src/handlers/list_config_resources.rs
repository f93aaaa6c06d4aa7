//! ListConfigResources (KIP-1142): what has settings of its own.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_config_resources_response::ConfigResource;
use kafka_protocol::messages::{ListConfigResourcesRequest, ListConfigResourcesResponse};
use siltstone_metadata::acls::AclOperation;

use crate::config_resource::{BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, TOPIC};
use crate::context::RequestContext;
use crate::topic_lookup::text;

pub(crate) async fn handle(ctx: &RequestContext, request: ListConfigResourcesRequest) -> ListConfigResourcesResponse {
    if let Err(error) = ctx.authorize_cluster(AclOperation::DescribeConfigs) {
        return ListConfigResourcesResponse::default().with_error_code(error.code());
    }
    let all = [TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP];
    let wanted: Vec<i8> = match request.resource_types.as_slice() {
        // Version 0 lists client metrics only.
        [] if ctx.api_version == 0 => vec![CLIENT_METRICS],
        [] => all.to_vec(),
        some => some.to_vec(),
    };
    if wanted.iter().any(|kind| !all.contains(kind)) {
        return ListConfigResourcesResponse::default().with_error_code(ResponseError::UnsupportedVersion.code());
    }
    let image = ctx.services.metadata.image();
    let mut resources = Vec::new();
    let mut list = |kind: i8, names: Vec<String>| {
        if wanted.contains(&kind) {
            resources
                .extend(names.into_iter().map(|name| ConfigResource::default().with_resource_name(text(name)).with_resource_type(kind)));
        }
    };
    let brokers: Vec<String> = image.brokers.keys().map(ToString::to_string).collect();
    list(TOPIC, image.topic_ids.keys().cloned().collect());
    list(BROKER, brokers.clone());
    list(BROKER_LOGGER, brokers);
    list(CLIENT_METRICS, image.client_metrics.keys().cloned().collect());
    list(GROUP, image.group_configs.keys().cloned().collect());
    ListConfigResourcesResponse::default().with_config_resources(resources)
}
