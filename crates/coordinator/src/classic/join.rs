//! JoinGroup: new members, members that come back, and static members under a new id.

use uuid::Uuid;

use super::{ClassicGroup, ClassicState, Member, StaticReplaced, Turn, WriteDone};
use crate::driver::WaiterId;
use crate::error::GroupError;
use crate::messages::{JoinRequest, JoinResponse, JoinedMember};
use crate::timers::GroupTimer;

/// A new member can't be heard before its JoinGroup is answered, so it has this long; then its client must have retried.
const NEW_MEMBER_JOIN_TIMEOUT_MS: i32 = 5 * 60_000;

impl ClassicGroup {
    /// JoinGroup. `new_id` makes the id of a new member unique.
    pub(crate) fn join(&mut self, request: JoinRequest, new_id: Uuid, waiter: WaiterId, turn: &mut Turn<'_>) {
        let member_id = request.member_id.clone();
        if !self.accepts(&member_id, turn.config.group_max_size) {
            self.remove(&member_id, turn);
            return turn.reply_join(waiter, JoinResponse::refused("", GroupError::GroupMaxSizeReached));
        }
        let refusal = if self.state == ClassicState::Dead {
            Some(GroupError::CoordinatorNotAvailable)
        } else if !self.supports_protocols(&request.protocol_type, &request.protocols) {
            Some(GroupError::InconsistentGroupProtocol)
        } else {
            None
        };
        if let Some(error) = refusal {
            return turn.reply_join(waiter, JoinResponse::refused(member_id, error));
        }
        if member_id.is_empty() {
            self.join_new(request, new_id, waiter, turn);
        } else if self.pending_join.contains(&member_id) {
            // The id was given to a dynamic member: a static one can't have it.
            if request.group_instance_id.is_some() {
                return turn.reply_join(waiter, JoinResponse::refused("", GroupError::UnknownServerError));
            }
            self.add_member(member_id, request, waiter, turn);
        } else {
            self.join_existing(request, waiter, turn);
        }
    }

    /// The limit on the group's size. While members join, those who wait count, so that the last to come are the ones refused.
    fn accepts(&self, member_id: &str, size_max: usize) -> bool {
        let member = self.members.get(member_id);
        match self.state {
            ClassicState::Empty | ClassicState::Dead => true,
            ClassicState::PreparingRebalance => {
                member.is_some_and(|member| member.awaiting_join.is_some()) || self.awaiting_join_count() < size_max
            }
            ClassicState::CompletingRebalance | ClassicState::Stable => member.is_some() || self.members.len() < size_max,
        }
    }

    fn join_new(&mut self, request: JoinRequest, new_id: Uuid, waiter: WaiterId, turn: &mut Turn<'_>) {
        let prefix = request.group_instance_id.as_deref().unwrap_or(&request.client_id);
        let member_id = format!("{prefix}-{new_id}");
        let existing = request.group_instance_id.as_ref().and_then(|instance_id| self.static_members.get(instance_id).cloned());
        if let Some(old_member_id) = existing {
            tracing::info!(group = ?self.id, old = ?old_member_id, new = ?member_id, "static member comes back");
            self.replace_static(&old_member_id, member_id, request, waiter, turn);
        } else if request.group_instance_id.is_none() && request.require_known_member_id {
            self.pending_join.insert(member_id.clone());
            turn.set_timer(GroupTimer::Heartbeat(member_id.as_str().into()), request.session_timeout_ms);
            turn.reply_join(waiter, JoinResponse::refused(member_id, GroupError::MemberIdRequired));
        } else {
            self.add_member(member_id, request, waiter, turn);
        }
    }

    fn add_member(&mut self, member_id: String, request: JoinRequest, waiter: WaiterId, turn: &mut Turn<'_>) {
        tracing::info!(
            group = ?self.id, member = ?member_id, instance = ?request.group_instance_id, reason = ?request.reason, state = self.state.name(),
            "member joins"
        );
        if self.state == ClassicState::PreparingRebalance && self.previous_state == ClassicState::Empty {
            self.new_member_added = true;
        }
        if self.members.is_empty() {
            self.protocol_type = Some(request.protocol_type.clone());
        }
        if let Some(instance_id) = &request.group_instance_id {
            self.static_members.insert(instance_id.clone(), member_id.clone());
        }
        self.leader.get_or_insert_with(|| member_id.clone());
        self.pending_join.remove(&member_id);
        turn.set_timer(GroupTimer::Heartbeat(member_id.as_str().into()), NEW_MEMBER_JOIN_TIMEOUT_MS);
        self.members.insert(member_id.clone(), Member::new(member_id, request, waiter));
        self.rebalance_or_complete_join("a member joins", turn);
    }

