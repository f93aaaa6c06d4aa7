//! ConsumerGroupHeartbeat: joining, staying, and leaving.

use std::sync::Arc;

use super::reconcile::{Step, UnknownState};
use super::target::MemberTarget;
use super::{ConsumerGroup, ConsumerMember, ConsumerRecord, CurrentAssignment, LEAVE_EPOCH, LEAVE_STATIC_EPOCH, MemberState, Turn};
use crate::error::GroupError;
use crate::messages::{ConsumerHeartbeatRequest, ConsumerHeartbeatResponse, Refusal, TopicPartitions};
use crate::timers::GroupTimer;

/// How a member's subscription changed.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SubscriptionChange {
    /// Its topics are others now: the target must be worked out anew.
    pub(super) bumps_epoch: bool,
    /// It has another expression, whose matches may not be known yet.
    pub(super) regex_changed: bool,
}

impl SubscriptionChange {
    pub(super) fn any(self) -> bool {
        self.bumps_epoch || self.regex_changed
    }
}

/// What can be checked without the group.
///
/// # Errors
/// INVALID_REQUEST and UNSUPPORTED_ASSIGNOR.
pub(crate) fn validate(request: &ConsumerHeartbeatRequest, turn: &Turn<'_>) -> Result<(), Refusal> {
    let invalid = |message: &str| Err(Refusal::new(GroupError::InvalidRequest, message));
    let is_blank = |text: &str| text.trim().is_empty();
    let epoch = request.member_epoch;
    let needs_member_id = request.brings_member_id || epoch > 0 || epoch == LEAVE_EPOCH;
    if needs_member_id && is_blank(&request.member_id) {
        return invalid("MemberId can't be empty.");
    }
    if is_blank(&request.group_id) {
        return invalid("GroupId can't be empty.");
    }
    if request.group_instance_id.as_deref().is_some_and(is_blank) {
        return invalid("InstanceId can't be empty.");
    }
    if request.rack_id.as_deref().is_some_and(is_blank) {
        return invalid("RackId can't be empty.");
    }
    if epoch == 0 {
        if request.rebalance_timeout_ms == -1 {
            return invalid("RebalanceTimeoutMs must be provided in first request.");
        }
        if !request.owned.as_ref().is_some_and(Vec::is_empty) {
            return invalid("TopicPartitions must be empty when (re-)joining.");
        }
        if request.subscribed_topics.is_none() && request.subscribed_regex.is_none() {
            return invalid("Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.");
        }
    } else if epoch == LEAVE_STATIC_EPOCH && request.group_instance_id.is_none() {
        return invalid("InstanceId can't be null.");
    } else if epoch < LEAVE_STATIC_EPOCH {
        return invalid("MemberEpoch is invalid.");
    }
    let supported = &turn.config.consumer_assignors;
    match &request.server_assignor {
        Some(name) if !supported.iter().any(|assignor| assignor.name() == name) => {
            let names: Vec<&str> = supported.iter().map(|assignor| assignor.name()).collect();
            let message = format!("ServerAssignor {name} is not supported. Supported assignors: {}.", names.join(", "));
            Err(Refusal::new(GroupError::UnsupportedAssignor, message))
        }
        _ => Ok(()),
    }
}

