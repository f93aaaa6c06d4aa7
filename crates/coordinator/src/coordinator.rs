//! The handle: finds the partition of a group, checks what can be checked without the group, and asks its shard.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;
use siltstone_common::Env;

use crate::cluster::{ChangedTopics, ClusterView, NoCluster};
use crate::config::GroupCoordinatorConfig;
use crate::driver::{Partition, Shared};
use crate::error::GroupError;
use crate::messages::{
    CommitOffset, CommitOutcome, CommitRequest, CommittedOffset, ConsumerHeartbeatRequest, ConsumerHeartbeatResponse, DeleteOffsetsRequest,
    DescribedConsumerGroup, DescribedGroup, FetchOffsetsRequest, HeartbeatRequest, JoinRequest, JoinResponse, LeaveRequest, LeftMember,
    ListGroupsRequest, ListedGroup, Refusal, SyncRequest, SyncResponse, TopicPartition, TransactionalCommitRequest,
};
use crate::partitions::{Leadership, Partitions};
use crate::records::STRING_BYTES_MAX;
use crate::shard::{GroupSetup, GroupShard, Reply};
use crate::state_log::StateLog;
use crate::transaction::TxnMarker;

/// Records that one commit of offsets may make, bytes.
const COMMIT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What the record of an offset takes without its names and its text, bytes.
const OFFSET_RECORD_BYTES: usize = 64;
/// Bytes that a generated member id adds to the client's or the instance's name: a dash and a UUID.
const MEMBER_ID_SUFFIX_BYTES: usize = 37;

/// The group coordinator of one broker. Cloning is cheap; all clones share the same groups.
///
/// It serves the groups of those partitions of `__consumer_offsets` that it was told to lead ([`GroupCoordinator::on_leadership`]).
/// Answers wait until what they tell is committed. A request whose partition resigns meanwhile ends with
/// [`GroupError::NotCoordinator`]. Dropping a request's future abandons the answer, not the request.
#[derive(Clone)]
pub struct GroupCoordinator {
    partitions: Arc<Partitions<GroupShard>>,
}

impl GroupCoordinator {
    /// A coordinator that leads nothing yet. Its tasks run in `env.tasks` and end with them.
    pub fn new(config: GroupCoordinatorConfig, env: Env, log: Arc<dyn StateLog>) -> Self {
        let partition_count = config.offsets_topic_num_partitions;
        let setup = GroupSetup { config: Arc::new(config), cluster: RwLock::new(Arc::new(NoCluster)) };
        let shared = Shared { env, log, setup: Arc::new(setup) };
        Self { partitions: Arc::new(Partitions::new(shared, partition_count)) }
    }

    /// The settings.
    pub fn config(&self) -> &GroupCoordinatorConfig {
        &self.partitions.shared().setup.config
    }

    /// The partition of `__consumer_offsets` that holds a group: Java's `String.hashCode`, as in Kafka.
    pub fn partition_for(&self, group_id: &str) -> i32 {
        self.partitions.index_of(group_id)
    }

    /// Which partitions of `__consumer_offsets` this broker leads now: their groups are loaded. Those of the others are forgotten, and who waits
    /// for them gets NOT_COORDINATOR.
    pub fn on_leadership(&self, leadership: &Leadership) {
        self.partitions.on_leadership(leadership);
    }

    /// The partitions it leads, with the leader epochs it was told.
    pub fn led_partitions(&self) -> BTreeMap<i32, i32> {
        self.partitions.led()
    }

    /// The cluster's topics or settings changed: consumer groups of changed topics get new targets, and offsets of deleted topics go.
    pub fn on_cluster_changed(&self, cluster: Arc<dyn ClusterView>, changed: &ChangedTopics) {
        *self.partitions.shared().setup.cluster.write() = cluster.clone();
        for partition in self.partitions.all() {
            // A partition that is still loading takes the newest view when it is done, and keeps the offsets until they expire.
            let _ = partition.call(|shard, _| {
                shard.on_cluster_changed(cluster.clone(), changed);
                if !changed.deleted.is_empty() {
                    shard.on_topics_deleted(changed.deleted.clone());
                }
            });
        }
    }

