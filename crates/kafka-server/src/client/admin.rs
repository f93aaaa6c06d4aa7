//! Topics and groups.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::{
    BrokerId, ConsumerGroupDescribeRequest, CreateTopicsRequest, DeleteGroupsRequest, DeleteTopicsRequest, DescribeGroupsRequest,
    FindCoordinatorRequest, GroupId, ListGroupsRequest, ListOffsetsRequest, OffsetFetchRequest,
};
use serde::Serialize;

use super::{Client, ClientError, check};
use crate::topic_lookup::{text, topic_name};

/// ListOffsets' timestamp for the log start.
pub(super) const EARLIEST: i64 = -2;
/// ListOffsets' timestamp for the log end.
pub(super) const LATEST: i64 = -1;

/// A topic to be made; -1 for the broker's defaults.
#[derive(Clone, Debug)]
pub struct NewTopic {
    /// Name.
    pub name: String,
    /// Partitions.
    pub partitions: i32,
    /// Replicas.
    pub replication_factor: i16,
    /// Settings.
    pub configs: BTreeMap<String, String>,
}

/// A partition of a topic.
#[derive(Clone, Debug, Serialize)]
pub struct PartitionDescription {
    /// Index.
    pub partition: i32,
    /// Leader.
    pub leader: i32,
    /// Leader epoch.
    pub leader_epoch: i32,
    /// Replicas.
    pub replicas: Vec<i32>,
    /// In-sync replicas.
    pub isr: Vec<i32>,
    /// First offset.
    pub start_offset: i64,
    /// First offset on local disk; -1 if the broker does not tell.
    pub local_start_offset: i64,
    /// High watermark.
    pub end_offset: i64,
}

/// A topic.
#[derive(Clone, Debug, Serialize)]
pub struct TopicDescription {
    /// Name.
    pub name: String,
    /// Id.
    pub id: String,
    /// Partitions, in order.
    pub partitions: Vec<PartitionDescription>,
}

/// A group in a list.
#[derive(Clone, Debug, Serialize)]
pub struct GroupListing {
    /// Id.
    pub group: String,
    /// State.
    pub state: String,
    /// `consumer`, …
    pub protocol_type: String,
    /// `classic` or `consumer`.
    pub group_type: String,
}

/// A member of a group.
#[derive(Clone, Debug, Serialize)]
pub struct GroupMember {
    /// Id.
    pub member_id: String,
    /// The client's name for itself.
    pub client_id: String,
    /// Where it comes from.
    pub host: String,
}

/// A committed offset.
#[derive(Clone, Debug, Serialize)]
pub struct GroupOffset {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Committed.
    pub committed: i64,
    /// High watermark.
    pub end_offset: i64,
}

/// A group.
#[derive(Clone, Debug, Serialize)]
pub struct GroupDescription {
    /// Id.
    pub group: String,
    /// State.
    pub state: String,
    /// Assignor in force.
    pub protocol: String,
    /// Members.
    pub members: Vec<GroupMember>,
    /// Offsets.
    pub offsets: Vec<GroupOffset>,
}

