//! DescribeConfigs: every setting with value, source, synonyms and documentation (KIP-133, KIP-226, KIP-569).

use std::collections::HashSet;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use siltstone_metadata::MetadataError;
use siltstone_metadata::acls::AclOperation;
use siltstone_metadata::api::ConfigResource;

use crate::answer::AnswerRoom;
use crate::broker_loggers;
use crate::config_entries::{ConfigEntry, Detail, of_broker, of_client_metrics, of_cluster_default, of_group, of_topic};
use crate::config_resource::{Resource, authorize, resource};
use crate::context::RequestContext;
use crate::error_codes::{metadata_error, words};
use crate::topic_lookup::text;

pub(crate) async fn handle(ctx: &RequestContext, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let detail = Detail { synonyms: request.include_synonyms, documentation: ctx.api_version >= 3 && request.include_documentation };
    let mut room = AnswerRoom::new();
    let results = request.resources.iter().map(|asked| {
        let result =
            DescribeConfigsResult::default().with_resource_type(asked.resource_type).with_resource_name(asked.resource_name.clone());
        if let Err(error) = authorize(ctx, AclOperation::DescribeConfigs, asked.resource_type, asked.resource_name.as_str()) {
            return result.with_error_code(error.code()).with_error_message(Some(text(words(error))));
        }
        if room.check().is_err() {
            let code = ResponseError::InvalidRequest.code();
            return result
                .with_error_code(code)
                .with_error_message(Some(text("The answer is too large: ask for fewer resources at once.")));
        }
        match describe(ctx, asked, detail) {
            Ok(configs) => {
                let texts = |config: &DescribeConfigsResourceResult| {
                    let [value, documentation] =
                        [&config.value, &config.documentation].map(|text| text.as_ref().map_or(0, |text| text.len()));
                    config.name.len() + value + documentation
                };
                let parts = configs.iter().map(|config| 1 + config.synonyms.len()).sum();
                room.take(parts, configs.iter().map(texts).sum());
                result.with_configs(configs).with_error_message(Some(text("")))
            }
            // Kafka has no text for this one.
            Err(error @ MetadataError::UnknownTopic(_)) => {
                result.with_error_code(metadata_error(&error).code()).with_error_message(Some(text("")))
            }
            Err(error) => {
                let code: ResponseError = metadata_error(&error);
                result.with_error_code(code.code()).with_error_message(Some(text(error)))
            }
        }
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

fn describe(
    ctx: &RequestContext,
    asked: &DescribeConfigsResource,
    detail: Detail,
) -> Result<Vec<DescribeConfigsResourceResult>, MetadataError> {
    let image = ctx.services.metadata.image();
    // No keys at all are all keys, as in Kafka.
    let keys: HashSet<&str> = asked.configuration_keys.iter().flatten().map(|key| key.as_str()).collect();
    let wanted = |name: &str| keys.is_empty() || keys.contains(name);
    let resource = match resource(ctx, asked.resource_type, asked.resource_name.as_str())? {
        Resource::Stored(resource) => resource,
        Resource::Loggers => return Ok(broker_loggers::describe().into_iter().filter(|logger| wanted(logger.name.as_str())).collect()),
    };
    let (entries, fixed): (Vec<ConfigEntry>, bool) = match resource {
        ConfigResource::Topic(name) => {
            let topic = image.topic(&name).ok_or(MetadataError::UnknownTopic(name))?;
            (of_topic(ctx, &image, &topic.configs), false)
        }
        ConfigResource::Broker(name) if name.is_empty() => (of_cluster_default(&image), false),
        ConfigResource::Broker(_) => (of_broker(ctx, &image), true),
        ConfigResource::Group(name) => (of_group(ctx, &image, &image.group_configs.get(&name).cloned().unwrap_or_default()), false),
        ConfigResource::ClientMetrics(name) => match image.client_metrics.get(&name) {
            Some(own) => (of_client_metrics(own), false),
            None => (Vec::new(), false),
        },
    };
    let entries = entries.iter().filter(|entry| wanted(entry.name()));
    Ok(entries.map(|entry| entry.describe(detail, fixed && !entry.is_dynamic())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config_resource::BROKER;
    use crate::heap_meter::peak_bytes;
    use crate::rig::Rig;

    /// I42: eight bytes ask for 100 kB each time.
    #[tokio::test]
    async fn one_broker_asked_for_very_often_takes_bounded_memory() {
        const TIMES: usize = 3_000;
        let rig = Rig::new().await;
        let resource = DescribeConfigsResource::default().with_resource_type(BROKER).with_resource_name(text("0"));
        let request = DescribeConfigsRequest::default().with_resources(vec![resource.with_configuration_keys(None); TIMES]);
        let request = request.with_include_synonyms(true).with_include_documentation(true);
        let ctx = rig.request(4);
        let (peak, response) = peak_bytes(|| futures::executor::block_on(handle(&ctx, request)));
        assert!(peak < 200 << 20, "{peak} bytes of heap");
        assert_eq!(response.results.len(), TIMES);
        let told = response.results.iter().take_while(|result| result.error_code == 0 && !result.configs.is_empty()).count();
        assert!((100..TIMES).contains(&told), "{told}");
        assert!(response.results[told..].iter().all(|result| result.error_code == ResponseError::InvalidRequest.code()));
    }
}