    fn partition_of(&self, group_id: &str) -> Result<Arc<Partition<GroupShard>>, GroupError> {
        if group_id.len() > STRING_BYTES_MAX {
            return Err(GroupError::InvalidGroupId);
        }
        self.partitions.get(self.partition_for(group_id))
    }

    /// As [`Self::partition_of`], for requests that a group without name can't make.
    fn partition_of_named(&self, group_id: &str) -> Result<Arc<Partition<GroupShard>>, GroupError> {
        if group_id.is_empty() { Err(GroupError::InvalidGroupId) } else { self.partition_of(group_id) }
    }

    /// JoinGroup: answered when the group's join phase ends.
    pub async fn join_group(&self, request: JoinRequest) -> JoinResponse {
        let member_id = request.member_id.clone();
        match self.try_join(request).await {
            Ok(response) => response,
            Err(error) => JoinResponse::refused(member_id, error),
        }
    }

    async fn try_join(&self, request: JoinRequest) -> Result<JoinResponse, GroupError> {
        let config = &self.partitions.shared().setup.config;
        let partition = self.partition_of_named(&request.group_id)?;
        if !(config.group_min_session_timeout_ms..=config.group_max_session_timeout_ms).contains(&request.session_timeout_ms) {
            return Err(GroupError::InvalidSessionTimeout);
        }
        if longest_name_bytes(&request) > STRING_BYTES_MAX - MEMBER_ID_SUFFIX_BYTES {
            return Err(GroupError::InvalidRequest);
        }
        let new_id = self.partitions.shared().env.entropy.uuid();
        match partition.ask(|shard, waiter, now| shard.join(request, new_id, waiter, now)).await? {
            Reply::Join(response) => Ok(response),
            _ => Err(GroupError::UnknownServerError),
        }
    }

    /// ConsumerGroupHeartbeat (KIP-848): answered when what it changes is committed.
    ///
    /// # Errors
    /// Kafka's, with the reason that the client is told.
    pub async fn consumer_heartbeat(
        &self,
        request: ConsumerHeartbeatRequest,
        may_describe: &(dyn Fn(&str) -> bool + Sync),
    ) -> Result<ConsumerHeartbeatResponse, Refusal> {
        if longest_consumer_name_bytes(&request) > STRING_BYTES_MAX {
            return Err(GroupError::InvalidRequest.into());
        }
        let new_id = self.partitions.shared().env.entropy.uuid();
        let partition = self.partition_of(&request.group_id)?;
        match partition.ask(|shard, waiter, now| shard.consumer_heartbeat(request, may_describe, new_id, waiter, now)).await? {
            Reply::ConsumerHeartbeat(result) => result,
            _ => Err(GroupError::UnknownServerError.into()),
        }
    }

    /// SyncGroup: answered when the leader's assignment is committed.
    pub async fn sync_group(&self, request: SyncRequest) -> SyncResponse {
        match self.try_sync(request).await {
            Ok(response) => response,
            Err(error) => SyncResponse::refused(error),
        }
    }

    async fn try_sync(&self, request: SyncRequest) -> Result<SyncResponse, GroupError> {
        let partition = self.partition_of_named(&request.group_id)?;
        match partition.ask(|shard, waiter, now| shard.sync(request, waiter, now)).await? {
            Reply::Sync(response) => Ok(response),
            _ => Err(GroupError::UnknownServerError),
        }
    }

