//! ApiVersions (KIP-35, KIP-511): what this broker serves.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::api_versions_response::{ApiVersion, FinalizedFeatureKey, SupportedFeatureKey};
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use kafka_protocol::protocol::Request;
use siltstone_metadata::features::{FEATURES, level};

use crate::answer::{Answer, encode_answer};
use crate::api_table::{APIS, find};
use crate::context::RequestContext;
use crate::topic_lookup::text;

/// From this version on clients name their software.
const FIRST_VERSION_WITH_SOFTWARE: i16 = 3;
/// The finalized features are not told. At this default the field is left out, as old librdkafka needs it.
const NO_FEATURES_EPOCH: i64 = -1;

/// The table, or INVALID_REQUEST if the client names its software by characters that could not be a metric's label.
pub(crate) async fn handle(ctx: &RequestContext, request: ApiVersionsRequest) -> ApiVersionsResponse {
    let named = |text: &str| ctx.api_version < FIRST_VERSION_WITH_SOFTWARE || is_software_name(text);
    if !named(&request.client_software_name) || !named(&request.client_software_version) {
        return ApiVersionsResponse::default()
            .with_error_code(ResponseError::InvalidRequest.code())
            .with_finalized_features_epoch(NO_FEATURES_EPOCH);
    }
    tracing::debug!(peer = %ctx.session.peer, software = %&*request.client_software_name, version = %&*request.client_software_version, "client connected");
    ctx.services.telemetry.note_software(ctx.session.peer, &request.client_software_name, &request.client_software_version);
    let answer = table_answer(ctx.services.telemetry.enabled());
    if ctx.api_version < FIRST_VERSION_WITH_SOFTWARE { answer } else { with_features(ctx, answer) }
}

/// The answer to a version that isn't served: version 0, UNSUPPORTED_VERSION, and the versions of ApiVersions alone, so that the client asks again.
pub(crate) fn unsupported_version(correlation_id: i32) -> Answer {
    let this = find(ApiVersionsRequest::KEY).map(|row| advertised(row.api()));
    let response = ApiVersionsResponse::default()
        .with_error_code(ResponseError::UnsupportedVersion.code())
        .with_api_keys(this.into_iter().collect())
        .with_finalized_features_epoch(NO_FEATURES_EPOCH);
    encode_answer(correlation_id, 0, &response)
}

/// Clients' metrics are asked for only where something receives them, as in Kafka.
const TELEMETRY_KEYS: [i16; 2] = [71, 72];

fn table_answer(with_telemetry: bool) -> ApiVersionsResponse {
    let told = APIS.iter().filter(|api| with_telemetry || !TELEMETRY_KEYS.contains(&api.key));
    ApiVersionsResponse::default().with_api_keys(told.map(advertised).collect()).with_finalized_features_epoch(NO_FEATURES_EPOCH)
}

/// Features as tags, from version 3 on (KIP-584). One whose lowest level is 0 is told from version 4 on: clients before that choke on it.
fn with_features(ctx: &RequestContext, answer: ApiVersionsResponse) -> ApiVersionsResponse {
    const FIRST_VERSION_WITH_ZERO_LEVELS: i16 = 4;
    let image = ctx.services.metadata.image();
    let told = FEATURES.iter().filter(|def| def.min > 0 || ctx.api_version >= FIRST_VERSION_WITH_ZERO_LEVELS);
    let supported =
        told.map(|def| SupportedFeatureKey::default().with_name(text(def.name)).with_min_version(def.min).with_max_version(def.max));
    // A level of 0 is no level.
    let levels = FEATURES.iter().map(|def| (def.name, level(&image.features, def))).filter(|(_, level)| *level > 0);
    let finalized = levels.map(|(name, level)| {
        FinalizedFeatureKey::default().with_name(text(name)).with_min_version_level(level).with_max_version_level(level)
    });
    answer
        .with_supported_features(supported.collect())
        .with_finalized_features_epoch(i64::try_from(image.revision).unwrap_or(i64::MAX))
        .with_finalized_features(finalized.collect())
}

fn advertised(api: &crate::api_table::Api) -> ApiVersion {
    ApiVersion::default().with_api_key(api.key).with_min_version(api.advertised_min_version).with_max_version(api.max_version)
}

/// Kafka's `[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?`.
fn is_software_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    ends(bytes.first()) && ends(bytes.last()) && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use bytes::{Buf, Bytes};
    use kafka_protocol::protocol::Encodable;

    use super::*;

    #[test]
    fn software_names_follow_kafkas_pattern() {
        for good in ["a", "apache-kafka-java", "4.3.1", "librdkafka"] {
            assert!(is_software_name(good), "{good}");
        }
        for bad in ["", "-a", "a.", "a b", "a\n", "ä"] {
            assert!(!is_software_name(bad), "{bad}");
        }
    }

    #[test]
    fn tags_at_their_defaults_are_left_out_or_old_librdkafka_dies() {
        let mut bytes = bytes::BytesMut::new();
        table_answer(true).encode(&mut bytes, 3).expect("encodes");
        assert_eq!(bytes.last(), Some(&0), "the answer must end with an empty tag section");
        // error, count + rows of 7 bytes (the last is an empty tag section), throttle time, tag section
        assert_eq!(bytes.len(), 2 + 1 + 7 * APIS.len() + 4 + 1);
    }

    #[test]
    fn an_unknown_version_is_answered_in_version_0_with_this_apis_range() {
        let Answer::Frame(pieces) = unsupported_version(7) else { panic!("must answer") };
        let siltstone_log::LogSlice::Memory(frame) = &pieces[0] else { panic!("must be memory") };
        let mut frame: Bytes = frame.clone();
        assert_eq!(frame.get_u32() as usize, frame.len());
        assert_eq!((frame.get_i32(), frame.get_i16(), frame.get_i32()), (7, 35, 1));
        assert_eq!((frame.get_i16(), frame.get_i16(), frame.get_i16()), (18, 0, 4));
        assert!(!frame.has_remaining());
    }
}
