//! The resources that settings belong to, by the numbers of the wire.

use siltstone_metadata::MetadataError;
use siltstone_metadata::api::{ConfigOp, ConfigResource};

use crate::context::RequestContext;
use crate::topic_lookup::is_valid_name;

pub(crate) const TOPIC: i8 = 2;
pub(crate) const BROKER: i8 = 4;
pub(crate) const GROUP: i8 = 32;

/// Whose settings a request means. A broker's must be this one's (settings are asked of the broker itself) or, empty, the cluster default.
pub(crate) fn resource(ctx: &RequestContext, kind: i8, name: &str) -> Result<ConfigResource, MetadataError> {
    match kind {
        TOPIC if !is_valid_name(name) => Err(MetadataError::InvalidTopic(format!("Topic name is invalid: '{name}'"))),
        TOPIC if ctx.services.metadata.image().topic(name).is_none() => Err(MetadataError::UnknownTopic(name.to_owned())),
        TOPIC => Ok(ConfigResource::Topic(name.to_owned())),
        BROKER if name.is_empty() => Ok(ConfigResource::Broker(String::new())),
        BROKER => match name.parse::<i32>() {
            Err(_) => Err(MetadataError::InvalidRequest(format!("Node id must be an integer, but it is: {name}"))),
            Ok(id) if id != ctx.services.config.broker_id => {
                let own = ctx.services.config.broker_id;
                Err(MetadataError::InvalidRequest(format!("Unexpected broker id, expected {own} or empty string, but received {name}")))
            }
            Ok(_) => Ok(ConfigResource::Broker(name.to_owned())),
        },
        GROUP if name.is_empty() => Err(MetadataError::InvalidRequest("Group name must not be empty".to_owned())),
        GROUP => Ok(ConfigResource::Group(name.to_owned())),
        other => Err(MetadataError::InvalidRequest(format!("Unsupported resource type {other}"))),
    }
}

/// Applies the changes to one resource.
pub(crate) async fn alter(
    ctx: &RequestContext,
    kind: i8,
    name: &str,
    ops: Vec<ConfigOp>,
    validate_only: bool,
) -> Result<(), MetadataError> {
    let resource = resource(ctx, kind, name)?;
    ctx.services.metadata.alter_configs(resource, ops, validate_only).await
}