    /// Heartbeat. While the group is loading, every heartbeat is good.
    ///
    /// # Errors
    /// REBALANCE_IN_PROGRESS asks the member to join again; the others fence it.
    pub fn heartbeat(&self, request: &HeartbeatRequest) -> Result<(), GroupError> {
        match self.partition_of_named(&request.group_id)?.call(|shard, now| shard.heartbeat(request, now)) {
            Ok(result) => result,
            Err(GroupError::CoordinatorLoadInProgress) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// LeaveGroup, for one or many members.
    pub async fn leave_group(&self, request: LeaveRequest) -> Result<Vec<LeftMember>, GroupError> {
        let partition = self.partition_of_named(&request.group_id)?;
        match partition.ask(|shard, waiter, now| shard.leave(request, waiter, now)).await? {
            Reply::Leave(result) => result,
            _ => Err(GroupError::UnknownServerError),
        }
    }

    /// OffsetCommit: answered when the offsets are committed. Outcomes come in the order of the request's offsets.
    /// Whether topics exist is the caller's to check.
    pub async fn commit_offsets(&self, request: CommitRequest) -> Result<Vec<CommitOutcome>, GroupError> {
        check_size(&request)?;
        let partition = self.partition_of(&request.group_id)?;
        match partition.ask(|shard, waiter, now| shard.commit_offsets(request, waiter, now)).await? {
            Reply::Commit(result) => result,
            _ => Err(GroupError::UnknownServerError),
        }
    }

    /// TxnOffsetCommit: answered when the offsets are committed as part of the transaction; they are the group's when that commits. Outcomes come
    /// in the order of the request's offsets. Whether topics exist is the caller's to check.
    pub async fn commit_transactional_offsets(&self, request: TransactionalCommitRequest) -> Result<Vec<CommitOutcome>, GroupError> {
        check_size(&request.commit)?;
        let partition = self.partition_of(&request.commit.group_id)?;
        match partition.ask(|shard, waiter, now| shard.commit_transactional(request, waiter, now)).await? {
            Reply::Commit(result) => result,
            _ => Err(GroupError::UnknownServerError),
        }
    }

    /// The end of a transaction in a partition of `__consumer_offsets`: answered when its marker is committed and its offsets are in force.
    pub async fn complete_transaction(&self, partition: i32, marker: TxnMarker) -> Result<(), GroupError> {
        match self.partitions.get(partition)?.ask(|shard, waiter, _| shard.complete_transaction(marker, waiter)).await? {
            Reply::Marker(result) => result,
            _ => Err(GroupError::UnknownServerError),
        }
    }

    /// OffsetFetch for one group. Offsets come in the order of the request's partitions.
    pub async fn fetch_offsets(&self, request: FetchOffsetsRequest) -> Result<Vec<(TopicPartition, CommittedOffset)>, GroupError> {
        let partition = self.partition_of(&request.group_id)?;
        if !request.require_stable {
            return partition.call(|shard, _| shard.fetch_offsets(&request))?;
        }
        match partition.ask(|shard, waiter, _| shard.fetch_stable_offsets(request, waiter)).await? {
            Reply::Fetch(result) => result,
            _ => Err(GroupError::UnknownServerError),
        }
    }

    /// OffsetDelete. Outcomes come in the order of the request's partitions.
    pub async fn delete_offsets(&self, request: DeleteOffsetsRequest) -> Result<Vec<CommitOutcome>, GroupError> {
        let partition = self.partition_of_named(&request.group_id)?;
        match partition.ask(|shard, waiter, _| shard.delete_offsets(request, waiter)).await? {
            Reply::DeleteOffsets(result) => result,
            _ => Err(GroupError::UnknownServerError),
        }
    }

    /// DeleteGroups. Each group's outcome, in no particular order.
    pub async fn delete_groups(&self, group_ids: Vec<String>) -> Vec<(String, Result<(), GroupError>)> {
        let mut results = Vec::with_capacity(group_ids.len());
        let mut by_partition: BTreeMap<i32, Vec<String>> = BTreeMap::new();
        for group_id in group_ids {
            if group_id.len() > STRING_BYTES_MAX {
                results.push((group_id, Err(GroupError::InvalidGroupId)));
                continue;
            }
            by_partition.entry(self.partition_for(&group_id)).or_default().push(group_id);
        }
        for group_ids in by_partition.into_values() {
            let asked = group_ids.clone();
            let answer = match group_ids.first().map(|first| self.partition_of(first)) {
                Some(Ok(partition)) => partition.ask(|shard, waiter, _| shard.delete_groups(asked, waiter)).await,
                Some(Err(error)) => Err(error),
                None => continue,
            };
            match answer {
                Ok(Reply::DeleteGroups(part)) => results.extend(part),
                Ok(_) => results.extend(group_ids.into_iter().map(|id| (id, Err(GroupError::UnknownServerError)))),
                Err(error) => results.extend(group_ids.into_iter().map(|id| (id, Err(error)))),
            }
        }
        results
    }

    /// DescribeGroups, for one group.
    pub fn describe_group(&self, group_id: &str) -> Result<DescribedGroup, Refusal> {
        self.partition_of(group_id)?.call(|shard, _| shard.describe_group(group_id))?
    }

    /// ConsumerGroupDescribe (KIP-848), for one group.
    pub fn describe_consumer_group(&self, group_id: &str) -> Result<DescribedConsumerGroup, Refusal> {
        self.partition_of_named(group_id)?.call(|shard, _| shard.describe_consumer_group(group_id))?
    }

    /// ListGroups: all groups of this broker.
    ///
    /// # Errors
    /// COORDINATOR_LOAD_IN_PROGRESS while any of its partitions is loading.
    pub fn list_groups(&self, request: &ListGroupsRequest) -> Result<Vec<ListedGroup>, GroupError> {
        let mut groups = Vec::new();
        for partition in self.partitions.all() {
            match partition.call(|shard, _| shard.list_groups(request)) {
                Ok(part) => groups.extend(part),
                Err(GroupError::NotCoordinator) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(groups)
    }
}

impl GroupCoordinator {
    /// How many groups there are, by Kafka's names of type and state; those of partitions that are still loading are not counted.
    pub fn group_counts(&self) -> BTreeMap<(&'static str, &'static str), u64> {
        let mut counts = BTreeMap::new();
        for partition in self.partitions.all() {
            for group in partition.call(|shard, _| shard.list_groups(&ListGroupsRequest::default())).unwrap_or_default() {
                *counts.entry((group.group_type, group.state)).or_default() += 1;
            }
        }
        counts
    }
}

/// Refuses a commit whose records are too large together, as Kafka does from 1 MiB on: each names the group and the topic again (I42).
fn check_size(request: &CommitRequest) -> Result<(), GroupError> {
    let bytes_of = |commit: &CommitOffset| {
        let metadata_bytes = commit.metadata.as_ref().map_or(0, String::len);
        OFFSET_RECORD_BYTES + request.group_id.len() + commit.id.topic.len() + metadata_bytes
    };
    let bytes: usize = request.offsets.iter().map(bytes_of).sum();
    if bytes <= COMMIT_BYTES_MAX { Ok(()) } else { Err(GroupError::UnknownServerError) }
}

fn longest_name_bytes(request: &JoinRequest) -> usize {
    let names = [&request.client_id, &request.client_host, &request.protocol_type];
    let protocols = request.protocols.iter().map(|protocol| &protocol.name);
    names.into_iter().chain(&request.group_instance_id).chain(protocols).map(String::len).max().unwrap_or(0)
}

fn longest_consumer_name_bytes(request: &ConsumerHeartbeatRequest) -> usize {
    let names = [&request.member_id, &request.client_id, &request.client_host];
    let optional = [&request.group_instance_id, &request.rack_id, &request.subscribed_regex];
    let topics = request.subscribed_topics.iter().flatten();
    names.into_iter().chain(optional.into_iter().flatten()).chain(topics).map(String::len).max().unwrap_or(0)
}

#[cfg(test)]
mod tests;
