//! OffsetCommit and OffsetFetch.

use super::{FetchedOffsets, GroupShard, Op, Reply};
use crate::consumer::Commit;
use crate::driver::{Now, WaiterId};
use crate::error::GroupError;
use crate::messages::{CommitOffset, CommitOutcome, CommitRequest, CommittedOffset, FetchOffsetsRequest, TopicPartition};
use crate::offsets::OffsetAndMetadata;
use crate::records;

impl GroupShard {
    /// OffsetCommit: fenced by generation and member (I21), answered when committed.
    pub(crate) fn commit_offsets(&mut self, request: CommitRequest, waiter: WaiterId, now: Now) {
        if let Err(error) = self.validate_commit(&request, now) {
            return self.replies.push((waiter, Reply::Commit(Err(error))));
        }
        let (outcomes, offsets) = self.offsets_to_store(request.offsets, request.retention_time_ms, now.wall_ms);
        if offsets.is_empty() {
            return self.replies.push((waiter, Reply::Commit(Ok(outcomes))));
        }
        let record = |(id, value): &(TopicPartition, OffsetAndMetadata)| {
            records::offset_record(&request.group_id, &id.topic, id.partition, Some(value))
        };
        let records = offsets.iter().map(record).collect();
        self.queue.push_back(Op::Commit { group_id: request.group_id.as_str().into(), records, offsets, waiter, outcomes });
    }

    /// What of a commit can be stored, and what becomes of each offset.
    pub(super) fn offsets_to_store(
        &self,
        commits: Vec<CommitOffset>,
        retention_time_ms: i64,
        now_ms: i64,
    ) -> (Vec<CommitOutcome>, Vec<(TopicPartition, OffsetAndMetadata)>) {
        let mut outcomes: Vec<CommitOutcome> = Vec::with_capacity(commits.len());
        let mut offsets: Vec<(TopicPartition, OffsetAndMetadata)> = Vec::with_capacity(commits.len());
        for commit in commits {
            // Kafka counts UTF-16 units, as Java does.
            let too_large =
                commit.metadata.as_ref().is_some_and(|text| text.encode_utf16().count() > self.config.offset_metadata_max_bytes);
            if too_large {
                outcomes.push((commit.id, Err(GroupError::OffsetMetadataTooLarge)));
                continue;
            }
            outcomes.push((commit.id.clone(), Ok(())));
            offsets.push(offset_to_store(commit, retention_time_ms, now_ms));
        }
        (outcomes, offsets)
    }

    fn validate_commit(&mut self, request: &CommitRequest, now: Now) -> Result<(), GroupError> {
        if self.is_overloaded() {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        let CommitRequest { group_id, generation_id, member_id, group_instance_id, reports_unknown_group, .. } = request;
        if let Some(group) = self.consumer(group_id) {
            let commit = Commit {
                member_id,
                group_instance_id: group_instance_id.as_deref(),
                epoch: *generation_id,
                is_transactional: false,
                knows_member_epochs: *reports_unknown_group,
            };
            return group.validate_commit(commit, request.offsets.iter().map(|commit| &commit.id), &*self.cluster);
        }
        let validated = self.with_classic(group_id, now, |group, turn| {
            group.validate_commit(member_id, group_instance_id.as_deref(), *generation_id, turn)
        });
        match validated {
            Some(result) => result,
            // A client that manages its partitions itself: the group comes into being with its offsets.
            None if *generation_id < 0 => Ok(()),
            None if *reports_unknown_group => Err(GroupError::GroupIdNotFound),
            None => Err(GroupError::IllegalGeneration),
        }
    }

    /// OffsetFetch of what is committed. An unknown group has no offsets.
    pub(crate) fn fetch_offsets(&self, request: &FetchOffsetsRequest) -> Result<FetchedOffsets, GroupError> {
        if let Some(group) = self.consumer(&request.group_id) {
            group.validate_fetch(request.member_id.as_deref(), request.member_epoch)?;
        }
        let slot = self.groups.get(request.group_id.as_str());
        let committed = |id: &TopicPartition| match slot {
            _ if request.require_stable && self.pending.is_unstable(&request.group_id, id) => CommittedOffset::unstable(),
            Some(slot) => slot.offsets.committed(&id.topic, id.partition),
            None => CommittedOffset::none(),
        };
        let ids = match &request.partitions {
            Some(ids) => ids.clone(),
            // As in Kafka, those that only an open transaction knows of are not there.
            None => slot.map(|slot| slot.offsets.ids()).unwrap_or_default(),
        };
        Ok(ids.into_iter().map(|id| (id.clone(), committed(&id))).collect())
    }

    /// OffsetFetch that waits for the commits under way (KIP-447).
    pub(crate) fn fetch_stable_offsets(&mut self, request: FetchOffsetsRequest, waiter: WaiterId) {
        if self.is_overloaded() {
            return self.replies.push((waiter, Reply::Fetch(Err(GroupError::CoordinatorNotAvailable))));
        }
        self.queue.push_back(Op::Fetch { waiter, request });
    }
}

fn offset_to_store(commit: CommitOffset, retention_time_ms: i64, now_ms: i64) -> (TopicPartition, OffsetAndMetadata) {
    let value = OffsetAndMetadata {
        offset: commit.offset,
        leader_epoch: commit.leader_epoch,
        metadata: commit.metadata.unwrap_or_default(),
        commit_timestamp_ms: now_ms,
        expire_timestamp_ms: (retention_time_ms != -1).then(|| now_ms.saturating_add(retention_time_ms)),
    };
    (commit.id, value)
}
