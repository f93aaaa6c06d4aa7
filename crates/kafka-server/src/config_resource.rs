//! The resources that settings belong to, by the numbers of the wire.

use siltstone_metadata::MetadataError;
use siltstone_metadata::api::{ConfigOp, ConfigResource};

use crate::broker_loggers;
use crate::context::RequestContext;
use crate::topic_lookup::is_valid_name;

pub(crate) const TOPIC: i8 = 2;
pub(crate) const BROKER: i8 = 4;
pub(crate) const BROKER_LOGGER: i8 = 8;
pub(crate) const CLIENT_METRICS: i8 = 16;
pub(crate) const GROUP: i8 = 32;

/// Whose settings are meant.
pub(crate) enum Resource {
    /// Kept by the metadata service.
    Stored(ConfigResource),
    /// The loggers of this process.
    Loggers,
}

/// Whose settings a request means. A broker's must be this one's (settings are asked of the broker itself) or, empty, the cluster default.
pub(crate) fn resource(ctx: &RequestContext, kind: i8, name: &str) -> Result<Resource, MetadataError> {
    let stored = match kind {
        TOPIC if !is_valid_name(name) => return Err(MetadataError::InvalidTopic(format!("Topic name is invalid: '{name}'"))),
        TOPIC if ctx.services.metadata.image().topic(name).is_none() => return Err(MetadataError::UnknownTopic(name.to_owned())),
        TOPIC => ConfigResource::Topic(name.to_owned()),
        BROKER if name.is_empty() => ConfigResource::Broker(String::new()),
        BROKER => own_broker(ctx, name).map(|()| ConfigResource::Broker(name.to_owned()))?,
        BROKER_LOGGER => return own_broker(ctx, name).map(|()| Resource::Loggers),
        GROUP if name.is_empty() => return Err(MetadataError::InvalidRequest("Group name must not be empty".to_owned())),
        GROUP => ConfigResource::Group(name.to_owned()),
        CLIENT_METRICS if name.is_empty() => {
            return Err(MetadataError::InvalidRequest("Client metrics subscription name must not be empty".to_owned()));
        }
        CLIENT_METRICS => ConfigResource::ClientMetrics(name.to_owned()),
        other => return Err(MetadataError::InvalidRequest(format!("Unsupported resource type {other}"))),
    };
    Ok(Resource::Stored(stored))
}

fn own_broker(ctx: &RequestContext, name: &str) -> Result<(), MetadataError> {
    let own = ctx.services.config.broker_id;
    match name.parse::<i32>() {
        Err(_) => Err(MetadataError::InvalidRequest(format!("Node id must be an integer, but it is: {name}"))),
        Ok(id) if id != own => {
            Err(MetadataError::InvalidRequest(format!("Unexpected broker id, expected {own} or empty string, but received {name}")))
        }
        Ok(_) => Ok(()),
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
    match resource(ctx, kind, name)? {
        Resource::Stored(resource) => ctx.services.metadata.alter_configs(resource, ops, validate_only).await,
        Resource::Loggers => broker_loggers::alter(&ops, validate_only),
    }
}
