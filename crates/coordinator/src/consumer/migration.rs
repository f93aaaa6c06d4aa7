//! Groups that change between the classic and the consumer protocol while they run (KIP-848).

use super::member::{ClassicProfile, CurrentAssignment, MemberProfile, at_epoch};
use super::{ConsumerGroup, ConsumerMember, ConsumerRecord, Turn};
use crate::assignor::Assignment;
use crate::classic::{ClassicGroup, Member};
use crate::cluster::ClusterView;
use crate::config::{GroupCoordinatorConfig, MigrationPolicy};
use crate::consumer_protocol::{self, NamedPartitions};
use crate::error::GroupError;
use crate::messages::{Refusal, TopicPartitions};

/// The classic group that a consumer group becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Downgrade {
    pub(crate) group: ClassicGroup,
    /// Why its members must join anew, if they must.
    pub(crate) rebalance: Option<String>,
}

/// Partitions by topic id; topics that do not exist are left out.
pub(super) fn by_id(partitions: &NamedPartitions, cluster: &dyn ClusterView) -> Assignment {
    let known = partitions.iter().filter_map(|(topic, partitions)| Some((cluster.topic(topic)?.id, partitions.iter().copied().collect())));
    known.collect()
}

/// Partitions by topic name; topics that do not exist are left out.
pub(super) fn by_name(partitions: &Assignment, cluster: &dyn ClusterView) -> NamedPartitions {
    let known = partitions.iter().filter_map(|(topic, partitions)| {
        let topic = cluster.topic_by_id(*topic)?;
        Some((topic.name.to_owned(), partitions.iter().copied().collect()))
    });
    known.collect()
}

/// What a member says that it owns.
pub(super) fn reported(owned: &NamedPartitions, cluster: &dyn ClusterView) -> Vec<TopicPartitions> {
    let known = owned
        .iter()
        .filter_map(|(topic, partitions)| Some(TopicPartitions { topic_id: cluster.topic(topic)?.id, partitions: partitions.clone() }));
    known.collect()
}

impl ConsumerGroup {
    /// A live classic group of consumers as a consumer group: its generation becomes the epoch, everybody keeps what they have.
    /// The group and the records that make it.
    ///
    /// # Errors
    /// GROUP_ID_NOT_FOUND if the settings or the members' own metadata do not allow it.
    pub(crate) fn from_classic(
        classic: &ClassicGroup,
        config: &GroupCoordinatorConfig,
        cluster: &dyn ClusterView,
    ) -> Result<(Self, Vec<ConsumerRecord>), Refusal> {
        let refused = |why: &str| {
            let message = format!("Cannot upgrade classic group {} to consumer group because {why}.", classic.id());
            Err(Refusal::new(GroupError::GroupIdNotFound, message))
        };
        if !config.consumer_migration_policy.allows_upgrade() {
            return refused("online upgrade is disabled");
        }
        if !classic.uses_consumer_protocol() {
            return refused("the group does not use the consumer embedded protocol");
        }
        if classic.members().len() > config.consumer_group_max_size {
            return refused("the group size exceeds the consumer group maximum size");
        }
        let mut members = Vec::with_capacity(classic.members().len());
        for member in classic.members() {
            match upgraded_member(classic, member, cluster) {
                Ok(member) => members.push(member),
                Err(why) => return refused(why),
            }
        }
        let mut group = Self::new(classic.id().clone());
        let records = group.apply_upgraded(members, classic.generation_id(), cluster);
        Ok((group, records))
    }

    fn apply_upgraded(&mut self, members: Vec<ConsumerMember>, epoch: i32, cluster: &dyn ClusterView) -> Vec<ConsumerRecord> {
        let mut records = Vec::with_capacity(3 * members.len() + 2);
        let mut take = |group: &mut Self, record: ConsumerRecord| {
            group.apply(record.clone());
            records.push(record);
        };
        for member in &members {
            let profile = Some(Box::new(member.profile.clone()));
            take(self, ConsumerRecord::Member { member_id: member.id.clone(), profile });
        }
        let hash = self.subscriptions.metadata_hash(cluster);
        take(self, ConsumerRecord::Epoch(Some((epoch, hash))));
        for member in &members {
            let target = Some(super::member::partitions_of(&member.current.assigned));
            take(self, ConsumerRecord::Target { member_id: member.id.clone(), target });
        }
        take(self, ConsumerRecord::TargetEpoch(Some((epoch, 0))));
        for member in members {
            take(self, ConsumerRecord::Current { member_id: member.id, current: Some(Box::new(member.current)) });
        }
        records
    }

    /// The sessions of a group that has just become a consumer group.
    pub(crate) fn start_classic_sessions(&self, turn: &mut Turn<'_>) {
        for member in self.members.values() {
            if let Some(classic) = &member.profile.classic {
                turn.set_timer(crate::timers::GroupTimer::Heartbeat(member.id.clone()), classic.session_timeout_ms);
            }
        }
    }

    pub(super) fn can_downgrade_without(&self, leaving: &[&ConsumerMember], turn: &Turn<'_>) -> bool {
        let remaining = self.members.len() - leaving.len();
        let leaving_classic = leaving.iter().filter(|member| member.uses_classic_protocol()).count();
        let remaining_classic = self.subscriptions.classic_members() - leaving_classic;
        remaining > 0 && remaining_classic == remaining && self.may_downgrade(remaining, turn)
    }

