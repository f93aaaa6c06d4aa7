//! Requests to the coordinator and its answers, free of the wire.

mod consumer;

use std::sync::Arc;

use bytes::Bytes;

use crate::error::GroupError;
use crate::transaction::ProducerIdAndEpoch;
pub use consumer::{
    ConsumerHeartbeatRequest, ConsumerHeartbeatResponse, DescribedConsumerGroup, DescribedConsumerMember, DescribedPartitions, Refusal,
    TopicPartitions,
};

/// One way of assigning that a member offers, with its metadata (for consumers: the subscription).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// Its name: for consumers, the assignor's.
    pub name: String,
    /// Opaque to the coordinator.
    pub metadata: Bytes,
}

/// JoinGroup.
#[derive(Clone, Debug)]
pub struct JoinRequest {
    /// The group.
    pub group_id: String,
    /// Empty for a new member.
    pub member_id: String,
    /// `group.instance.id` of a static member (KIP-345).
    pub group_instance_id: Option<String>,
    /// The client's name for itself.
    pub client_id: String,
    /// Its address, as DescribeGroups shows it.
    pub client_host: String,
    /// How long members may take to join again.
    pub rebalance_timeout_ms: i32,
    /// How long a member may be silent.
    pub session_timeout_ms: i32,
    /// `consumer`, `connect` …
    pub protocol_type: String,
    /// In the member's order of preference.
    pub protocols: Vec<Protocol>,
    /// A new dynamic member must join twice (KIP-394): true from version 4.
    pub require_known_member_id: bool,
    /// The client understands `skip_assignment`: true from version 9.
    pub supports_skipping_assignment: bool,
    /// Why it joins, for the log (KIP-800).
    pub reason: Option<String>,
}

/// A member, as the leader learns of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedMember {
    /// Its id.
    pub member_id: String,
    /// Its `group.instance.id`, if static.
    pub group_instance_id: Option<String>,
    /// Its metadata for the chosen protocol.
    pub metadata: Bytes,
}

/// The answer to JoinGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinResponse {
    /// Why not, if not.
    pub error: Option<GroupError>,
    /// The new generation; -1 with most errors.
    pub generation_id: i32,
    /// The group's protocol type.
    pub protocol_type: Option<String>,
    /// The chosen protocol.
    pub protocol_name: Option<String>,
    /// The leader's member id; empty with most errors.
    pub leader: String,
    /// The leader need not assign anew (KIP-814).
    pub skip_assignment: bool,
    /// The member's id.
    pub member_id: String,
    /// All members, for the leader only.
    pub members: Vec<JoinedMember>,
}

impl JoinResponse {
    /// A refusal that names the member id, as Kafka's do.
    pub fn refused(member_id: impl Into<String>, error: GroupError) -> Self {
        Self {
            error: Some(error),
            generation_id: -1,
            protocol_type: None,
            protocol_name: None,
            leader: String::new(),
            skip_assignment: false,
            member_id: member_id.into(),
            members: Vec::new(),
        }
    }
}

/// SyncGroup.
#[derive(Clone, Debug)]
pub struct SyncRequest {
    /// The group.
    pub group_id: String,
    /// The generation that JoinGroup gave.
    pub generation_id: i32,
    /// The member.
    pub member_id: String,
    /// Its `group.instance.id`, if static.
    pub group_instance_id: Option<String>,
    /// The protocol type it believes in, from version 5.
    pub protocol_type: Option<String>,
    /// The protocol it believes in, from version 5.
    pub protocol_name: Option<String>,
    /// From the leader: assignment by member id.
    pub assignments: Vec<(String, Bytes)>,
}

/// The answer to SyncGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncResponse {
    /// Why not, if not.
    pub error: Option<GroupError>,
    /// The group's protocol type.
    pub protocol_type: Option<String>,
    /// The chosen protocol.
    pub protocol_name: Option<String>,
    /// The member's assignment.
    pub assignment: Bytes,
}

impl SyncResponse {
    /// A refusal.
    pub fn refused(error: GroupError) -> Self {
        Self { error: Some(error), protocol_type: None, protocol_name: None, assignment: Bytes::new() }
    }
}

/// Heartbeat.
#[derive(Clone, Debug)]
pub struct HeartbeatRequest {
    /// The group.
    pub group_id: String,
    /// The member's generation.
    pub generation_id: i32,
    /// The member.
    pub member_id: String,
    /// Its `group.instance.id`, if static.
    pub group_instance_id: Option<String>,
}

/// LeaveGroup, for one or many members.
#[derive(Clone, Debug)]
pub struct LeaveRequest {
    /// The group.
    pub group_id: String,
    /// Who leaves.
    pub members: Vec<LeavingMember>,
}

/// One member of a LeaveGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeavingMember {
    /// Its id; empty if an administrator names it by `group.instance.id` only.
    pub member_id: String,
    /// Its `group.instance.id`.
    pub group_instance_id: Option<String>,
    /// Why, for the log (KIP-800).
    pub reason: Option<String>,
}

impl LeavingMember {
    /// What became of it.
    pub(crate) fn left(self, error: Option<GroupError>) -> LeftMember {
        LeftMember { member_id: self.member_id, group_instance_id: self.group_instance_id, error }
    }
}

