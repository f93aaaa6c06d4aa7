//! DescribeClientQuotas (KIP-546): the quotas whose entities match a filter.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_client_quotas_request::ComponentData;
use kafka_protocol::messages::describe_client_quotas_response::{EntityData, EntryData, ValueData};
use kafka_protocol::messages::{DescribeClientQuotasRequest, DescribeClientQuotasResponse};
use siltstone_metadata::acls::AclOperation;
use siltstone_metadata::quotas::{CLIENT_ID, IP, QuotaEntity, Quotas, USER};

use crate::context::RequestContext;
use crate::topic_lookup::text;

pub(crate) async fn handle(ctx: &RequestContext, request: DescribeClientQuotasRequest) -> DescribeClientQuotasResponse {
    if let Err(error) = ctx.authorize_cluster(AclOperation::DescribeConfigs) {
        let response = DescribeClientQuotasResponse::default().with_error_code(error.code());
        return response.with_error_message(None).with_entries(None);
    }
    let filter = match Filter::parse(&request.components, request.strict) {
        Ok(filter) => filter,
        Err((error, reason)) => {
            let response = DescribeClientQuotasResponse::default().with_error_code(error.code());
            return response.with_error_message(Some(text(reason))).with_entries(None);
        }
    };
    let image = ctx.services.metadata.image();
    let entries = image.quotas.iter().filter(|(entity, _)| filter.matches(entity)).map(|(entity, quotas)| entry(entity, quotas));
    DescribeClientQuotasResponse::default().with_error_message(None).with_entries(Some(entries.collect()))
}

fn entry(entity: &QuotaEntity, quotas: &Quotas) -> EntryData {
    let parts =
        entity.0.iter().map(|(kind, name)| EntityData::default().with_entity_type(text(kind)).with_entity_name(name.as_ref().map(text)));
    let values = quotas.iter().map(|(name, value)| ValueData::default().with_key(text(name)).with_value(value.0));
    EntryData::default().with_entity(parts.collect()).with_values(values.collect())
}

/// What a component of the filter asks of an entity's part.
enum Wanted {
    Exactly(Option<String>),
    Anything,
}

struct Filter {
    parts: BTreeMap<String, Wanted>,
    /// Whether entities may have no further parts.
    strict: bool,
}

impl Filter {
    fn parse(components: &[ComponentData], strict: bool) -> Result<Self, (ResponseError, String)> {
        let invalid = |reason: String| (ResponseError::InvalidRequest, reason);
        let mut parts = BTreeMap::new();
        for component in components {
            let kind = component.entity_type.to_string();
            let name = component._match.as_ref().map(ToString::to_string);
            let wanted = match (component.match_type, name) {
                (0, Some(name)) => Wanted::Exactly(Some(name)),
                (0, None) => return Err(invalid("an exact match needs a name to match".to_owned())),
                (1, None) => Wanted::Exactly(None),
                (2, None) => Wanted::Anything,
                (1 | 2, Some(_)) => return Err(invalid("only an exact match has a name to match".to_owned())),
                (other, _) => return Err(invalid(format!("Unknown match type {other}"))),
            };
            if kind.is_empty() {
                return Err(invalid("Invalid empty entity type.".to_owned()));
            }
            if ![USER, CLIENT_ID, IP].contains(&kind.as_str()) {
                return Err((ResponseError::UnsupportedVersion, format!("Custom entity type '{kind}' not supported")));
            }
            if parts.insert(kind.clone(), wanted).is_some() {
                return Err(invalid(format!("Entity type {kind} cannot appear more than once in the filter.")));
            }
        }
        if parts.contains_key(IP) && parts.len() > 1 {
            return Err(invalid("an address can't be combined with a user or a client id".to_owned()));
        }
        Ok(Self { parts, strict })
    }

    fn matches(&self, entity: &QuotaEntity) -> bool {
        let part = |(kind, wanted): (&String, &Wanted)| match (entity.0.get(kind), wanted) {
            (Some(name), Wanted::Exactly(wanted)) => name == wanted,
            (Some(_), Wanted::Anything) => true,
            (None, _) => false,
        };
        (!self.strict || self.parts.len() == entity.0.len()) && self.parts.iter().all(part)
    }
}