impl ConsumerGroup {
    /// A heartbeat of a member that joins (epoch 0) or stays. `new_id` is the id of a member that brought none.
    ///
    /// # Errors
    /// Kafka's for members that are fenced, unknown or too many; nothing changes then.
    pub(crate) fn heartbeat(
        &self,
        request: ConsumerHeartbeatRequest,
        new_id: impl FnOnce() -> String,
        turn: &mut Turn<'_>,
    ) -> Result<ConsumerHeartbeatResponse, Refusal> {
        let is_joining = request.member_epoch == 0;
        self.refuse_if_full(&request.member_id, turn)?;
        let member_id: Arc<str> = if request.member_id.is_empty() { new_id().into() } else { request.member_id.as_str().into() };
        let is_full = request.is_full();
        let owned = request.owned.clone();
        let member = match &request.group_instance_id {
            None => self.dynamic_member(member_id, is_joining)?,
            Some(instance_id) => self.static_member_for(member_id, instance_id, is_joining, false, turn)?,
        };
        validate_epoch(&member.current, request.member_epoch, owned.as_deref())?;
        let updated = ConsumerMember { profile: updated_profile(&member, request), ..member.clone() };
        let change = self.note_profile(&member, &updated, turn)?;
        let subscriptions = self.subscriptions_with(self.known(&member), &updated);
        let epoch = self.next_epoch(change.bumps_epoch, &subscriptions, turn);
        let target = self.target_for(epoch, &updated, subscriptions.preferred_assignor(), turn);
        let current = self.reconcile(&updated, &target, change.any(), owned.as_deref(), turn)?;
        turn.set_timer(GroupTimer::Heartbeat(updated.id.clone()), self.session_timeout_ms(turn));
        let tells_assignment = is_joining || is_full || current.assigned != member.current.assigned;
        Ok(ConsumerHeartbeatResponse {
            member_id: updated.id.to_string(),
            member_epoch: current.epoch,
            heartbeat_interval_ms: self.heartbeat_interval_ms(turn),
            assignment: tells_assignment.then(|| super::member::listed(&current.assigned)),
        })
    }

    pub(super) fn refuse_if_full(&self, member_id: &str, turn: &Turn<'_>) -> Result<(), Refusal> {
        let size_max = turn.config.consumer_group_max_size;
        if self.members.len() >= size_max && !self.members.contains_key(member_id) {
            let message = format!("The consumer group has reached its maximum capacity of {size_max} members.");
            return Err(Refusal::new(GroupError::GroupMaxSizeReached, message));
        }
        Ok(())
    }

    /// The member as it is, or a new one if it may be created.
    pub(super) fn dynamic_member(&self, member_id: Arc<str>, may_create: bool) -> Result<ConsumerMember, Refusal> {
        match self.members.get(&member_id) {
            Some(member) => Ok(member.clone()),
            None if may_create => Ok(ConsumerMember::new(member_id)),
            None => Err(self.unknown_member(&member_id)),
        }
    }

    pub(super) fn unknown_member(&self, member_id: &str) -> Refusal {
        let message = format!("Member {member_id} is not a member of group {}.", self.id);
        Refusal::new(GroupError::UnknownMemberId, message)
    }

    /// The static member; one that comes back under a new id replaces the old one, which must have left unless one of them speaks the
    /// classic protocol.
    pub(super) fn static_member_for(
        &self,
        member_id: Arc<str>,
        instance_id: &str,
        is_joining: bool,
        is_classic: bool,
        turn: &mut Turn<'_>,
    ) -> Result<ConsumerMember, Refusal> {
        let existing = self.static_member(instance_id);
        if !is_joining {
            return self.known_static_member(&member_id, instance_id).cloned();
        }
        let Some(existing) = existing else { return self.dynamic_member(member_id, true) };
        if !is_classic && !existing.uses_classic_protocol() && existing.current.epoch != LEAVE_STATIC_EPOCH {
            let message = format!(
                "Static member {member_id} with instance id {instance_id} cannot join the group because the instance id is owned by {} member.",
                existing.id
            );
            return Err(Refusal::new(GroupError::UnreleasedInstanceId, message));
        }
        tracing::info!(group = ?self.id, old = ?existing.id, new = ?member_id, "static member comes back");
        let current = CurrentAssignment { epoch: 0, previous_epoch: 0, ..existing.current.clone() };
        let replacing = ConsumerMember { id: member_id, profile: existing.profile.clone(), current };
        self.replace_member(existing, &replacing, turn);
        Ok(replacing)
    }

    pub(super) fn known_static_member(&self, member_id: &str, instance_id: &str) -> Result<&ConsumerMember, Refusal> {
        let Some(existing) = self.static_member(instance_id) else {
            return Err(Refusal::new(GroupError::UnknownMemberId, format!("Instance id {instance_id} is unknown.")));
        };
        if *existing.id != *member_id {
            let message = format!("Static member {member_id} with instance id {instance_id} was fenced by member {}.", existing.id);
            return Err(Refusal::new(GroupError::FencedInstanceId, message));
        }
        Ok(existing)
    }

