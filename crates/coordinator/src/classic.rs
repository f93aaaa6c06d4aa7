//! The classic group protocol as a state machine: no clock, no log, no tasks.
//!
//! ```text
//!            join                  all joined, or time is over          leader's assignment is written
//!   Empty ────────► PreparingRebalance ────────► CompletingRebalance ────────► Stable
//!     ▲                │      ▲                        │   member joins, leaves,   │
//!     └────────────────┘      └────────────────────────┴───── or falls silent ─────┘
//!       nobody is left
//! ```
//! Every event takes a [`Turn`], which gives the time and collects what is to be done: answers, timers, and records to be written.
//! The answer to a leader's SyncGroup goes out only when its record is committed ([`ClassicGroup::on_written`]), so members never act on an
//! assignment that a crash could take back (I21). Events go on while a write is under way; its end is ignored if the
//! group has moved on.
//!
//! Invariants: in `Stable` and `CompletingRebalance` every member has a metadata for the chosen protocol; a member waits for at most one JoinGroup
//! and one SyncGroup, and a member that is removed or replaced has its waiting requests answered.

mod join;
mod leave;
mod member;
mod migration;
mod rebalance;
mod sync;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use indexmap::IndexMap;

use crate::config::GroupCoordinatorConfig;
use crate::consumer_protocol;
use crate::driver::WaiterId;
use crate::error::GroupError;
use crate::messages::{DescribedGroup, DescribedMember, JoinResponse, ListedGroup, Protocol, SyncResponse};
use crate::records::{GroupMetadata, MemberMetadata};
use crate::timers::GroupTimer;
pub(crate) use member::Member;

/// Kafka's states of a classic group.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum ClassicState {
    Empty,
    PreparingRebalance,
    CompletingRebalance,
    Stable,
    /// Its tombstone is being written.
    Dead,
}

impl ClassicState {
    /// Kafka's name of it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
            Self::Dead => "Dead",
        }
    }
}

/// What a group wants done after an event, in this order.
#[derive(Debug)]
pub(crate) enum Action {
    ReplyJoin(WaiterId, JoinResponse),
    ReplySync(WaiterId, SyncResponse),
    SetTimer(GroupTimer, Duration),
    CancelTimer(GroupTimer),
    Write(GroupMetadata, WriteDone),
}

/// What a write was for; comes back with its end.
#[derive(Clone, Debug)]
pub(crate) enum WriteDone {
    /// The group is new.
    Created,
    /// The last member has gone.
    Emptied,
    /// The leader's assignment, by member id.
    Assigned { generation_id: i32, assignments: HashMap<String, Bytes> },
    /// A static member came back under a new id (KIP-345); the rest is what it takes to go back.
    StaticReplaced(Box<StaticReplaced>),
}

/// See [`WriteDone::StaticReplaced`].
#[derive(Clone, Debug)]
pub(crate) struct StaticReplaced {
    pub(crate) old_member: Member,
    pub(crate) new_member_id: String,
    pub(crate) old_leader: Option<String>,
    pub(crate) supports_skipping_assignment: bool,
}

/// One event's surroundings.
pub(crate) struct Turn<'a> {
    /// Monotonic.
    pub(crate) now: Duration,
    /// Wall clock, for timestamps that users see.
    pub(crate) now_ms: i64,
    pub(crate) config: &'a GroupCoordinatorConfig,
    pub(crate) actions: Vec<Action>,
}

impl<'a> Turn<'a> {
    pub(crate) fn new(now: Duration, now_ms: i64, config: &'a GroupCoordinatorConfig) -> Self {
        Self { now, now_ms, config, actions: Vec::new() }
    }

    fn reply_join(&mut self, waiter: WaiterId, response: JoinResponse) {
        self.actions.push(Action::ReplyJoin(waiter, response));
    }

    fn reply_sync(&mut self, waiter: WaiterId, response: SyncResponse) {
        self.actions.push(Action::ReplySync(waiter, response));
    }

    fn set_timer(&mut self, timer: GroupTimer, delay_ms: i32) {
        let delay = Duration::from_millis(u64::try_from(delay_ms).unwrap_or(0));
        self.actions.push(Action::SetTimer(timer, self.now + delay));
    }

    fn cancel_timer(&mut self, timer: GroupTimer) {
        self.actions.push(Action::CancelTimer(timer));
    }
}