    fn join_existing(&mut self, request: JoinRequest, waiter: WaiterId, turn: &mut Turn<'_>) {
        let member_id = request.member_id.clone();
        if let Err(error) = self.validate_member(&member_id, request.group_instance_id.as_deref()) {
            return turn.reply_join(waiter, JoinResponse::refused(member_id, error));
        }
        let unchanged = self.members.get(&member_id).is_some_and(|member| member.protocols == request.protocols);
        match self.state {
            ClassicState::PreparingRebalance => self.rejoin(request, waiter, "a member joins again", turn),
            // It did not get the first answer: give it the same again.
            ClassicState::CompletingRebalance if unchanged => turn.reply_join(waiter, self.joined(&member_id)),
            // The leader may rebalance at will: the topics may have changed.
            ClassicState::Stable if unchanged && !self.is_leader(&member_id) => turn.reply_join(waiter, self.joined(&member_id)),
            ClassicState::CompletingRebalance => self.rejoin(request, waiter, "a member changes its metadata", turn),
            ClassicState::Stable => self.rejoin(request, waiter, "the leader joins again or a member changes its metadata", turn),
            ClassicState::Empty | ClassicState::Dead => {
                turn.reply_join(waiter, JoinResponse::refused(member_id, GroupError::UnknownMemberId));
            }
        }
    }

    fn rejoin(&mut self, request: JoinRequest, waiter: WaiterId, reason: &str, turn: &mut Turn<'_>) {
        self.update_member(&request.member_id.clone(), request, waiter, turn);
        self.rebalance_or_complete_join(reason, turn);
    }

    fn update_member(&mut self, member_id: &str, request: JoinRequest, waiter: WaiterId, turn: &mut Turn<'_>) {
        let Some(member) = self.members.get_mut(member_id) else { return };
        member.protocols = request.protocols;
        member.rebalance_timeout_ms = request.rebalance_timeout_ms;
        member.session_timeout_ms = request.session_timeout_ms;
        if let Some(superseded) = member.awaiting_join.replace(waiter) {
            turn.reply_join(superseded, JoinResponse::refused(member_id, GroupError::RebalanceInProgress));
        }
    }

    /// What a member of the current generation is told; the leader is told of all members.
    pub(super) fn joined(&self, member_id: &str) -> JoinResponse {
        let protocol = self.protocol_name.as_deref().unwrap_or_default();
        let members = self.members.values().map(|member| JoinedMember {
            member_id: member.id.clone(),
            group_instance_id: member.group_instance_id.clone(),
            metadata: member.metadata(protocol),
        });
        JoinResponse {
            error: None,
            generation_id: self.generation_id,
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol_name.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            skip_assignment: false,
            member_id: member_id.to_owned(),
            members: if self.is_leader(member_id) { members.collect() } else { Vec::new() },
        }
    }

    /// A static member came back under a new id (KIP-345): the old id is fenced. A stable group stays stable if its protocol
    /// does; the new id is written first.
    fn replace_static(&mut self, old_id: &str, new_id: String, request: JoinRequest, waiter: WaiterId, turn: &mut Turn<'_>) {
        let old_leader = self.leader.clone();
        let supports_skipping_assignment = request.supports_skipping_assignment;
        let Some(old_member) = self.rename_static(old_id, &new_id, turn) else { return };
        self.reset_heartbeat(&new_id, turn);
        self.update_member(&new_id, request, waiter, turn);
        match self.state {
            ClassicState::Stable if self.select_protocol() == self.protocol_name => {
                let done = StaticReplaced { old_member, new_member_id: new_id, old_leader, supports_skipping_assignment };
                let metadata = self.to_metadata(|member| member.assignment.clone());
                turn.actions.push(super::Action::Write(metadata, WriteDone::StaticReplaced(Box::new(done))));
            }
            ClassicState::Stable => self.prepare_rebalance("a static member comes back with other protocols", turn),
            // The leader may already be assigning to the old id.
            ClassicState::CompletingRebalance => self.prepare_rebalance("a static member comes back", turn),
            ClassicState::PreparingRebalance | ClassicState::Empty | ClassicState::Dead => self.maybe_complete_join(turn),
        }
    }