    fn replace_member(&self, old: &ConsumerMember, new: &ConsumerMember, turn: &mut Turn<'_>) {
        turn.cancel_all_timers(&old.id);
        push_removal(&old.id, turn);
        let member_id = new.id.clone();
        let target = self.targets.get(&old.id).cloned().unwrap_or_default();
        turn.records.extend([
            ConsumerRecord::Member { member_id: member_id.clone(), profile: Some(Box::new(new.profile.clone())) },
            ConsumerRecord::Target { member_id: member_id.clone(), target: Some(target) },
            ConsumerRecord::Current { member_id, current: Some(Box::new(new.current.clone())) },
        ]);
    }

    /// The member as the subscriptions count it now: under its own or, if it is static, its former id.
    pub(super) fn known(&self, member: &ConsumerMember) -> Option<&ConsumerMember> {
        let former = || member.profile.instance_id.as_deref().and_then(|instance_id| self.static_member(instance_id));
        self.members.get(&member.id).or_else(former)
    }

    /// Records what a member says of itself, if that is new.
    pub(super) fn note_profile(
        &self,
        member: &ConsumerMember,
        updated: &ConsumerMember,
        turn: &mut Turn<'_>,
    ) -> Result<SubscriptionChange, Refusal> {
        let mut change = SubscriptionChange::default();
        if member.profile != updated.profile {
            let profile = Some(Box::new(updated.profile.clone()));
            turn.records.push(ConsumerRecord::Member { member_id: updated.id.clone(), profile });
            change.bumps_epoch = member.profile.subscribed_topics != updated.profile.subscribed_topics;
        }
        let (old, new) = (member.regex(), updated.regex());
        if old == new {
            return Ok(change);
        }
        change.regex_changed = true;
        if let Some(old) = old.filter(|old| self.subscriptions.regex_count(old) == 1) {
            turn.records.push(ConsumerRecord::Regex { regex: old.to_owned(), resolved: None });
        }
        match new {
            Some(new) if self.subscriptions.regex_count(new) == 0 => {
                super::regex::compile(new).map_err(|invalid| {
                    let message = format!("SubscribedTopicRegex `{new}` is not a valid regular expression: {}.", invalid.0);
                    Refusal::new(GroupError::InvalidRegularExpression, message)
                })?;
            }
            Some(new) => change.bumps_epoch |= self.regexes.contains_key(new),
            None => change.bumps_epoch = true,
        }
        Ok(change)
    }

    /// Takes a member one step nearer to its target.
    pub(super) fn reconcile(
        &self,
        member: &ConsumerMember,
        target: &MemberTarget,
        subscription_changed: bool,
        reported: Option<&[TopicPartitions]>,
        turn: &mut Turn<'_>,
    ) -> Result<CurrentAssignment, Refusal> {
        if !subscription_changed && member.current.is_reconciled_to(target.epoch) {
            return Ok(member.current.clone());
        }
        let cluster = turn.cluster;
        let is_subscribed = |topic| {
            let name = cluster.topic_by_id(topic).map(|topic| topic.name);
            name.is_some_and(|name| {
                let matched = member.regex().and_then(|regex| self.regexes.get(regex));
                member.profile.subscribed_topics.contains(name) || matched.is_some_and(|resolved| resolved.topics.contains(name))
            })
        };
        let step = Step {
            target_epoch: target.epoch,
            target: &target.target,
            is_subscribed: &is_subscribed,
            subscription_changed,
            is_owned: &|topic, partition| self.is_owned(topic, partition),
            reported,
        };
        let next = step.next(&member.current).map_err(|UnknownState| {
            fenced("The consumer group member is in a unknown state. The member must abandon all its partitions and rejoin.")
        })?;
        if next != member.current {
            turn.records.push(ConsumerRecord::Current { member_id: member.id.clone(), current: Some(Box::new(next.clone())) });
            if !member.uses_classic_protocol() {
                let timer = GroupTimer::Rebalance(member.id.clone());
                match next.state {
                    MemberState::UnrevokedPartitions => turn.set_timer(timer, member.profile.rebalance_timeout_ms),
                    _ => turn.cancel_timer(timer),
                }
            }
        }
        Ok(next)
    }

