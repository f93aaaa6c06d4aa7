//! The join phase: when it starts, who is waited for, and the new generation.

use super::{Action, ClassicGroup, ClassicState, InitialDelay, Turn, WriteDone};
use crate::error::GroupError;
use crate::messages::{JoinResponse, SyncResponse};
use crate::timers::GroupTimer;

impl ClassicGroup {
    /// Starts a join phase, or ends the one under way if everybody is there.
    pub(super) fn rebalance_or_complete_join(&mut self, reason: &str, turn: &mut Turn<'_>) {
        match self.state {
            ClassicState::Stable | ClassicState::CompletingRebalance | ClassicState::Empty => self.prepare_rebalance(reason, turn),
            ClassicState::PreparingRebalance | ClassicState::Dead => self.maybe_complete_join(turn),
        }
    }

    /// Starts a join phase. That of an empty group waits a little for more members (`group.initial.rebalance.delay.ms`).
    pub(super) fn prepare_rebalance(&mut self, reason: &str, turn: &mut Turn<'_>) {
        if self.state == ClassicState::CompletingRebalance {
            self.fail_assignment(GroupError::RebalanceInProgress, turn);
        }
        self.pending_sync.clear();
        turn.cancel_timer(GroupTimer::Sync(self.generation_id));
        let is_initial = self.state == ClassicState::Empty;
        self.transition_to(ClassicState::PreparingRebalance, turn.now_ms);
        tracing::info!(group = ?self.id, generation = self.generation_id, members = self.members.len(), reason, "preparing to rebalance");
        if is_initial {
            let delay_ms = turn.config.group_initial_rebalance_delay_ms;
            let remaining_ms = self.rebalance_timeout_ms().saturating_sub(delay_ms).max(0);
            self.initial_delay = Some(InitialDelay { delay_ms, remaining_ms });
            self.new_member_added = false;
            turn.set_timer(GroupTimer::Join, delay_ms);
        } else if self.has_all_members_joined() {
            self.complete_join(turn);
        } else {
            turn.set_timer(GroupTimer::Join, self.rebalance_timeout_ms());
        }
    }

    /// Ends the join phase if everybody is there; an initial one only by its timer.
    pub(super) fn maybe_complete_join(&mut self, turn: &mut Turn<'_>) {
        let is_initial = self.previous_state == ClassicState::Empty;
        if self.state == ClassicState::PreparingRebalance && !is_initial && self.has_all_members_joined() {
            self.complete_join(turn);
        }
    }

    /// A timer is due.
    pub(crate) fn on_timer(&mut self, timer: GroupTimer, turn: &mut Turn<'_>) {
        match timer {
            GroupTimer::Heartbeat(member_id) => self.on_silence(&member_id, turn),
            GroupTimer::Join => self.on_join_timer(turn),
            GroupTimer::Sync(generation_id) => self.on_sync_timer(generation_id, turn),
            // A consumer group's: left over from what this group was before.
            GroupTimer::Rebalance(_) | GroupTimer::ClassicJoin(_) | GroupTimer::ClassicSync(_) => {}
        }
    }

    fn on_silence(&mut self, member_id: &str, turn: &mut Turn<'_>) {
        if self.state == ClassicState::Dead || self.members.get(member_id).is_some_and(|member| member.counts_as_alive()) {
            return;
        }
        let was_pending = self.pending_join.contains(member_id);
        if !was_pending && !self.members.contains_key(member_id) {
            return;
        }
        tracing::info!(group = ?self.id, member = ?member_id, was_pending, "member was silent for its session timeout, removing it");
        self.remove(member_id, turn);
        if self.state == ClassicState::PreparingRebalance {
            if self.has_all_members_joined() {
                self.complete_join(turn);
            }
        } else if !was_pending {
            self.rebalance_or_complete_join("a member was silent for its session timeout", turn);
        }
    }

    fn on_join_timer(&mut self, turn: &mut Turn<'_>) {
        if self.state != ClassicState::PreparingRebalance {
            return;
        }
        match self.initial_delay {
            Some(InitialDelay { delay_ms, remaining_ms }) if self.new_member_added && remaining_ms != 0 => {
                self.new_member_added = false;
                let next_ms = turn.config.group_initial_rebalance_delay_ms.min(remaining_ms);
                let remaining_ms = remaining_ms.saturating_sub(delay_ms).max(0);
                self.initial_delay = Some(InitialDelay { delay_ms: next_ms, remaining_ms });
                turn.set_timer(GroupTimer::Join, next_ms);
            }
            _ => self.complete_join(turn),
        }
    }

