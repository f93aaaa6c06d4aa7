//! A classic group that was a consumer group, or becomes one (KIP-848).

use std::sync::Arc;

use super::{ClassicGroup, ClassicState, Member, Turn};
use crate::consumer_protocol;
use crate::error::GroupError;
use crate::messages::{JoinResponse, SyncResponse};
use crate::records::GroupMetadata;
use crate::timers::GroupTimer;

impl ClassicGroup {
    /// The group that a consumer group becomes when only members of the classic protocol are left; they keep their assignments.
    pub(crate) fn from_consumers(id: Arc<str>, generation_id: i32, members: Vec<Member>, now_ms: i64) -> Self {
        let mut group = Self::new(id, now_ms);
        group.state = ClassicState::Stable;
        group.protocol_type = Some(consumer_protocol::PROTOCOL_TYPE.to_owned());
        group.generation_id = generation_id;
        for member in members {
            if let Some(instance_id) = &member.group_instance_id {
                group.static_members.insert(instance_id.clone(), member.id.clone());
            }
            group.leader.get_or_insert_with(|| member.id.clone());
            group.members.insert(member.id.clone(), member);
        }
        group.protocol_name = group.select_protocol();
        group.subscribed_topics = group.compute_subscribed_topics();
        group
    }

    /// A group that just became a classic one: its members' sessions begin, and they must join anew if there is a reason.
    pub(crate) fn on_converted(&mut self, rebalance: Option<&str>, turn: &mut Turn<'_>) {
        for member_id in self.members.keys() {
            self.reset_heartbeat(member_id, turn);
        }
        if let Some(reason) = rebalance {
            self.prepare_rebalance(reason, turn);
        }
    }

    /// The group becomes a consumer group: who waits must come again, and its timers end.
    pub(crate) fn give_way(&mut self, turn: &mut Turn<'_>) {
        for timer in self.idle_timers().chain([GroupTimer::Sync(self.generation_id)]).collect::<Vec<_>>() {
            turn.cancel_timer(timer);
        }
        for (id, member) in &mut self.members {
            turn.cancel_timer(GroupTimer::Heartbeat(id.as_str().into()));
            if let Some(waiter) = member.awaiting_join.take() {
                turn.reply_join(waiter, JoinResponse::refused(id.as_str(), GroupError::RebalanceInProgress));
            }
            if let Some(waiter) = member.awaiting_sync.take() {
                turn.reply_sync(waiter, SyncResponse::refused(GroupError::RebalanceInProgress));
            }
        }
    }

    /// The group's record as it stands.
    pub(crate) fn metadata(&self) -> GroupMetadata {
        self.to_metadata(|member| member.assignment.clone())
    }

    pub(crate) fn members(&self) -> impl ExactSizeIterator<Item = &Member> {
        self.members.values()
    }

    pub(crate) fn generation_id(&self) -> i32 {
        self.generation_id
    }

    pub(crate) fn protocol_name(&self) -> Option<&str> {
        self.protocol_name.as_deref()
    }
}
