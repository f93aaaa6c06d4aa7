//! DescribeLogDirs over both tiers: the local data directory, and the bucket as a directory called `remote`.

use std::collections::{BTreeMap, HashSet};

use bytes::{BufMut, BytesMut};
use kafka_protocol::messages::describe_log_dirs_response::{DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic};
use kafka_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse};
use kafka_protocol::protocol::{Encodable, HeaderVersion};
use siltstone_metadata::acls::AclOperation;

use crate::answer::{Answer, begin_frame, encode_answer, finish_frame};
use crate::context::RequestContext;
use crate::topic_lookup::{text, topic_name};

type Sizes = BTreeMap<String, Vec<(i32, u64)>>;

/// First version with an error of the whole request; before, those who may not ask see nothing.
const ERROR_FROM: i16 = 3;

pub(crate) async fn handle(ctx: &RequestContext, request: DescribeLogDirsRequest) -> DescribeLogDirsResponse {
    if let Err(error) = ctx.authorize_cluster(AclOperation::Describe) {
        let response = DescribeLogDirsResponse::default();
        return if ctx.api_version >= ERROR_FROM { response.with_error_code(error.code()) } else { response };
    }
    let image = ctx.services.metadata.image();
    let (partitions, total, usable) = ctx.services.replicas.describe_log_dir().await;
    let (mut local, mut remote) = (Sizes::new(), Sizes::new());
    let asked: Option<HashSet<(&str, i32)>> = request
        .topics
        .as_ref()
        .map(|topics| topics.iter().flat_map(|topic| topic.partitions.iter().map(|index| (topic.topic.0.as_str(), *index))).collect());
    for partition in partitions {
        let Some(topic) = image.topic_by_id(partition.id.topic_id) else { continue };
        if asked.as_ref().is_some_and(|asked| !asked.contains(&(topic.name.as_str(), partition.id.partition))) {
            continue;
        }
        let name = topic.name.clone();
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

/// Version 5 also tells of each directory whether it is cordoned (KIP-1066); none is. The codec knows version 4, whose form is otherwise the same.
pub(crate) fn encode(correlation_id: i32, version: i16, response: &DescribeLogDirsResponse) -> Answer {
    if version <= CODEC_VERSION {
        return encode_answer(correlation_id, version, response);
    }
    let mut frame = begin_frame(correlation_id, DescribeLogDirsResponse::header_version(CODEC_VERSION), 256);
    match encode_cordoned(&mut frame, response) {
        Ok(()) => {
            finish_frame(&mut frame, 0);
            Answer::bytes(frame.freeze())
        }
        Err(error) => Answer::Close(format!("could not encode the answer: {error}")),
    }
}

/// The newest version of the codec.
const CODEC_VERSION: i16 = 4;
/// An empty tag section, which ends every flexible struct.
const NO_TAGS: u8 = 0;

fn encode_cordoned(frame: &mut BytesMut, response: &DescribeLogDirsResponse) -> Result<(), String> {
    frame.put_i32(response.throttle_time_ms);
    frame.put_i16(response.error_code);
    put_compact_len(frame, response.results.len());
    for result in &response.results {
        result.encode(frame, CODEC_VERSION).map_err(|error| error.to_string())?;
        // The new field stands before the tag section.
        frame.truncate(frame.len() - 1);
        frame.put_u8(0);
        frame.put_u8(NO_TAGS);
    }
    frame.put_u8(NO_TAGS);
    Ok(())
}

/// The length of a compact array: one more than it is, seven bits a byte.
fn put_compact_len(frame: &mut BytesMut, len: usize) {
    let mut rest = len + 1;
    while rest >= 0x80 {
        frame.put_u8((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    frame.put_u8(rest as u8);
}

#[cfg(test)]
mod tests {
    use kafka_protocol::protocol::Decodable;
    use siltstone_log::LogSlice;

    use super::*;

    #[test]
    fn version_5_is_version_4_and_a_flag_per_directory() {
        let results = (0..200).map(|index| dir(&format!("d{index}"), Sizes::new(), 5, (7, 3)));
        let response = DescribeLogDirsResponse::default().with_results(results.collect());
        let body = |version: i16| match encode(1, version, &response) {
            Answer::Frame(pieces) => match &pieces[0] {
                LogSlice::Memory(bytes) => bytes.slice(9..),
                LogSlice::File { .. } => panic!("in memory"),
            },
            other => panic!("{other:?}"),
        };
        let (old, new) = (body(4), body(5));
        assert_eq!(new.len(), old.len() + 200);
        let again = DescribeLogDirsResponse::decode(&mut old.clone(), 4).expect("decodes");
        assert_eq!(again.results.len(), 200);
        // Throttle time, error, length of 201 in two bytes, then the first directory: error, name, topics, sizes, flag, tags.
        let first = &new[8..];
        assert_eq!(&first[..6], &[0, 0, 3, b'd', b'0', 1]);
        assert_eq!(&first[6 + 16..6 + 18], &[0, 0]);
        assert_eq!(&first[6 + 18..6 + 21], &[0, 0, 3]);
    }
}