    fn on_sync_timer(&mut self, generation_id: i32, turn: &mut Turn<'_>) {
        let expected = matches!(self.state, ClassicState::CompletingRebalance | ClassicState::Stable);
        if generation_id != self.generation_id || !expected || self.pending_sync.is_empty() {
            return;
        }
        let late = std::mem::take(&mut self.pending_sync);
        tracing::info!(group = ?self.id, members = ?late, "members did not send SyncGroup in time, removing them");
        for member_id in &late {
            self.remove(member_id, turn);
        }
        self.prepare_rebalance("members did not send SyncGroup in time", turn);
    }

    /// Takes a member out, answering what it waits for.
    pub(super) fn remove(&mut self, member_id: &str, turn: &mut Turn<'_>) {
        if self.pending_join.remove(member_id) {
            turn.cancel_timer(GroupTimer::Heartbeat(member_id.into()));
        }
        self.pending_sync.remove(member_id);
        let Some(member) = self.members.shift_remove(member_id) else { return };
        turn.cancel_timer(GroupTimer::Heartbeat(member_id.into()));
        if let Some(instance_id) = &member.group_instance_id {
            self.static_members.remove(instance_id);
        }
        if self.is_leader(member_id) {
            self.leader = self.members.keys().next().cloned();
        }
        // The client joins again if it is still there.
        if let Some(waiter) = member.awaiting_join {
            turn.reply_join(waiter, JoinResponse::refused("", GroupError::UnknownMemberId));
        }
        if let Some(waiter) = member.awaiting_sync {
            turn.reply_sync(waiter, SyncResponse::refused(GroupError::UnknownMemberId));
        }
    }

    /// Ends the join phase: dynamic members that did not come are out, the others get the new generation.
    fn complete_join(&mut self, turn: &mut Turn<'_>) {
        turn.cancel_timer(GroupTimer::Join);
        let missing = |member: &&super::Member| member.awaiting_join.is_none() && member.group_instance_id.is_none();
        let late: Vec<String> = self.members.values().filter(missing).map(|member| member.id.clone()).collect();
        if !late.is_empty() {
            tracing::info!(group = ?self.id, members = ?late, "members did not join again in time, removing them");
        }
        for member_id in &late {
            self.remove(member_id, turn);
        }
        if !self.elect_joined_leader() && !self.members.is_empty() {
            // Only silent static members are left: wait on until their sessions end.
            tracing::warn!(group = ?self.id, "no member joined again, waiting for the static members");
            turn.set_timer(GroupTimer::Join, self.rebalance_timeout_ms());
            return;
        }
        self.initial_delay = None;
        self.new_member_added = false;
        self.start_generation(turn);
    }

    /// True if the leader has joined, or a member that has takes its place.
    fn elect_joined_leader(&mut self) -> bool {
        let joined = |id: &String| self.members.get(id).is_some_and(|member| member.awaiting_join.is_some());
        if self.leader.as_ref().is_some_and(joined) {
            return true;
        }
        let next = self.members.values().find(|member| member.awaiting_join.is_some()).map(|member| member.id.clone());
        match next {
            Some(next) => {
                self.leader = Some(next);
                true
            }
            None => false,
        }
    }

    fn start_generation(&mut self, turn: &mut Turn<'_>) {
        self.generation_id = self.generation_id.checked_add(1).unwrap_or(0);
        self.protocol_name = self.select_protocol();
        self.subscribed_topics = self.compute_subscribed_topics();
        self.pending_sync.clear();
        if self.members.is_empty() {
            self.transition_to(ClassicState::Empty, turn.now_ms);
            tracing::info!(group = ?self.id, generation = self.generation_id, "group is now empty");
            let metadata = self.to_metadata(|member| member.assignment.clone());
            turn.actions.push(Action::Write(metadata, WriteDone::Emptied));
            return;
        }
        self.transition_to(ClassicState::CompletingRebalance, turn.now_ms);
        tracing::info!(
            group = ?self.id, generation = self.generation_id, members = self.members.len(), protocol = ?self.protocol_name,
            "group has a new generation, waiting for its leader's assignment"
        );
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for member_id in ids {
            let waiter = self.members.get_mut(&member_id).and_then(|member| {
                member.is_new = false;
                member.awaiting_join.take()
            });
            if let Some(waiter) = waiter {
                turn.reply_join(waiter, self.joined(&member_id));
            }
            self.reset_heartbeat(&member_id, turn);
            self.pending_sync.insert(member_id);
        }
        turn.set_timer(GroupTimer::Sync(self.generation_id), self.rebalance_timeout_ms());
    }
}