impl Client {
    /// Names of all topics.
    pub async fn list_topics(&mut self) -> Result<Vec<String>, ClientError> {
        let metadata = self.metadata(None, false).await?;
        let mut names: Vec<String> =
            metadata.topics.iter().filter_map(|topic| topic.name.as_ref()).map(|name| name.0.to_string()).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Makes a topic.
    pub async fn create_topic(&mut self, topic: NewTopic) -> Result<(), ClientError> {
        let configs =
            topic.configs.iter().map(|(name, value)| CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value))));
        let wanted = CreatableTopic::default()
            .with_name(topic_name(&topic.name))
            .with_num_partitions(topic.partitions)
            .with_replication_factor(topic.replication_factor)
            .with_configs(configs.collect());
        let answer = self.call(CreateTopicsRequest::default().with_topics(vec![wanted]).with_timeout_ms(30_000)).await?;
        answer.topics.iter().try_for_each(|result| check(&topic.name, result.error_code, result.error_message.as_deref()))
    }

    /// Deletes a topic.
    pub async fn delete_topic(&mut self, name: &str) -> Result<(), ClientError> {
        let topics = vec![DeleteTopicState::default().with_name(Some(topic_name(name)))];
        let answer = self.call(DeleteTopicsRequest::default().with_topics(topics).with_timeout_ms(30_000)).await?;
        answer.responses.iter().try_for_each(|result| check(name, result.error_code, result.error_message.as_deref()))
    }

    /// A topic with its partitions' leaders and offsets.
    pub async fn describe_topic(&mut self, name: &str) -> Result<TopicDescription, ClientError> {
        let metadata = self.metadata(Some(&[name]), false).await?;
        let topic = metadata.topics.first().ok_or_else(|| ClientError::refused(name, 3, None))?;
        check(name, topic.error_code, None)?;
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for state in &topic.partitions {
            let (partition, leader) = (state.partition_index, state.leader_id.0);
            partitions.push(PartitionDescription {
                partition,
                leader,
                leader_epoch: state.leader_epoch,
                replicas: state.replica_nodes.iter().map(|id| id.0).collect(),
                isr: state.isr_nodes.iter().map(|id| id.0).collect(),
                start_offset: self.offset(name, partition, leader, EARLIEST).await?,
                local_start_offset: self.offset(name, partition, leader, -4).await.unwrap_or(-1),
                end_offset: self.offset(name, partition, leader, LATEST).await?,
            });
        }
        partitions.sort_by_key(|partition| partition.partition);
        Ok(TopicDescription { name: name.to_owned(), id: topic.topic_id.simple().to_string(), partitions })
    }

    /// The offset that ListOffsets gives for `timestamp`.
    pub(super) async fn offset(&mut self, topic: &str, partition: i32, leader: i32, timestamp: i64) -> Result<i64, ClientError> {
        let asked = ListOffsetsPartition::default().with_partition_index(partition).with_current_leader_epoch(-1).with_timestamp(timestamp);
        let topics = vec![ListOffsetsTopic::default().with_name(topic_name(topic)).with_partitions(vec![asked])];
        let answer = self.call_broker(leader, ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(topics)).await?;
        let found = answer.topics.first().and_then(|topic| topic.partitions.first());
        let found = found.ok_or_else(|| ClientError::refused(topic, -1, Some("no answer for the partition")))?;
        check(format!("{topic}-{partition}"), found.error_code, None)?;
        Ok(found.offset)
    }

    /// All groups of all brokers.
    pub async fn list_groups(&mut self) -> Result<Vec<GroupListing>, ClientError> {
        self.metadata(Some(&[]), false).await?;
        let mut groups = Vec::new();
        for id in self.addresses.keys().copied().collect::<Vec<_>>() {
            let answer = self.call_broker(id, ListGroupsRequest::default()).await?;
            check("groups", answer.error_code, None)?;
            groups.extend(answer.groups.iter().map(|group| GroupListing {
                group: group.group_id.0.to_string(),
                state: group.group_state.to_string(),
                protocol_type: group.protocol_type.to_string(),
                group_type: group.group_type.to_string(),
            }));
        }
        groups.sort_by(|a, b| a.group.cmp(&b.group));
        Ok(groups)
    }

    async fn coordinator(&mut self, group: &str) -> Result<i32, ClientError> {
        self.metadata(Some(&[]), false).await?;
        let answer = self.call(FindCoordinatorRequest::default().with_coordinator_keys(vec![text(group)])).await?;
        let found = answer.coordinators.first().ok_or_else(|| ClientError::refused(group, 15, None))?;
        check(group, found.error_code, found.error_message.as_deref())?;
        Ok(found.node_id.0)
    }

    /// A group's members and offsets.
    pub async fn describe_group(&mut self, group: &str) -> Result<GroupDescription, ClientError> {
        let coordinator = self.coordinator(group).await?;
        let request = DescribeGroupsRequest::default().with_groups(vec![GroupId(text(group))]);
        let answer = self.call_broker(coordinator, request).await?;
        let found = answer.groups.first().ok_or_else(|| ClientError::refused(group, 69, None))?;
        if found.error_code == ResponseError::GroupIdNotFound.code()
            && let Some(described) = self.describe_consumer_group(group, coordinator).await?
        {
            return Ok(described);
        }
        check(group, found.error_code, found.error_message.as_deref())?;
        let members = found.members.iter().map(|member| GroupMember {
            member_id: member.member_id.to_string(),
            client_id: member.client_id.to_string(),
            host: member.client_host.to_string(),
        });
        let members = members.collect();
        let offsets = self.group_offsets(group, coordinator).await?;
        let (state, protocol) = (found.group_state.to_string(), found.protocol_data.to_string());
        Ok(GroupDescription { group: group.to_owned(), state, protocol, members, offsets })
    }

    /// A group of the protocol of KIP-848; `None` if there is no such group.
    async fn describe_consumer_group(&mut self, group: &str, coordinator: i32) -> Result<Option<GroupDescription>, ClientError> {
        let request = ConsumerGroupDescribeRequest::default().with_group_ids(vec![GroupId(text(group))]);
        let answer = self.call_broker(coordinator, request).await?;
        let Some(found) = answer.groups.first().filter(|found| found.error_code == 0) else { return Ok(None) };
        let members = found.members.iter().map(|member| GroupMember {
            member_id: member.member_id.to_string(),
            client_id: member.client_id.to_string(),
            host: member.client_host.to_string(),
        });
        let offsets = self.group_offsets(group, coordinator).await?;
        let (state, protocol) = (found.group_state.to_string(), found.assignor_name.to_string());
        Ok(Some(GroupDescription { group: group.to_owned(), state, protocol, members: members.collect(), offsets }))
    }

    async fn group_offsets(&mut self, group: &str, coordinator: i32) -> Result<Vec<GroupOffset>, ClientError> {
        let asked = OffsetFetchRequestGroup::default().with_group_id(GroupId(text(group))).with_member_epoch(-1).with_topics(None);
        let answer = self.call_broker(coordinator, OffsetFetchRequest::default().with_groups(vec![asked])).await?;
        let mut offsets = Vec::new();
        for found in &answer.groups {
            check(group, found.error_code, None)?;
            for topic in &found.topics {
                let name = topic.name.0.as_str();
                let metadata = self.metadata(Some(&[name]), false).await?;
                for partition in &topic.partitions {
                    let index = partition.partition_index;
                    let states = metadata.topics.first().map(|topic| topic.partitions.as_slice()).unwrap_or_default();
                    let leader = states.iter().find(|state| state.partition_index == index).map_or(-1, |state| state.leader_id.0);
                    let end_offset = self.offset(name, index, leader, LATEST).await.unwrap_or(-1);
                    offsets.push(GroupOffset {
                        topic: name.to_owned(),
                        partition: index,
                        committed: partition.committed_offset,
                        end_offset,
                    });
                }
            }
        }
        offsets.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        Ok(offsets)
    }

    /// Deletes an empty group.
    pub async fn delete_group(&mut self, group: &str) -> Result<(), ClientError> {
        let coordinator = self.coordinator(group).await?;
        let request = DeleteGroupsRequest::default().with_groups_names(vec![GroupId(text(group))]);
        let answer = self.call_broker(coordinator, request).await?;
        answer.results.iter().try_for_each(|result| check(group, result.error_code, None))
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::ConsumerGroupHeartbeatRequest;

    use super::*;
    use crate::client::StartAt;
    use crate::handlers::consumer_group_heartbeat;
    use crate::rig::Rig;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn groups_of_the_new_protocol_are_described_and_unknown_ones_refused() {
        let (rig, address) = Rig::serving().await;
        let mut client = Client::connect(&address).await.expect("connects");
        client.coordinator("g").await.expect("there is one");
        let joining = ConsumerGroupHeartbeatRequest::default()
            .with_group_id(GroupId(text("g")))
            .with_member_id(text("m"))
            .with_rebalance_timeout_ms(60_000)
            .with_subscribed_topic_names(Some(vec![topic_name("t")]))
            .with_topic_partitions(Some(Vec::new()));
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
        while consumer_group_heartbeat::handle(&rig.request(1), joining.clone()).await.error_code != 0 {
            assert!(tokio::time::Instant::now() < deadline, "the coordinator does not come up");
            tokio::task::yield_now().await;
        }
        let found = client.describe_group("g").await.expect("describes");
        assert_eq!((found.members.len(), found.members[0].member_id.as_str(), found.protocol.as_str()), (1, "m", "uniform"));
        let listed = client.list_groups().await.expect("lists");
        assert_eq!((listed[0].group.as_str(), listed[0].group_type.as_str()), ("g", "consumer"));
        let unknown = client.describe_group("none").await.expect_err("there is no such group").to_string();
        assert!(unknown.contains("GroupIdNotFound"), "{unknown}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_partition_that_there_is_not_is_refused() {
        let (_rig, address) = Rig::serving().await;
        let mut client = Client::connect(&address).await.expect("connects");
        let topic = NewTopic { name: "t".to_owned(), partitions: 2, replication_factor: 1, configs: BTreeMap::new() };
        client.create_topic(topic).await.expect("creates");
        let refused = client.consume("t", Some(99), StartAt::Beginning).await.expect_err("there is none").to_string();
        assert!(refused.contains("t-99") && refused.contains("2 partitions"), "{refused}");
        assert!(client.consume("t", Some(1), StartAt::Beginning).await.is_ok());
    }
}
