//! Members of a consumer group that still speak the classic protocol: their JoinGroup, SyncGroup, Heartbeat and LeaveGroup.

use std::sync::Arc;

use siltstone_common::TopicId;

use super::member::{ClassicProfile, partitions_of};
use super::migration::{by_name, reported};
use super::target::MemberTarget;
use super::{ConsumerGroup, ConsumerMember, MemberProfile, MemberState, Turn};
use crate::consumer_protocol::{self, PROTOCOL_TYPE, Subscription};
use crate::error::GroupError;
use crate::messages::{
    HeartbeatRequest, JoinRequest, JoinResponse, LeavingMember, LeftMember, Protocol, Refusal, SyncRequest, SyncResponse,
};
use crate::timers::GroupTimer;

impl ConsumerGroup {
    /// JoinGroup: the member's next step is worked out and answered at once.
    ///
    /// # Errors
    /// Kafka's; nothing changes then. MEMBER_ID_REQUIRED comes with the id in the answer.
    pub(crate) fn classic_join(&self, request: &JoinRequest, new_id: Arc<str>, turn: &mut Turn<'_>) -> Result<JoinResponse, GroupError> {
        if !self.admits_classic_members(turn) {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        self.refuse_if_full(&request.member_id, turn).map_err(error_of)?;
        if !self.supports_classic(&request.protocol_type, &request.protocols) {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        let is_unknown = request.member_id.is_empty();
        let member_id: Arc<str> = if is_unknown { new_id } else { request.member_id.as_str().into() };
        if is_unknown && request.group_instance_id.is_none() && request.require_known_member_id {
            return Ok(JoinResponse::refused(&*member_id, GroupError::MemberIdRequired));
        }
        let first = request.protocols.first().ok_or(GroupError::InconsistentGroupProtocol)?;
        let subscription = consumer_protocol::read_subscription(&first.metadata).ok_or(GroupError::UnknownServerError)?;
        let member = match &request.group_instance_id {
            None => self.dynamic_member(member_id, true),
            Some(instance_id) => self.static_member_for(member_id, instance_id, is_unknown, true, turn),
        };
        let member = member.map_err(error_of)?;
        let current = self.classic_step(&member, request, &subscription, turn).map_err(error_of)?;
        Ok(JoinResponse {
            error: None,
            generation_id: current,
            protocol_type: Some(PROTOCOL_TYPE.to_owned()),
            protocol_name: Some(first.name.clone()),
            leader: String::new(),
            skip_assignment: false,
            member_id: member.id.to_string(),
            members: Vec::new(),
        })
    }

    /// The epoch of the member after its step; a classic member that replaces the last other one turns the group into a classic one.
    fn classic_step(
        &self,
        member: &ConsumerMember,
        request: &JoinRequest,
        subscription: &Subscription,
        turn: &mut Turn<'_>,
    ) -> Result<i32, Refusal> {
        let mut updated = ConsumerMember { profile: classic_profile(member, request, subscription), ..member.clone() };
        let change = self.note_profile(member, &updated, turn)?;
        let subscriptions = self.subscriptions_with(self.known(member), &updated);
        let epoch = self.next_epoch(change.any(), &subscriptions, turn);
        let owned = reported(&subscription.owned, turn.cluster);
        let existing = request.group_instance_id.as_deref().and_then(|instance_id| self.static_member(instance_id));
        if let Some(replaced) = existing.filter(|existing| self.can_downgrade_replacing(existing, turn)) {
            let must_rebalance = self.target_epoch < epoch;
            if !must_rebalance {
                let target = self.target_of(&updated.id, request.group_instance_id.as_deref());
                let target = MemberTarget { epoch: self.target_epoch, target };
                updated.current = self.reconcile(&updated, &target, change.any(), Some(&owned), turn)?;
            }
            let member_epoch = updated.current.epoch;
            let reason = must_rebalance.then(|| "the group became a classic one with a stale assignment".to_owned());
            self.downgrade_replacing(replaced, updated, reason, turn);
            return Ok(member_epoch);
        }
        let target = self.target_for(epoch, &updated, subscriptions.preferred_assignor(), turn);
        let current = self.reconcile(&updated, &target, change.any(), Some(&owned), turn)?;
        turn.cancel_timer(GroupTimer::ClassicJoin(updated.id.clone()));
        turn.set_timer(GroupTimer::Heartbeat(updated.id.clone()), request.session_timeout_ms);
        turn.set_timer(GroupTimer::ClassicSync(updated.id.clone()), request.rebalance_timeout_ms);
        Ok(current.epoch)
    }

    fn supports_classic(&self, protocol_type: &str, protocols: &[Protocol]) -> bool {
        let common = || protocols.iter().any(|protocol| self.subscriptions.is_common_classic_protocol(&protocol.name));
        protocol_type == PROTOCOL_TYPE && !protocols.is_empty() && (self.members.is_empty() || common())
    }

    fn classic_member(
        &self,
        member_id: &str,
        group_instance_id: Option<&str>,
        generation_id: i32,
    ) -> Result<(&ConsumerMember, &ClassicProfile), GroupError> {
        let member = match group_instance_id {
            None => self.members.get(member_id).ok_or(GroupError::UnknownMemberId)?,
            Some(instance_id) => self.known_static_member(member_id, instance_id).map_err(error_of)?,
        };
        let classic = member.profile.classic.as_ref().ok_or(GroupError::UnknownMemberId)?;
        if member.current.epoch == generation_id { Ok((member, classic)) } else { Err(GroupError::IllegalGeneration) }
    }

    /// SyncGroup: what the member owns now. REBALANCE_IN_PROGRESS starts a timer, too.
    pub(crate) fn classic_sync(&self, request: &SyncRequest, turn: &mut Turn<'_>) -> Result<SyncResponse, GroupError> {
        let (member, classic) = self.classic_member(&request.member_id, request.group_instance_id.as_deref(), request.generation_id)?;
        let first = classic.protocols.first();
        let differs = |theirs: &Option<String>, ours: Option<&str>| theirs.is_some() && theirs.as_deref() != ours;
        if differs(&request.protocol_type, Some(PROTOCOL_TYPE)) || differs(&request.protocol_name, first.map(|first| first.name.as_str())) {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        if self.target_epoch > member.current.epoch && member.current.state != MemberState::UnrevokedPartitions {
            turn.set_timer_if_absent(GroupTimer::ClassicJoin(member.id.clone()), member.profile.rebalance_timeout_ms);
            return Err(GroupError::RebalanceInProgress);
        }
        turn.cancel_timer(GroupTimer::ClassicSync(member.id.clone()));
        turn.set_timer(GroupTimer::Heartbeat(member.id.clone()), classic.session_timeout_ms);
        let version = first.and_then(|first| consumer_protocol::read_subscription(&first.metadata)).map_or(0, |read| read.version);
        let assigned = by_name(&partitions_of(&member.current.assigned), turn.cluster);
        Ok(SyncResponse {
            error: None,
            protocol_type: request.protocol_type.clone(),
            protocol_name: request.protocol_name.clone(),
            assignment: consumer_protocol::write_assignment(version, &assigned),
        })
    }

    /// Heartbeat: REBALANCE_IN_PROGRESS asks the member to join again for its next step.
    pub(crate) fn classic_heartbeat(&self, request: &HeartbeatRequest, turn: &mut Turn<'_>) -> Result<(), GroupError> {
        let (member, classic) = self.classic_member(&request.member_id, request.group_instance_id.as_deref(), request.generation_id)?;
        turn.set_timer(GroupTimer::Heartbeat(member.id.clone()), classic.session_timeout_ms);
        let has_next_step = match member.current.state {
            _ if member.current.epoch < self.target_epoch => true,
            MemberState::UnrevokedPartitions => true,
            MemberState::UnreleasedPartitions => !self.waits_for_others(member),
            MemberState::Stable | MemberState::Unknown => false,
        };
        if has_next_step {
            turn.set_timer_if_absent(GroupTimer::ClassicJoin(member.id.clone()), member.profile.rebalance_timeout_ms);
            return Err(GroupError::RebalanceInProgress);
        }
        Ok(())
    }

    /// True while others own a partition of its target.
    fn waits_for_others(&self, member: &ConsumerMember) -> bool {
        let target = self.targets.get(&member.id).into_iter().flatten();
        let mut target = target.flat_map(|(topic, partitions)| partitions.iter().map(|partition| (*topic, *partition)));
        let is_assigned =
            |topic: TopicId, partition: i32| member.current.assigned.get(&topic).is_some_and(|ours| ours.contains_key(&partition));
        target.any(|(topic, partition)| !is_assigned(topic, partition) && self.is_owned(topic, partition))
    }

    /// LeaveGroup, by members of either protocol or an administrator.
    pub(crate) fn classic_leave(&self, members: Vec<LeavingMember>, turn: &mut Turn<'_>) -> Vec<LeftMember> {
        let mut leaving: Vec<&ConsumerMember> = Vec::new();
        let left = members.into_iter().map(|member| match self.leaving_member(&member) {
            Ok(found) => {
                if !leaving.iter().any(|other| other.id == found.id) {
                    leaving.push(found);
                }
                member.left(None)
            }
            Err(error) => member.left(Some(error)),
        });
        let left = left.collect();
        self.remove_members(&leaving, "members left", turn);
        left
    }

    fn leaving_member(&self, leaving: &LeavingMember) -> Result<&ConsumerMember, GroupError> {
        match &leaving.group_instance_id {
            None => self.members.get(leaving.member_id.as_str()).ok_or(GroupError::UnknownMemberId),
            Some(instance_id) if leaving.member_id.is_empty() => self.static_member(instance_id).ok_or(GroupError::UnknownMemberId),
            Some(instance_id) => self.known_static_member(&leaving.member_id, instance_id).map_err(error_of),
        }
    }
}

fn error_of(refusal: Refusal) -> GroupError {
    refusal.error
}

fn classic_profile(member: &ConsumerMember, request: &JoinRequest, subscription: &Subscription) -> MemberProfile {
    let old = &member.profile;
    MemberProfile {
        instance_id: request.group_instance_id.clone().or_else(|| old.instance_id.clone()),
        rack_id: subscription.rack_id.clone().or_else(|| old.rack_id.clone()),
        client_id: request.client_id.clone(),
        client_host: request.client_host.clone(),
        subscribed_topics: subscription.topics.iter().cloned().collect(),
        // The classic protocol knows no expressions: its clients match by themselves.
        subscribed_regex: String::new(),
        rebalance_timeout_ms: if request.rebalance_timeout_ms == -1 { old.rebalance_timeout_ms } else { request.rebalance_timeout_ms },
        server_assignor: old.server_assignor.clone(),
        classic: Some(ClassicProfile { session_timeout_ms: request.session_timeout_ms, protocols: request.protocols.clone() }),
    }
}