    /// A member leaves: for good (-1), or for a while if it is static (-2).
    ///
    /// # Errors
    /// UNKNOWN_MEMBER_ID, FENCED_INSTANCE_ID.
    pub(crate) fn leave(&self, request: &ConsumerHeartbeatRequest, turn: &mut Turn<'_>) -> Result<ConsumerHeartbeatResponse, Refusal> {
        let member = match &request.group_instance_id {
            None => self.members.get(request.member_id.as_str()).ok_or_else(|| self.unknown_member(&request.member_id))?,
            Some(instance_id) => self.known_static_member(&request.member_id, instance_id)?,
        };
        tracing::info!(group = ?self.id, member = ?member.id, epoch = request.member_epoch, "member leaves the consumer group");
        if request.group_instance_id.is_some() && request.member_epoch == LEAVE_STATIC_EPOCH {
            self.leave_for_a_while(member, turn);
        } else {
            self.remove_members(&[member], "members left", turn);
        }
        Ok(ConsumerHeartbeatResponse {
            member_id: request.member_id.clone(),
            member_epoch: request.member_epoch,
            heartbeat_interval_ms: 0,
            assignment: None,
        })
    }

    /// Its partitions stay its own until its session ends.
    fn leave_for_a_while(&self, member: &ConsumerMember, turn: &mut Turn<'_>) {
        let mut current = CurrentAssignment { epoch: LEAVE_STATIC_EPOCH, revoking: Default::default(), ..member.current.clone() };
        for epoch in current.assigned.values_mut().flat_map(|partitions| partitions.values_mut()) {
            *epoch = 0;
        }
        turn.records.push(ConsumerRecord::Current { member_id: member.id.clone(), current: Some(Box::new(current)) });
    }

    /// Members are out: the others share what they had. Or the group becomes a classic one, if only members of that protocol remain.
    pub(crate) fn remove_members(&self, members: &[&ConsumerMember], reason: &str, turn: &mut Turn<'_>) {
        if members.is_empty() {
            return;
        }
        if self.can_downgrade_without(members, turn) {
            return self.downgrade_without(members, reason, turn);
        }
        for member in members {
            push_removal(&member.id, turn);
            turn.cancel_all_timers(&member.id);
        }
        let (subscriptions, unused) = self.subscriptions_without(members);
        turn.records.extend(unused.into_iter().map(|regex| ConsumerRecord::Regex { regex, resolved: None }));
        let hash = subscriptions.metadata_hash(turn.cluster);
        turn.records.push(ConsumerRecord::Epoch(Some((self.epoch.saturating_add(1), hash))));
    }

    /// A timer of this group is due.
    pub(crate) fn on_timer(&self, timer: GroupTimer, turn: &mut Turn<'_>) {
        let (member_id, reason) = match &timer {
            GroupTimer::Heartbeat(member_id) => (member_id, "its session timed out"),
            GroupTimer::Rebalance(member_id) => (member_id, "it did not give its partitions up in time"),
            GroupTimer::ClassicJoin(member_id) => (member_id, "it did not join again in time"),
            GroupTimer::ClassicSync(member_id) => (member_id, "it did not send SyncGroup in time"),
            GroupTimer::Join | GroupTimer::Sync(_) => return,
        };
        let Some(member) = self.members.get(member_id) else { return };
        let has_left_for_a_while = member.current.epoch == LEAVE_STATIC_EPOCH;
        if matches!(timer, GroupTimer::Rebalance(_)) && has_left_for_a_while {
            return;
        }
        tracing::info!(group = ?self.id, member = ?member_id, reason, "member is removed from the consumer group");
        self.remove_members(&[member], reason, turn);
    }

