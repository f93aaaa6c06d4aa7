//! The resources that settings belong to, by the numbers of the wire.

use kafka_protocol::ResponseError;
use siltstone_metadata::MetadataError;
use siltstone_metadata::acls::{AclOperation, ResourceType};
use siltstone_metadata::api::{ConfigOp, ConfigResource};

use crate::broker_loggers;
use crate::context::RequestContext;
use crate::error_codes::Refused;
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

/// Refuses a client that may not do `operation` with a resource's settings: a broker's, its loggers' and those of metrics are the cluster's.
pub(crate) fn authorize(ctx: &RequestContext, operation: AclOperation, kind: i8, name: &str) -> Result<(), ResponseError> {
    match kind {
        TOPIC => ctx.authorize(operation, ResourceType::Topic, name),
        GROUP => ctx.authorize(operation, ResourceType::Group, name),
        BROKER | BROKER_LOGGER | CLIENT_METRICS => ctx.authorize_cluster(operation),
        _ => Ok(()), // there are no others: they are refused as such
    }
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
pub(crate) async fn alter(ctx: &RequestContext, kind: i8, name: &str, ops: Vec<ConfigOp>, validate_only: bool) -> Result<(), Refused> {
    authorize(ctx, AclOperation::AlterConfigs, kind, name)?;
    match resource(ctx, kind, name)? {
        Resource::Stored(resource) => {
            if let ConfigResource::Group(group) = &resource {
                refuse_beyond_limits(ctx, group, &ops)?;
            }
            Ok(ctx.services.metadata.alter_configs(resource, ops, validate_only).await?)
        }
        Resource::Loggers => Ok(broker_loggers::alter(&ops, validate_only)?),
    }
}

/// A group's settings must keep within the broker's limits (`group.consumer.min.session.timeout.ms` …), and a session must outlast a heartbeat.
fn refuse_beyond_limits(ctx: &RequestContext, group: &str, ops: &[ConfigOp]) -> Result<(), MetadataError> {
    let image = ctx.services.metadata.image();
    let broker = |name: String| ctx.services.broker_setting::<i64>(&name);
    let sets = ops.iter().filter_map(|op| match op {
        ConfigOp::Set(name, value) => Some((name.as_str(), value.trim().parse::<i64>().ok()?)),
        ConfigOp::Delete(_) | ConfigOp::Append(..) | ConfigOp::Subtract(..) => None,
    });
    for (name, value) in sets.clone() {
        let Some((kind, rest)) = name.split_once('.') else { continue };
        let (min, max) = (format!("group.{kind}.min.{rest}"), format!("group.{kind}.max.{rest}"));
        if broker(min.clone()).is_some_and(|limit| value < limit) {
            return Err(MetadataError::InvalidConfig(format!("{name} must be greater than or equal to {min}")));
        }
        if broker(max.clone()).is_some_and(|limit| value > limit) {
            return Err(MetadataError::InvalidConfig(format!("{name} must be less than or equal to {max}")));
        }
    }
    let is_deleted = |name: &str| ops.iter().any(|op| matches!(op, ConfigOp::Delete(deleted) if deleted == name));
    let own = |name: &str| image.group_configs.get(group).and_then(|configs| configs.get(name)?.trim().parse().ok());
    let in_force = |name: String| {
        let set = sets.clone().filter(|(changed, _)| *changed == name).map(|(_, value)| value).next_back();
        set.or_else(|| own(&name).filter(|_| !is_deleted(&name))).or_else(|| broker(format!("group.{name}")))
    };
    for kind in ["consumer", "share", "streams"] {
        let (session, heartbeat) = (format!("{kind}.session.timeout.ms"), format!("{kind}.heartbeat.interval.ms"));
        if let (Some(timeout), Some(interval)) = (in_force(session.clone()), in_force(heartbeat.clone()))
            && timeout <= interval
        {
            return Err(MetadataError::InvalidConfig(format!("{session} must be greater than {heartbeat}")));
        }
    }
    Ok(())
}
