//! SyncGroup: the leader's assignment is written, then everybody gets their part.

use std::collections::HashMap;

use bytes::Bytes;

use super::{Action, ClassicGroup, ClassicState, Turn, WriteDone};
use crate::driver::WaiterId;
use crate::error::GroupError;
use crate::messages::{SyncRequest, SyncResponse};
use crate::timers::GroupTimer;

impl ClassicGroup {
    /// SyncGroup.
    pub(crate) fn sync(&mut self, request: SyncRequest, waiter: WaiterId, turn: &mut Turn<'_>) {
        if let Err(error) = self.validate_sync(&request) {
            return turn.reply_sync(waiter, SyncResponse::refused(error));
        }
        match self.state {
            ClassicState::CompletingRebalance => self.park_sync(request, waiter, turn),
            ClassicState::Stable => {
                self.synced(&request.member_id, turn);
                if let Some(response) = self.assigned(&request.member_id) {
                    turn.reply_sync(waiter, response);
                }
            }
            ClassicState::PreparingRebalance => turn.reply_sync(waiter, SyncResponse::refused(GroupError::RebalanceInProgress)),
            ClassicState::Empty | ClassicState::Dead => turn.reply_sync(waiter, SyncResponse::refused(GroupError::UnknownMemberId)),
        }
    }

    fn validate_sync(&self, request: &SyncRequest) -> Result<(), GroupError> {
        if self.state == ClassicState::Dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        self.validate_member(&request.member_id, request.group_instance_id.as_deref())?;
        if request.generation_id != self.generation_id {
            return Err(GroupError::IllegalGeneration);
        }
        let differs = |theirs: &Option<String>, ours: &Option<String>| theirs.is_some() && ours.is_some() && theirs != ours;
        if differs(&request.protocol_type, &self.protocol_type) || differs(&request.protocol_name, &self.protocol_name) {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        Ok(())
    }

    fn park_sync(&mut self, request: SyncRequest, waiter: WaiterId, turn: &mut Turn<'_>) {
        let Some(member) = self.members.get_mut(&request.member_id) else { return };
        if let Some(superseded) = member.awaiting_sync.replace(waiter) {
            turn.reply_sync(superseded, SyncResponse::refused(GroupError::RebalanceInProgress));
        }
        self.synced(&request.member_id, turn);
        if !self.is_leader(&request.member_id) {
            return;
        }
        let mut assignments: HashMap<String, Bytes> = request.assignments.into_iter().collect();
        assignments.retain(|member_id, _| self.members.contains_key(member_id));
        tracing::info!(
            group = ?self.id, generation = self.generation_id, members = self.members.len(), assigned = assignments.len(),
            "got the leader's assignment"
        );
        let metadata = self.to_metadata(|member| assignments.get(&member.id).cloned().unwrap_or_default());
        let done = WriteDone::Assigned { generation_id: self.generation_id, assignments };
        turn.actions.push(Action::Write(metadata, done));
    }

    fn synced(&mut self, member_id: &str, turn: &mut Turn<'_>) {
        self.pending_sync.remove(member_id);
        if self.pending_sync.is_empty() {
            turn.cancel_timer(GroupTimer::Sync(self.generation_id));
        }
    }

    fn assigned(&self, member_id: &str) -> Option<SyncResponse> {
        let member = self.members.get(member_id)?;
        Some(SyncResponse {
            error: None,
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol_name.clone(),
            assignment: member.assignment.clone(),
        })
    }

    /// The leader's assignment is written, or could not be. Nothing happens if the group has moved on meanwhile.
    pub(super) fn on_assigned(
        &mut self,
        generation_id: i32,
        mut assignments: HashMap<String, Bytes>,
        result: Result<(), GroupError>,
        turn: &mut Turn<'_>,
    ) {
        if self.state != ClassicState::CompletingRebalance || generation_id != self.generation_id {
            return;
        }
        if let Err(error) = result {
            tracing::warn!(group = ?self.id, generation_id, %error, "could not write the leader's assignment");
            self.fail_assignment(error, turn);
            return self.rebalance_or_complete_join("the leader's assignment could not be written", turn);
        }
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for member_id in ids {
            let Some(member) = self.members.get_mut(&member_id) else { continue };
            member.assignment = assignments.remove(&member_id).unwrap_or_default();
            // Its session may have ended while it waited: it starts anew.
            if let Some(waiter) = member.awaiting_sync.take() {
                if let Some(response) = self.assigned(&member_id) {
                    turn.reply_sync(waiter, response);
                }
                self.reset_heartbeat(&member_id, turn);
            }
        }
        self.transition_to(ClassicState::Stable, turn.now_ms);
    }

    /// Nobody gets an assignment in this generation.
    pub(super) fn fail_assignment(&mut self, error: GroupError, turn: &mut Turn<'_>) {
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for member_id in ids {
            let Some(member) = self.members.get_mut(&member_id) else { continue };
            member.assignment = Bytes::new();
            if let Some(waiter) = member.awaiting_sync.take() {
                turn.reply_sync(waiter, SyncResponse::refused(error));
                self.reset_heartbeat(&member_id, turn);
            }
        }
    }
}
