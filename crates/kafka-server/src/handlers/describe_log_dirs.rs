//! DescribeLogDirs over both tiers: the local data directory, and the bucket as a directory called `remote`.

use std::collections::BTreeMap;

use kafka_protocol::messages::describe_log_dirs_response::{DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic};
use kafka_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse};
use siltstone_metadata::MetadataImage;

use crate::context::RequestContext;
use crate::topic_lookup::{text, topic_name};

type Sizes = BTreeMap<String, Vec<(i32, u64)>>;

pub(crate) async fn handle(ctx: &RequestContext, request: DescribeLogDirsRequest) -> DescribeLogDirsResponse {
    let image = ctx.services.metadata.image();
    let (partitions, total, usable) = ctx.services.replicas.describe_log_dir().await;
    let (mut local, mut remote) = (Sizes::new(), Sizes::new());
    for partition in partitions {
        let Some(name) = wanted(&image, &request, partition.id) else { continue };
        local.entry(name.clone()).or_default().push((partition.id.partition, partition.local_bytes));
        if partition.remote_bytes > 0 {
            remote.entry(name).or_default().push((partition.id.partition, partition.remote_bytes));
        }
    }
    let mut results = vec![dir(&ctx.services.config.log_dir, local, ctx.api_version, (total, usable))];
    if !remote.is_empty() {
        results.push(dir("remote", remote, ctx.api_version, (0, 0)));
    }
    DescribeLogDirsResponse::default().with_results(results)
}

/// The partition's topic, if the request asks for the partition.
fn wanted(image: &MetadataImage, request: &DescribeLogDirsRequest, id: siltstone_common::TopicIdPartition) -> Option<String> {
    let topic = image.topic_by_id(id.topic_id)?;
    let asked = match &request.topics {
        None => true,
        Some(topics) => topics.iter().any(|asked| asked.topic.0.as_str() == topic.name && asked.partitions.contains(&id.partition)),
    };
    asked.then(|| topic.name.clone())
}

fn dir(name: &str, sizes: Sizes, version: i16, (total, usable): (u64, u64)) -> DescribeLogDirsResult {
    let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let topics = sizes.into_iter().map(|(topic, partitions)| {
        let partitions = partitions
            .into_iter()
            .map(|(index, bytes)| DescribeLogDirsPartition::default().with_partition_index(index).with_partition_size(signed(bytes)));
        DescribeLogDirsTopic::default().with_name(topic_name(&topic)).with_partitions(partitions.collect())
    });
    let result = DescribeLogDirsResult::default().with_log_dir(text(name)).with_topics(topics.collect());
    if version >= 4 { result.with_total_bytes(signed(total)).with_usable_bytes(signed(usable)) } else { result }
}
