//! AlterClientQuotas (KIP-546): sets and takes away quotas, entity by entity.

use std::collections::BTreeMap;

use kafka_protocol::messages::alter_client_quotas_request::EntryData;
use kafka_protocol::messages::alter_client_quotas_response::{EntityData as EntityAnswer, EntryData as EntryAnswer};
use kafka_protocol::messages::{AlterClientQuotasRequest, AlterClientQuotasResponse};
use siltstone_metadata::MetadataError;
use siltstone_metadata::acls::AclOperation;
use siltstone_metadata::api::AdminChange;
use siltstone_metadata::quotas::QuotaEntity;

use crate::context::RequestContext;
use crate::error_codes::{Refused, with_error};

pub(crate) async fn handle(ctx: &RequestContext, request: AlterClientQuotasRequest) -> AlterClientQuotasResponse {
    let permitted = ctx.authorize_cluster(AclOperation::AlterConfigs).map_err(Refused::from);
    let mut entries = Vec::with_capacity(request.entries.len());
    for asked in request.entries {
        let answer = EntryAnswer::default().with_entity(
            asked
                .entity
                .iter()
                .map(|part| EntityAnswer::default().with_entity_type(part.entity_type.clone()).with_entity_name(part.entity_name.clone()))
                .collect(),
        );
        let outcome = match permitted.clone().and_then(|()| change(&asked).map_err(Refused::from)) {
            Ok(change) => ctx.services.metadata.administer(change, request.validate_only).await.map_err(Refused::from),
            Err(error) => Err(error),
        };
        entries.push(with_error!(answer, outcome));
    }
    AlterClientQuotasResponse::default().with_entries(entries)
}

fn change(asked: &EntryData) -> Result<AdminChange, MetadataError> {
    let mut entity = QuotaEntity::default();
    for part in &asked.entity {
        let name = part.entity_name.as_ref().map(ToString::to_string);
        if entity.0.insert(part.entity_type.to_string(), name).is_some() {
            return Err(MetadataError::InvalidRequest(format!("Duplicate entity type: {}", part.entity_type.as_str())));
        }
    }
    let mut ops = BTreeMap::new();
    for op in &asked.ops {
        if ops.insert(op.key.to_string(), (!op.remove).then_some(op.value)).is_some() {
            return Err(MetadataError::InvalidRequest(format!("Duplicate quota key: {}", op.key.as_str())));
        }
    }
    Ok(AdminChange::Quotas { entity, ops })
}
