//! TxnOffsetCommit, and the ends of transactions that committed offsets.

use std::sync::Arc;

use super::{GroupShard, Op, Reply};
use crate::consumer::Commit;
use crate::driver::{Now, WaiterId};
use crate::error::GroupError;
use crate::messages::{CommitRequest, TopicPartition, TransactionalCommitRequest};
use crate::offsets::OffsetAndMetadata;
use crate::records::{self, GroupRecord, WireError};
use crate::state_log::{StateRecord, TransactionalAppend};
use crate::transaction::TxnMarker;

impl GroupShard {
    /// TxnOffsetCommit: fenced by generation and member (I21), answered when committed. The offsets are seen when the transaction commits.
    pub(crate) fn commit_transactional(&mut self, request: TransactionalCommitRequest, waiter: WaiterId, now: Now) {
        let TransactionalCommitRequest { commit, producer, guard } = request;
        if let Err(error) = self.validate_transactional_commit(&commit) {
            return self.replies.push((waiter, Reply::Commit(Err(error))));
        }
        let (outcomes, offsets) = self.offsets_to_store(commit.offsets, commit.retention_time_ms, now.wall_ms);
        if offsets.is_empty() {
            return self.replies.push((waiter, Reply::Commit(Ok(outcomes))));
        }
        let record = |(id, value): &(_, _)| offset_record(&commit.group_id, id, value);
        let records = offsets.iter().map(record).collect();
        let append = TransactionalAppend { producer, guard, records };
        let group_id: Arc<str> = commit.group_id.as_str().into();
        self.queue.push_back(Op::TransactionalCommit { group_id, append, offsets, waiter, outcomes });
    }

    fn validate_transactional_commit(&self, commit: &CommitRequest) -> Result<(), GroupError> {
        if self.is_overloaded() {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        if let Some(group) = self.consumer(&commit.group_id) {
            let by = Commit {
                member_id: &commit.member_id,
                group_instance_id: commit.group_instance_id.as_deref(),
                epoch: commit.generation_id,
                is_transactional: true,
                knows_member_epochs: true,
            };
            let judged = group.validate_commit(by, commit.offsets.iter().map(|commit| &commit.id), &*self.cluster);
            // Producers know generations only.
            return judged.map_err(|error| if error == GroupError::StaleMemberEpoch { GroupError::IllegalGeneration } else { error });
        }
        match self.classic(&commit.group_id) {
            Some(group) => {
                group.validate_transactional_commit(&commit.member_id, commit.group_instance_id.as_deref(), commit.generation_id)
            }
            // A producer that manages its group itself: the group comes into being with its offsets.
            None if commit.generation_id < 0 => Ok(()),
            None => Err(GroupError::IllegalGeneration),
        }
    }

    /// The end of a transaction: answered when its marker is committed; then its offsets are the groups'.
    pub(crate) fn complete_transaction(&mut self, marker: TxnMarker, waiter: WaiterId) {
        // Never refused for load: a marker that waits holds its transaction up.
        self.queue.push_back(Op::Marker { marker, waiter });
    }

    /// Takes in a record that was written within a transaction.
    pub(crate) fn replay_transactional(&mut self, producer_id: i64, record: &StateRecord) -> Result<Option<i16>, WireError> {
        match records::decode(record)? {
            GroupRecord::Offset { group, topic, partition, value: Some(value) } => {
                let id = TopicPartition { topic: topic.into(), partition };
                self.pending.put(producer_id, &group.into(), id, value);
                Ok(None)
            }
            // Only offsets are committed in transactions.
            _ => Ok(Some(-1)),
        }
    }

    /// A transaction has ended, in the log.
    pub(crate) fn transaction_ended(&mut self, producer_id: i64, commit: bool, now_ms: i64) {
        for (group_id, id, value) in self.pending.complete(producer_id, commit) {
            self.slot_mut(&group_id, now_ms).offsets.put(&id.topic, id.partition, value);
        }
    }

    /// The operations of transactions, once they are committed or could not be.
    pub(super) fn finish_transactional(&mut self, op: Op, result: Result<(), GroupError>, now: Now) {
        match op {
            Op::TransactionalCommit { group_id, append, offsets, waiter, outcomes } => {
                if result.is_ok() {
                    // The group is there from now on, if it wasn't: so is it in Kafka.
                    self.slot_mut(&group_id, now.wall_ms);
                    for (id, value) in offsets {
                        self.pending.put(append.producer.producer_id, &group_id, id, value);
                    }
                }
                self.replies.push((waiter, Reply::Commit(result.map(|()| outcomes))));
            }
            Op::Marker { marker, waiter } => {
                if result.is_ok() {
                    self.transaction_ended(marker.producer.producer_id, marker.commit, now.wall_ms);
                }
                self.replies.push((waiter, Reply::Marker(result)));
            }
            other => debug_assert!(false, "not an operation of a transaction: {other:?}"),
        }
    }
}

fn offset_record(group_id: &str, id: &TopicPartition, value: &OffsetAndMetadata) -> StateRecord {
    records::offset_record(group_id, &id.topic, id.partition, Some(value))
}