/// The rest of an initial rebalance's delay, which grows while members keep coming.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
struct InitialDelay {
    delay_ms: i32,
    remaining_ms: i32,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClassicGroup {
    id: Arc<str>,
    state: ClassicState,
    previous_state: ClassicState,
    /// When `state` was entered, as far as it is known.
    state_timestamp_ms: Option<i64>,
    protocol_type: Option<String>,
    protocol_name: Option<String>,
    generation_id: i32,
    leader: Option<String>,
    members: IndexMap<String, Member>,
    /// Member ids by `group.instance.id`.
    static_members: HashMap<String, String>,
    /// Ids given out that were not used yet (KIP-394).
    pending_join: HashSet<String>,
    /// Members of this generation that have not sent SyncGroup.
    pending_sync: BTreeSet<String>,
    /// `None` if they can't be known.
    subscribed_topics: Option<HashSet<String>>,
    initial_delay: Option<InitialDelay>,
    /// A member came during the initial delay.
    new_member_added: bool,
}

impl ClassicGroup {
    /// A group without members.
    pub(crate) fn new(id: Arc<str>, now_ms: i64) -> Self {
        Self {
            id,
            state: ClassicState::Empty,
            previous_state: ClassicState::Dead,
            state_timestamp_ms: Some(now_ms),
            protocol_type: None,
            protocol_name: None,
            generation_id: 0,
            leader: None,
            members: IndexMap::new(),
            static_members: HashMap::new(),
            pending_join: HashSet::new(),
            pending_sync: BTreeSet::new(),
            subscribed_topics: None,
            initial_delay: None,
            new_member_added: false,
        }
    }

    /// The group as its newest record describes it.
    pub(crate) fn from_metadata(id: Arc<str>, metadata: GroupMetadata, now_ms: i64) -> Self {
        let mut group = Self::new(id, now_ms);
        group.state_timestamp_ms = Some(metadata.current_state_timestamp_ms).filter(|timestamp| *timestamp != -1);
        group.protocol_type = Some(metadata.protocol_type).filter(|kind| !kind.is_empty());
        group.protocol_name = metadata.protocol;
        group.generation_id = metadata.generation;
        group.leader = metadata.leader;
        for member in metadata.members {
            let member = Member::from_metadata(member, group.protocol_name.as_deref().unwrap_or_default());
            if let Some(instance_id) = &member.group_instance_id {
                group.static_members.insert(instance_id.clone(), member.id.clone());
            }
            group.leader.get_or_insert_with(|| member.id.clone());
            group.members.insert(member.id.clone(), member);
        }
        if !group.members.is_empty() {
            group.state = ClassicState::Stable;
        }
        group.subscribed_topics = group.compute_subscribed_topics();
        group
    }

    /// The group's record, with `assignments` for its members.
    fn to_metadata(&self, assignment_of: impl Fn(&Member) -> Bytes) -> GroupMetadata {
        let protocol = self.protocol_name.as_deref();
        let members = self.members.values().map(|member| MemberMetadata {
            member_id: member.id.clone(),
            group_instance_id: member.group_instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            session_timeout_ms: member.session_timeout_ms,
            subscription: member.metadata(protocol.unwrap_or_default()),
            assignment: assignment_of(member),
        });
        GroupMetadata {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation_id,
            protocol: self.protocol_name.clone(),
            leader: self.leader.clone(),
            current_state_timestamp_ms: self.state_timestamp_ms.unwrap_or(-1),
            members: members.collect(),
        }
    }

    pub(crate) fn state(&self) -> ClassicState {
        self.state
    }

    pub(crate) fn id(&self) -> &Arc<str> {
        &self.id
    }

    pub(crate) fn state_timestamp_ms(&self) -> Option<i64> {
        self.state_timestamp_ms
    }

    pub(crate) fn has_protocol_type(&self) -> bool {
        self.protocol_type.is_some()
    }

    pub(crate) fn uses_consumer_protocol(&self) -> bool {
        self.protocol_type.as_deref() == Some(consumer_protocol::PROTOCOL_TYPE)
    }

    pub(crate) fn knows_subscribed_topics(&self) -> bool {
        self.subscribed_topics.is_some()
    }

    /// A consumer group whose subscriptions can't be read counts as subscribed to everything.
    pub(crate) fn is_subscribed_to(&self, topic: &str) -> bool {
        self.subscribed_topics.as_ref().map_or(self.uses_consumer_protocol(), |topics| topics.contains(topic))
    }

