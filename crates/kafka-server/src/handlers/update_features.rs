//! UpdateFeatures (KIP-584): raises, lowers and switches off features, all or none.

use kafka_protocol::messages::update_features_request::FeatureUpdateKey;
use kafka_protocol::messages::update_features_response::UpdatableFeatureResult;
use kafka_protocol::messages::{UpdateFeaturesRequest, UpdateFeaturesResponse};
use siltstone_metadata::MetadataError;
use siltstone_metadata::acls::AclOperation;
use siltstone_metadata::api::AdminChange;
use siltstone_metadata::features::{FeatureUpdate, UpgradeType};

use crate::context::RequestContext;
use crate::error_codes::{metadata_error, words};
use crate::topic_lookup::text;

pub(crate) async fn handle(ctx: &RequestContext, request: UpdateFeaturesRequest) -> UpdateFeaturesResponse {
    if let Err(error) = ctx.authorize_cluster(AclOperation::Alter) {
        return UpdateFeaturesResponse::default().with_error_code(error.code()).with_error_message(Some(text(words(error))));
    }
    let names: Vec<_> = request.feature_updates.iter().map(|update| update.feature.clone()).collect();
    let updates: Result<Vec<_>, _> = request.feature_updates.iter().map(|update| asked(ctx.api_version, update)).collect();
    let outcome = match updates {
        Ok(updates) => ctx.services.metadata.administer(AdminChange::Features(updates), request.validate_only).await,
        Err(error) => Err(error),
    };
    let response = UpdateFeaturesResponse::default();
    match outcome {
        Ok(()) if ctx.api_version >= 2 => response,
        Ok(()) => response.with_results(names.into_iter().map(|name| UpdatableFeatureResult::default().with_feature(name)).collect()),
        Err(error) => {
            let message = format!("The update failed for all features since the following feature had an error: {error}");
            response.with_error_code(metadata_error(&error).code()).with_error_message(Some(text(message)))
        }
    }
}

fn asked(version: i16, update: &FeatureUpdateKey) -> Result<FeatureUpdate, MetadataError> {
    let upgrade = match update.upgrade_type {
        _ if version == 0 && update.allow_downgrade => UpgradeType::SafeDowngrade,
        _ if version == 0 => UpgradeType::Upgrade,
        1 => UpgradeType::Upgrade,
        2 => UpgradeType::SafeDowngrade,
        3 => UpgradeType::UnsafeDowngrade,
        _ => return Err(MetadataError::InvalidFeature("The controller does not support the given upgrade type.".to_owned())),
    };
    Ok(FeatureUpdate { name: update.feature.to_string(), level: update.max_version_level, upgrade })
}