    /// True if a classic member takes the place of the only member that speaks the consumer protocol.
    pub(super) fn can_downgrade_replacing(&self, replaced: &ConsumerMember, turn: &Turn<'_>) -> bool {
        let all_others_classic = self.subscriptions.classic_members() + 1 == self.members.len();
        all_others_classic && !replaced.uses_classic_protocol() && self.may_downgrade(self.members.len(), turn)
    }

    fn may_downgrade(&self, size: usize, turn: &Turn<'_>) -> bool {
        turn.config.consumer_migration_policy.allows_downgrade() && size <= turn.config.group_max_size
    }

    pub(super) fn downgrade_without(&self, leaving: &[&ConsumerMember], reason: &str, turn: &mut Turn<'_>) {
        let members = self.members.values().filter(|member| !leaving.iter().any(|leaving| leaving.id == member.id));
        let members = members.map(|member| (member.clone(), self.targets.get(&member.id).cloned().unwrap_or_default())).collect();
        turn.records.extend(self.tombstones());
        self.become_classic(members, Some(reason.to_owned()), turn);
    }

    /// `joining` has taken the place of `replaced`, whose records are already deleted and its own written.
    pub(super) fn downgrade_replacing(
        &self,
        replaced: &ConsumerMember,
        joining: ConsumerMember,
        rebalance: Option<String>,
        turn: &mut Turn<'_>,
    ) {
        let mut after = self.clone();
        turn.records.iter().for_each(|record| after.apply(record.clone()));
        turn.records.extend(after.tombstones());
        let target = self.targets.get(&replaced.id).cloned().unwrap_or_default();
        let others = self.members.values().filter(|member| member.id != replaced.id);
        let others = others.map(|member| (member.clone(), self.targets.get(&member.id).cloned().unwrap_or_default()));
        self.become_classic(others.chain([(joining, target)]).collect(), rebalance, turn);
    }

    fn become_classic(&self, members: Vec<(ConsumerMember, Assignment)>, rebalance: Option<String>, turn: &mut Turn<'_>) {
        tracing::info!(group = ?self.id, members = members.len(), "consumer group becomes a classic group");
        self.members.keys().for_each(|member_id| turn.cancel_all_timers(member_id));
        let members = members.into_iter().filter_map(|(member, target)| classic_member(member, &target, turn.cluster));
        let group = ClassicGroup::from_consumers(self.id.clone(), self.epoch, members.collect(), turn.now_ms);
        turn.downgrade = Some(Downgrade { group, rebalance });
    }

    /// Whether members of the classic protocol may join.
    pub(super) fn admits_classic_members(&self, turn: &Turn<'_>) -> bool {
        turn.config.consumer_migration_policy != MigrationPolicy::Disabled
    }
}

/// A member of a classic group as one of a consumer group; or why that can't be.
fn upgraded_member(classic: &ClassicGroup, member: &Member, cluster: &dyn ClusterView) -> Result<ConsumerMember, &'static str> {
    const MALFORMED: &str = "the embedded consumer protocol is malformed";
    let epoch = classic.generation_id();
    let assigned = if member.assignment.is_empty() {
        Assignment::new()
    } else {
        let assignment = consumer_protocol::read_assignment(&member.assignment).ok_or(MALFORMED)?;
        if assignment.has_user_data {
            return Err("an unsupported custom assignor is in use. Switch to a default assignor before re-attempting the upgrade");
        }
        by_id(&assignment.partitions, cluster)
    };
    let metadata = member.metadata(classic.protocol_name().unwrap_or_default());
    let subscription = consumer_protocol::read_subscription(&metadata).ok_or(MALFORMED)?;
    let profile = MemberProfile {
        instance_id: member.group_instance_id.clone(),
        rack_id: subscription.rack_id,
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        subscribed_topics: subscription.topics.into_iter().collect(),
        rebalance_timeout_ms: member.rebalance_timeout_ms,
        classic: Some(ClassicProfile { session_timeout_ms: member.session_timeout_ms, protocols: member.protocols.clone() }),
        ..MemberProfile::default()
    };
    let current = CurrentAssignment { epoch, previous_epoch: epoch, assigned: at_epoch(&assigned, epoch), ..CurrentAssignment::default() };
    Ok(ConsumerMember { id: member.id.as_str().into(), profile, current })
}

/// A classic member of a consumer group as one of a classic group, with its target as its assignment.
fn classic_member(member: ConsumerMember, target: &Assignment, cluster: &dyn ClusterView) -> Option<Member> {
    let profile = member.profile;
    let classic = profile.classic?;
    let version = classic.protocols.first().and_then(|protocol| consumer_protocol::read_subscription(&protocol.metadata));
    let assignment = consumer_protocol::write_assignment(version.map_or(0, |read| read.version), &by_name(target, cluster));
    Some(Member {
        id: member.id.to_string(),
        group_instance_id: profile.instance_id,
        client_id: profile.client_id,
        client_host: profile.client_host,
        rebalance_timeout_ms: profile.rebalance_timeout_ms,
        session_timeout_ms: classic.session_timeout_ms,
        protocols: classic.protocols,
        assignment,
        awaiting_join: None,
        awaiting_sync: None,
        is_new: false,
    })
}
