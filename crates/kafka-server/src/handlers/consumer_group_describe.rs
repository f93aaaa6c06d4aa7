//! ConsumerGroupDescribe (KIP-848): state, epochs and members of consumer groups.

use std::collections::BTreeSet;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::consumer_group_describe_response::{Assignment, DescribedGroup, Member, TopicPartitions};
use kafka_protocol::messages::{ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, GroupId, TopicName};
use kafka_protocol::protocol::StrBytes;
use siltstone_coordinator::{DescribedConsumerMember, DescribedPartitions};
use siltstone_metadata::acls::{AclOperation, ResourceType};

use crate::answer::AnswerRoom;
use crate::context::RequestContext;
use crate::error_codes::group_error;
use crate::topic_lookup::{OPERATIONS_UNKNOWN, text, topic_name};

/// [`Member::member_type`] of a member that speaks the classic protocol.
const CLASSIC_MEMBER: i8 = 0;
const CONSUMER_MEMBER: i8 = 1;

pub(crate) async fn handle(ctx: &RequestContext, request: ConsumerGroupDescribeRequest) -> ConsumerGroupDescribeResponse {
    let mut room = AnswerRoom::new();
    let served = ctx.services.serves_consumer_groups();
    let groups = request.group_ids.into_iter().map(|group_id| {
        let permitted = match served {
            true => ctx.authorize(AclOperation::Describe, ResourceType::Group, group_id.0.as_str()),
            false => Err(ResponseError::UnsupportedVersion),
        };
        if let Err(error) = permitted {
            return DescribedGroup::default()
                .with_group_id(group_id)
                .with_error_code(error.code())
                .with_authorized_operations(OPERATIONS_UNKNOWN);
        }
        let group = match room.check() {
            Ok(()) => hide_topics(ctx, describe(ctx, group_id)),
            Err(error) => DescribedGroup::default().with_group_id(group_id).with_error_code(error.code()),
        };
        room.take(1 + group.members.iter().map(parts_of).sum::<usize>(), 0);
        let operations = ctx.group_operations(request.include_authorized_operations && group.error_code == 0, &group.group_id);
        group.with_authorized_operations(operations)
    });
    ConsumerGroupDescribeResponse::default().with_groups(groups.collect())
}

/// A group whose members have to do with topics that the client may not describe tells of none of them.
fn hide_topics(ctx: &RequestContext, group: DescribedGroup) -> DescribedGroup {
    if !ctx.has_authorizer() {
        return group;
    }
    let assignments = group.members.iter().flat_map(|member| [&member.assignment, &member.target_assignment]);
    let assigned = assignments.flat_map(|assignment| &assignment.topic_partitions).map(|topic| &topic.topic_name);
    let topics: BTreeSet<&TopicName> = group.members.iter().flat_map(|member| &member.subscribed_topic_names).chain(assigned).collect();
    if topics.iter().all(|topic| ctx.authorize(AclOperation::Describe, ResourceType::Topic, topic.0.as_str()).is_ok()) {
        return group;
    }
    let reason = "The group has described topic(s) that the client is not authorized to describe.";
    DescribedGroup::default()
        .with_group_id(group.group_id)
        .with_error_code(ResponseError::TopicAuthorizationFailed.code())
        .with_error_message(Some(StrBytes::from_static_str(reason)))
}

fn describe(ctx: &RequestContext, group_id: GroupId) -> DescribedGroup {
    let described = ctx.services.groups.describe_consumer_group(group_id.0.as_str());
    let answer = DescribedGroup::default().with_group_id(group_id);
    match described {
        Err(refusal) => answer.with_error_code(group_error(refusal.error).code()).with_error_message(refusal.message.map(text)),
        Ok(group) => answer
            .with_group_state(StrBytes::from_static_str(group.state))
            .with_group_epoch(group.group_epoch)
            .with_assignment_epoch(group.assignment_epoch)
            .with_assignor_name(StrBytes::from_static_str(group.assignor))
            .with_members(group.members.into_iter().map(|described| member(ctx, described)).collect()),
    }
}

/// The member, its topics, and its partitions by the dozen.
fn parts_of(member: &Member) -> usize {
    let assignments = [&member.assignment, &member.target_assignment];
    let topics = assignments.iter().flat_map(|assignment| &assignment.topic_partitions);
    2 + member.subscribed_topic_names.len() + topics.map(|topic| 1 + topic.partitions.len() / 12).sum::<usize>()
}

fn member(ctx: &RequestContext, member: DescribedConsumerMember) -> Member {
    let kind = if member.is_classic { CLASSIC_MEMBER } else { CONSUMER_MEMBER };
    Member::default()
        .with_member_id(text(member.member_id))
        .with_instance_id(member.group_instance_id.map(text))
        .with_rack_id(member.rack_id.map(text))
        .with_member_epoch(member.member_epoch)
        .with_client_id(text(member.client_id))
        .with_client_host(text(member.client_host))
        .with_subscribed_topic_names(member.subscribed_topics.iter().map(|name| topic_name(name)).collect())
        .with_subscribed_topic_regex(Some(text(member.subscribed_regex)))
        .with_assignment(assignment(member.assignment))
        .with_target_assignment(assignment(member.target))
        // Version 0 does not tell the protocols apart; there the field must keep its default.
        .with_member_type(if ctx.api_version >= 1 { kind } else { Member::default().member_type })
}

fn assignment(topics: Vec<DescribedPartitions>) -> Assignment {
    let topics = topics.into_iter().map(|topic| {
        TopicPartitions::default()
            .with_topic_id(topic.topic_id.0)
            .with_topic_name(topic_name(&topic.topic_name))
            .with_partitions(topic.partitions)
    });
    Assignment::default().with_topic_partitions(topics.collect())
}
