//! The answers that leave a shard.

use crate::error::GroupError;
use crate::messages::{
    CommitOutcome, CommittedOffset, ConsumerHeartbeatResponse, JoinResponse, LeftMember, Refusal, SyncResponse, TopicPartition,
};

/// Offsets as OffsetFetch gives them.
pub(crate) type FetchedOffsets = Vec<(TopicPartition, CommittedOffset)>;

/// The answer to a request that had to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Join(JoinResponse),
    Sync(SyncResponse),
    Leave(Result<Vec<LeftMember>, GroupError>),
    Commit(Result<Vec<CommitOutcome>, GroupError>),
    Fetch(Result<FetchedOffsets, GroupError>),
    DeleteOffsets(Result<Vec<CommitOutcome>, GroupError>),
    DeleteGroups(Vec<(String, Result<(), GroupError>)>),
    Marker(Result<(), GroupError>),
    ConsumerHeartbeat(Result<ConsumerHeartbeatResponse, Refusal>),
}

impl Reply {
    /// The answer if what it tells could not be written.
    pub(super) fn failed(self, error: GroupError) -> Self {
        match self {
            Self::Join(response) => Self::Join(JoinResponse::refused(response.member_id, error)),
            Self::Sync(_) => Self::Sync(SyncResponse::refused(error)),
            Self::Leave(_) => Self::Leave(Err(error)),
            Self::Commit(_) => Self::Commit(Err(error)),
            Self::Fetch(_) => Self::Fetch(Err(error)),
            Self::DeleteOffsets(_) => Self::DeleteOffsets(Err(error)),
            Self::DeleteGroups(results) => {
                Self::DeleteGroups(results.into_iter().map(|(id, result)| (id, result.and(Err(error)))).collect())
            }
            Self::Marker(_) => Self::Marker(Err(error)),
            Self::ConsumerHeartbeat(_) => Self::ConsumerHeartbeat(Err(error.into())),
        }
    }
}