    /// Puts a static member under a new id, fencing the requests that the old one waits for. The member as it was.
    fn rename_static(&mut self, old_id: &str, new_id: &str, turn: &mut Turn<'_>) -> Option<Member> {
        let old_member = self.members.shift_remove(old_id)?;
        if let Some(waiter) = old_member.awaiting_join {
            turn.reply_join(waiter, JoinResponse::refused(old_id, GroupError::FencedInstanceId));
        }
        if let Some(waiter) = old_member.awaiting_sync {
            turn.reply_sync(waiter, crate::messages::SyncResponse::refused(GroupError::FencedInstanceId));
        }
        turn.cancel_timer(GroupTimer::Heartbeat(old_id.into()));
        self.pending_sync.remove(old_id);
        let member = Member { id: new_id.to_owned(), awaiting_join: None, awaiting_sync: None, is_new: false, ..old_member.clone() };
        if let Some(instance_id) = &member.group_instance_id {
            self.static_members.insert(instance_id.clone(), new_id.to_owned());
        }
        if self.is_leader(old_id) {
            self.leader = Some(new_id.to_owned());
        }
        self.members.insert(new_id.to_owned(), member);
        Some(Member { awaiting_join: None, awaiting_sync: None, ..old_member })
    }

    /// The new id of a static member is written, or could not be.
    pub(super) fn on_static_replaced(&mut self, replaced: StaticReplaced, result: Result<(), GroupError>, turn: &mut Turn<'_>) {
        let StaticReplaced { old_member, new_member_id, old_leader, supports_skipping_assignment } = replaced;
        if !self.members.contains_key(&new_member_id) {
            return;
        }
        if let Err(error) = result {
            tracing::warn!(group = ?self.id, member = ?new_member_id, %error, "could not write a static member's new id, going back to the old one");
            return self.restore_static(old_member, &new_member_id, old_leader, error, turn);
        }
        // In a rebalance that began meanwhile the waiting JoinGroup counts as a JoinGroup for that one.
        if self.state != ClassicState::Stable {
            return;
        }
        let Some(waiter) = self.members.get_mut(&new_member_id).and_then(|member| member.awaiting_join.take()) else { return };
        let mut response = self.joined(&new_member_id);
        if supports_skipping_assignment {
            response.skip_assignment = self.is_leader(&new_member_id);
        } else {
            // A client that can't skip would assign anew as leader: it is told that the old id leads.
            response.leader = old_leader.unwrap_or_default();
            response.members = Vec::new();
        }
        turn.reply_join(waiter, response);
        // Its session may have ended while it waited: it starts anew.
        self.reset_heartbeat(&new_member_id, turn);
    }

    fn restore_static(
        &mut self,
        old_member: Member,
        new_member_id: &str,
        old_leader: Option<String>,
        error: GroupError,
        turn: &mut Turn<'_>,
    ) {
        let waiter = self.members.get_mut(new_member_id).and_then(|member| member.awaiting_join.take());
        if let Some(waiter) = waiter {
            let mut response = JoinResponse { members: Vec::new(), ..self.joined("") };
            response.error = Some(error);
            response.leader = old_leader.unwrap_or_default();
            turn.reply_join(waiter, response);
        }
        let old_id = old_member.id.clone();
        self.rename_static(new_member_id, &old_id, turn);
        self.members.insert(old_id.clone(), old_member);
        self.reset_heartbeat(&old_id, turn);
    }

    /// The first record of a new group, before anybody is in it.
    pub(crate) fn write_created(&self, turn: &mut Turn<'_>) {
        turn.actions.push(super::Action::Write(self.to_metadata(|member| member.assignment.clone()), WriteDone::Created));
    }
}