/// What became of one member of a LeaveGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftMember {
    /// As in the request.
    pub member_id: String,
    /// As in the request.
    pub group_instance_id: Option<String>,
    /// Why it could not leave.
    pub error: Option<GroupError>,
}

/// A topic by name, and a partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic's name, shared by its partitions: a request names a topic once and then gives four bytes for each of them (I42).
    pub topic: Arc<str>,
    /// The partition's index.
    pub partition: i32,
}

/// One offset to be committed.
#[derive(Clone, Debug)]
pub struct CommitOffset {
    /// Where.
    pub id: TopicPartition,
    /// The next offset to read.
    pub offset: i64,
    /// Leader epoch of the last record read; -1 for unknown (KIP-320).
    pub leader_epoch: i32,
    /// The client's own text.
    pub metadata: Option<String>,
}

/// OffsetCommit.
#[derive(Clone, Debug)]
pub struct CommitRequest {
    /// The group.
    pub group_id: String,
    /// The generation; negative from clients that manage their partitions themselves.
    pub generation_id: i32,
    /// The member; empty from clients that manage their partitions themselves.
    pub member_id: String,
    /// Its `group.instance.id`, if static.
    pub group_instance_id: Option<String>,
    /// Versions 2 to 4: keep the offsets so long; -1 for the broker's retention.
    pub retention_time_ms: i64,
    /// From version 9 an unknown group is GROUP_ID_NOT_FOUND, before it is ILLEGAL_GENERATION; and members of consumer groups may commit.
    pub reports_unknown_group: bool,
    /// What to commit.
    pub offsets: Vec<CommitOffset>,
}

/// The proof that a transaction was asked about at its coordinator, for the first append of the transaction to a partition. Whoever gave it knows
/// what it means.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct WriteGuard(pub u64);

/// TxnOffsetCommit.
#[derive(Clone, Debug)]
pub struct TransactionalCommitRequest {
    /// The group, its member, and the offsets.
    pub commit: CommitRequest,
    /// Whose transaction.
    pub producer: ProducerIdAndEpoch,
    /// Needed unless the transaction has offsets in the group's partition already.
    pub guard: Option<WriteGuard>,
}

/// What became of one committed offset.
pub type CommitOutcome = (TopicPartition, Result<(), GroupError>);

/// OffsetFetch for one group.
#[derive(Clone, Debug)]
pub struct FetchOffsetsRequest {
    /// The group.
    pub group_id: String,
    /// From version 9, a member of a consumer group (KIP-848).
    pub member_id: Option<String>,
    /// Its epoch; -1 if it names none.
    pub member_epoch: i32,
    /// Which offsets; `None` for all that there are.
    pub partitions: Option<Vec<TopicPartition>>,
    /// Wait for commits under way (KIP-447).
    pub require_stable: bool,
}

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The next offset to read; -1 if there is none.
    pub offset: i64,
    /// -1 for unknown.
    pub leader_epoch: i32,
    /// The client's own text.
    pub metadata: String,
    /// An open transaction holds a newer one: UNSTABLE_OFFSET_COMMIT (KIP-447).
    pub is_unstable: bool,
}

impl CommittedOffset {
    /// What Kafka answers for a partition without a committed offset.
    pub fn none() -> Self {
        Self { offset: -1, leader_epoch: -1, metadata: String::new(), is_unstable: false }
    }

    /// What Kafka answers for a partition whose offset an open transaction holds.
    pub fn unstable() -> Self {
        Self { is_unstable: true, ..Self::none() }
    }
}

/// OffsetDelete (KIP-496).
#[derive(Clone, Debug)]
pub struct DeleteOffsetsRequest {
    /// The group.
    pub group_id: String,
    /// Which offsets.
    pub partitions: Vec<TopicPartition>,
}

/// ListGroups.
#[derive(Clone, Debug, Default)]
pub struct ListGroupsRequest {
    /// States to list, whatever their case; empty for all (KIP-518).
    pub states: Vec<String>,
    /// Group types to list, whatever their case; empty for all (KIP-848).
    pub types: Vec<String>,
}

/// A group in ListGroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedGroup {
    /// Its id.
    pub group_id: String,
    /// Empty for a group that only commits offsets.
    pub protocol_type: String,
    /// Kafka's name of its state.
    pub state: &'static str,
    /// Kafka's name of its type.
    pub group_type: &'static str,
}

/// A member in DescribeGroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedMember {
    /// Its id.
    pub member_id: String,
    /// Its `group.instance.id`, if static.
    pub group_instance_id: Option<String>,
    /// The client's name for itself.
    pub client_id: String,
    /// Its address.
    pub client_host: String,
    /// Its metadata for the chosen protocol; empty unless the group is stable.
    pub metadata: Bytes,
    /// Its assignment.
    pub assignment: Bytes,
}

/// A group in DescribeGroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedGroup {
    /// Kafka's name of its state.
    pub state: &'static str,
    /// Empty for a group that only commits offsets.
    pub protocol_type: String,
    /// The chosen protocol; empty unless the group is stable.
    pub protocol_name: String,
    /// Its members.
    pub members: Vec<DescribedMember>,
}