    /// Marks a group without members as being deleted, or takes that back.
    pub(crate) fn set_dead(&mut self, dead: bool) {
        assert!(matches!(self.state, ClassicState::Empty | ClassicState::Dead), "only an empty group dies");
        self.state = if dead { ClassicState::Dead } else { ClassicState::Empty };
    }

    /// The timers that may be set for an empty group.
    pub(crate) fn idle_timers(&self) -> impl Iterator<Item = GroupTimer> {
        self.pending_join.iter().map(|id| GroupTimer::Heartbeat(id.as_str().into())).chain([GroupTimer::Join])
    }

    fn is_leader(&self, member_id: &str) -> bool {
        self.leader.as_deref() == Some(member_id)
    }

    fn rebalance_timeout_ms(&self) -> i32 {
        self.members.values().map(|member| member.rebalance_timeout_ms).max().unwrap_or(0)
    }

    fn awaiting_join_count(&self) -> usize {
        self.members.values().filter(|member| member.awaiting_join.is_some()).count()
    }

    fn has_all_members_joined(&self) -> bool {
        self.pending_join.is_empty() && self.members.values().all(|member| member.awaiting_join.is_some())
    }

    fn transition_to(&mut self, state: ClassicState, now_ms: i64) {
        self.previous_state = self.state;
        self.state = state;
        self.state_timestamp_ms = Some(now_ms);
    }

    /// Fences (I21): an instance id that another member has, then an unknown member.
    fn validate_member(&self, member_id: &str, group_instance_id: Option<&str>) -> Result<(), GroupError> {
        if let Some(instance_id) = group_instance_id {
            match self.static_members.get(instance_id) {
                None => return Err(GroupError::UnknownMemberId),
                Some(existing) if existing != member_id => {
                    tracing::info!(group = ?self.id, member = ?member_id, instance = ?instance_id, by = ?existing, "member is fenced");
                    return Err(GroupError::FencedInstanceId);
                }
                Some(_) => {}
            }
        }
        if self.members.contains_key(member_id) { Ok(()) } else { Err(GroupError::UnknownMemberId) }
    }

    /// Heartbeat.
    pub(crate) fn heartbeat(
        &mut self,
        member_id: &str,
        group_instance_id: Option<&str>,
        generation_id: i32,
        turn: &mut Turn<'_>,
    ) -> Result<(), GroupError> {
        if self.state == ClassicState::Dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        self.validate_member(member_id, group_instance_id)?;
        if generation_id != self.generation_id {
            return Err(GroupError::IllegalGeneration);
        }
        self.reset_heartbeat(member_id, turn);
        if self.state == ClassicState::PreparingRebalance { Err(GroupError::RebalanceInProgress) } else { Ok(()) }
    }

    /// Whether OffsetCommit may go on; a commit counts as a heartbeat.
    pub(crate) fn validate_commit(
        &mut self,
        member_id: &str,
        group_instance_id: Option<&str>,
        generation_id: i32,
        turn: &mut Turn<'_>,
    ) -> Result<(), GroupError> {
        let is_anonymous = generation_id < 0 && member_id.is_empty() && group_instance_id.is_none();
        if is_anonymous && !matches!(self.state, ClassicState::Dead | ClassicState::Empty) {
            return Err(GroupError::UnknownMemberId);
        }
        self.validate_transactional_commit(member_id, group_instance_id, generation_id)?;
        if self.state == ClassicState::CompletingRebalance {
            return Err(GroupError::RebalanceInProgress);
        }
        self.reset_heartbeat(member_id, turn);
        Ok(())
    }

    /// Whether TxnOffsetCommit may go on. Old producers name neither member nor generation; and a rebalance does not stop a transaction, whose fate
    /// its own coordinator decides.
    pub(crate) fn validate_transactional_commit(
        &self,
        member_id: &str,
        group_instance_id: Option<&str>,
        generation_id: i32,
    ) -> Result<(), GroupError> {
        match self.state {
            ClassicState::Dead => return Err(GroupError::CoordinatorNotAvailable),
            ClassicState::Empty if generation_id < 0 => return Ok(()),
            _ => {}
        }
        if generation_id >= 0 || !member_id.is_empty() || group_instance_id.is_some() {
            self.validate_member(member_id, group_instance_id)?;
            if generation_id != self.generation_id {
                return Err(GroupError::IllegalGeneration);
            }
        }
        Ok(())
    }