    /// Starts the timers of a group that was just replayed.
    pub(crate) fn on_loaded(&self, turn: &mut Turn<'_>) {
        for member in self.members.values() {
            let session_timeout_ms = match &member.profile.classic {
                Some(classic) => classic.session_timeout_ms,
                None => self.session_timeout_ms(turn),
            };
            turn.set_timer(GroupTimer::Heartbeat(member.id.clone()), session_timeout_ms);
            if member.current.state == MemberState::UnrevokedPartitions {
                turn.set_timer(GroupTimer::Rebalance(member.id.clone()), member.profile.rebalance_timeout_ms);
            }
        }
    }

    fn session_timeout_ms(&self, turn: &Turn<'_>) -> i32 {
        let limits = &turn.config.consumer_session_timeout_limits_ms;
        let set = turn.cluster.group_setting(&self.id, "consumer.session.timeout.ms");
        set.map_or(turn.config.consumer_session_timeout_ms, |value| value.max(*limits.start()).min(*limits.end()))
    }

    fn heartbeat_interval_ms(&self, turn: &Turn<'_>) -> i32 {
        let limits = &turn.config.consumer_heartbeat_interval_limits_ms;
        let set = turn.cluster.group_setting(&self.id, "consumer.heartbeat.interval.ms");
        set.map_or(turn.config.consumer_heartbeat_interval_ms, |value| value.max(*limits.start()).min(*limits.end()))
    }
}

/// Deletes a member's three records.
fn push_removal(member_id: &Arc<str>, turn: &mut Turn<'_>) {
    turn.records.extend([
        ConsumerRecord::Current { member_id: member_id.clone(), current: None },
        ConsumerRecord::Target { member_id: member_id.clone(), target: None },
        ConsumerRecord::Member { member_id: member_id.clone(), profile: None },
    ]);
}

fn fenced(message: impl Into<String>) -> Refusal {
    Refusal::new(GroupError::FencedMemberEpoch, message)
}

/// A member must come with its epoch (I21). The one before is good too if it owns no more than it should: it did not get the last answer.
fn validate_epoch(current: &CurrentAssignment, received: i32, owned: Option<&[TopicPartitions]>) -> Result<(), Refusal> {
    let known = current.epoch;
    let owns_at_most_assigned = || {
        let within = |topic: &TopicPartitions| {
            let assigned = current.assigned.get(&topic.topic_id);
            assigned.is_some_and(|assigned| topic.partitions.iter().all(|partition| assigned.contains_key(partition)))
        };
        owned.is_some_and(|owned| owned.iter().all(within))
    };
    let size = match received.cmp(&known) {
        _ if received == 0 => return Ok(()),
        std::cmp::Ordering::Equal => return Ok(()),
        std::cmp::Ordering::Greater => "greater",
        std::cmp::Ordering::Less if received == current.previous_epoch && owns_at_most_assigned() => return Ok(()),
        std::cmp::Ordering::Less => "smaller",
    };
    Err(fenced(format!(
        "The consumer group member has a {size} member epoch ({received}) than the one known by the group coordinator ({known}). \
         The member must abandon all its partitions and rejoin."
    )))
}

/// What the member says of itself now; what it leaves out stays.
fn updated_profile(member: &ConsumerMember, request: ConsumerHeartbeatRequest) -> super::MemberProfile {
    let old = &member.profile;
    super::MemberProfile {
        instance_id: request.group_instance_id.or_else(|| old.instance_id.clone()),
        rack_id: request.rack_id.or_else(|| old.rack_id.clone()),
        client_id: request.client_id,
        client_host: request.client_host,
        subscribed_topics: request.subscribed_topics.map_or_else(|| old.subscribed_topics.clone(), |topics| topics.into_iter().collect()),
        subscribed_regex: request.subscribed_regex.unwrap_or_else(|| old.subscribed_regex.clone()),
        rebalance_timeout_ms: if request.rebalance_timeout_ms == -1 { old.rebalance_timeout_ms } else { request.rebalance_timeout_ms },
        server_assignor: request.server_assignor.or_else(|| old.server_assignor.clone()),
        classic: None,
    }
}