    fn reset_heartbeat(&self, member_id: &str, turn: &mut Turn<'_>) {
        if let Some(member) = self.members.get(member_id) {
            turn.set_timer(GroupTimer::Heartbeat(member_id.into()), member.session_timeout_ms);
        }
    }

    /// Starts the timers of a group that was just replayed, and shrinks one that is larger than the limit.
    pub(crate) fn on_loaded(&mut self, turn: &mut Turn<'_>) {
        for member_id in self.members.keys() {
            self.reset_heartbeat(member_id, turn);
        }
        if self.members.len() > turn.config.group_max_size {
            self.prepare_rebalance("the loaded group is larger than group.max.size", turn);
        }
    }

    /// A write has ended.
    pub(crate) fn on_written(&mut self, done: WriteDone, result: Result<(), GroupError>, turn: &mut Turn<'_>) {
        match (done, result) {
            (WriteDone::Created | WriteDone::Emptied, Ok(())) => {}
            // If the broker fails now, the group as it was written before comes back, and members that are no more time out.
            (WriteDone::Created | WriteDone::Emptied, Err(error)) => {
                tracing::warn!(group = ?self.id, %error, "could not write a group without members");
            }
            (WriteDone::Assigned { generation_id, assignments }, result) => self.on_assigned(generation_id, assignments, result, turn),
            (WriteDone::StaticReplaced(replaced), result) => self.on_static_replaced(*replaced, result, turn),
        }
    }

    /// The topics of all members' subscriptions, if this is a consumer group and they can be read.
    fn compute_subscribed_topics(&self) -> Option<HashSet<String>> {
        if !self.uses_consumer_protocol() {
            return None;
        }
        if self.members.is_empty() {
            return Some(HashSet::new());
        }
        let protocol = self.protocol_name.as_deref()?;
        let subscriptions: Vec<Bytes> = self.members.values().map(|member| member.metadata(protocol)).collect();
        consumer_protocol::all_subscribed_topics(subscriptions.iter())
    }

    /// As ListGroups shows it.
    pub(crate) fn list(&self) -> ListedGroup {
        ListedGroup {
            group_id: self.id.to_string(),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            state: self.state.name(),
            group_type: "classic",
        }
    }

    /// As DescribeGroups shows it.
    pub(crate) fn describe(&self) -> DescribedGroup {
        let protocol = self.protocol_name.clone().filter(|_| self.state == ClassicState::Stable);
        let members = self.members.values().map(|member| DescribedMember {
            member_id: member.id.clone(),
            group_instance_id: member.group_instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            metadata: protocol.as_deref().map(|protocol| member.metadata(protocol)).unwrap_or_default(),
            assignment: member.assignment.clone(),
        });
        DescribedGroup {
            state: self.state.name(),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            members: members.collect(),
            protocol_name: protocol.unwrap_or_default(),
        }
    }

    /// Names that all members support.
    fn candidate_protocols(&self) -> HashSet<&str> {
        let mut members = self.members.values();
        let first = members.next().map(Member::protocol_names).unwrap_or_default();
        members.fold(first, |candidates, member| {
            candidates.into_iter().filter(|name| member.protocols.iter().any(|protocol| protocol.name == *name)).collect()
        })
    }

    /// The candidate that most members like best; the earliest voted for among equals.
    fn select_protocol(&self) -> Option<String> {
        let candidates = self.candidate_protocols();
        let mut votes: IndexMap<&str, usize> = IndexMap::new();
        for vote in self.members.values().filter_map(|member| member.vote(&candidates)) {
            *votes.entry(vote).or_default() += 1;
        }
        let most = votes.values().copied().max()?;
        votes.iter().find(|(_, count)| **count == most).map(|(name, _)| (*name).to_owned())
    }

    /// Whether a member with these protocols can be in the group.
    fn supports_protocols(&self, protocol_type: &str, protocols: &[Protocol]) -> bool {
        if self.state == ClassicState::Empty {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        let is_common = |name: &str| self.members.values().all(|member| member.protocols.iter().any(|protocol| protocol.name == name));
        let any_fits = || self.members.is_empty() || protocols.iter().any(|protocol| is_common(&protocol.name));
        self.protocol_type.as_deref() == Some(protocol_type) && !protocols.is_empty() && any_fits()
    }
}
