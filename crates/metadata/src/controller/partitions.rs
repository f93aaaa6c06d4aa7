//! Leader election and the ISR of one partition (I9, I11, I12, I14).

use std::collections::BTreeMap;

use siltstone_common::TopicIdPartition;

use super::{Decision, View};
use crate::api::MetadataError;
use crate::image::{ImageChange, MetadataImage, PartitionImage, TopicImage};

/// What happened to brokers, as far as a partition cares.
#[derive(Copy, Clone)]
pub(super) struct Cause<'a> {
    /// True for brokers that may lead and be in sync.
    pub(super) active: &'a dyn Fn(i32) -> bool,
    /// This broker stopped uncleanly: what it acknowledged may be lost on it (I14).
    pub(super) unclean: Option<i32>,
    /// This broker must hand over (it is fenced or starts anew).
    pub(super) leaving: Option<i32>,
}

/// The partition after `cause`; `None` if nothing changes.
pub(super) fn settle(partition: &PartitionImage, min_isr: usize, cause: Cause<'_>) -> Option<PartitionImage> {
    let stays = |broker: &i32| Some(*broker) != cause.leaving && Some(*broker) != cause.unclean;
    let mut next = partition.clone();
    next.isr.retain(stays);
    populate_elr(&mut next, partition, min_isr, cause.unclean);
    let can_lead = |broker: i32| stays(&broker) && (cause.active)(broker);
    elect(&mut next, &can_lead);
    if next.leader < 0 && next.isr.is_empty() && next.elr.is_empty() && partition.leader >= 0 {
        next.last_known_leader = partition.leader;
    } else if next.leader < 0 && next.isr.is_empty() && next.elr.is_empty() && partition.last_known_leader < 0 {
        // The last eligible replica came back without its clean-shutdown marker.
        next.last_known_leader = cause.unclean.unwrap_or(-1);
    } else if next.leader >= 0 {
        next.last_known_leader = -1;
    }
    finish(partition, next)
}

/// Raises the epochs as the changes ask; `None` if nothing changed.
pub(super) fn finish(before: &PartitionImage, mut next: PartitionImage) -> Option<PartitionImage> {
    if next == *before {
        return None;
    }
    next.partition_epoch = before.partition_epoch.saturating_add(1);
    if next.leader != before.leader {
        next.leader_epoch = before.leader_epoch.saturating_add(1);
    }
    Some(next)
}

/// KIP-966: while the ISR is smaller than `min.insync.replicas`, members that drop out stay eligible, as they hold all that was acknowledged.
fn populate_elr(next: &mut PartitionImage, before: &PartitionImage, min_isr: usize, unclean: Option<i32>) {
    let enough = min_isr.min(next.replicas.len());
    if next.isr.len() >= enough {
        next.elr.clear();
        return;
    }
    let mut elr: Vec<i32> =
        before.elr.iter().chain(&before.isr).copied().filter(|id| !next.isr.contains(id) && Some(*id) != unclean).collect();
    elr.sort_unstable();
    elr.dedup();
    next.elr = elr;
}

/// What a lower `min.insync.replicas` asks for: where the ISR now suffices alone, the leader may acknowledge what the ELR does not hold.
pub(super) fn clear_elr(topic: &TopicImage, min_isr: usize) -> Option<ImageChange> {
    let cleared = (0..).zip(&topic.partitions).filter(|(_, partition)| !partition.elr.is_empty()).filter_map(|(index, partition)| {
        let mut next = partition.clone();
        populate_elr(&mut next, partition, min_isr, None);
        Some((index, finish(partition, next)?))
    });
    let partitions: BTreeMap<i32, PartitionImage> = cleared.collect();
    (!partitions.is_empty()).then_some(ImageChange::Partitions { topic: topic.id, partitions })
}

/// Keeps the leader if it may stay, else elects from the ISR, then the ELR, then the last known leader (I12).
fn elect(next: &mut PartitionImage, can_lead: &dyn Fn(i32) -> bool) {
    if next.isr.contains(&next.leader) && can_lead(next.leader) {
        return;
    }
    let in_sync = next.replicas.iter().copied().find(|id| next.isr.contains(id) && can_lead(*id));
    if let Some(leader) = in_sync {
        next.leader = leader;
        return;
    }
    if next.isr.is_empty() {
        let eligible = next.replicas.iter().copied().find(|id| next.elr.contains(id) && can_lead(*id));
        let last_known = Some(next.last_known_leader).filter(|id| next.elr.is_empty() && *id >= 0 && can_lead(*id));
        if let Some(leader) = eligible.or(last_known) {
            next.leader = leader;
            next.isr = vec![leader];
            next.elr.retain(|id| *id != leader);
            return;
        }
    }
    next.leader = -1;
}

/// Settles every partition that `cause` touches.
pub(super) fn settle_all(view: View<'_>, cause: Cause<'_>, touched: impl Fn(&PartitionImage) -> bool) -> Vec<ImageChange> {
    let mut topics: Vec<&TopicImage> = view.image.topics.values().map(|topic| &**topic).collect();
    topics.sort_unstable_by_key(|topic| topic.id);
    let mut changes = Vec::new();
    for topic in topics {
        let min_isr = view.min_insync_replicas(&topic.configs);
        let changed: BTreeMap<i32, PartitionImage> = (0..)
            .zip(&topic.partitions)
            .filter(|(_, partition)| touched(partition))
            .filter_map(|(index, partition)| Some((index, settle(partition, min_isr, cause)?)))
            .collect();
        for (index, next) in &changed {
            log_election(view.image, topic, *index, next);
        }
        if !changed.is_empty() {
            changes.push(ImageChange::Partitions { topic: topic.id, partitions: changed });
        }
    }
    changes
}

pub(super) fn log_election(image: &MetadataImage, topic: &TopicImage, partition: i32, next: &PartitionImage) {
    let before = image.partition(TopicIdPartition::new(topic.id, partition));
    let Some(before) = before.filter(|before| before.leader != next.leader) else { return };
    let unclean = next.leader >= 0 && !before.isr.contains(&next.leader) && !before.elr.contains(&next.leader);
    if unclean && next.replicas.len() > 1 {
        tracing::warn!(
            topic = topic.name,
            partition,
            leader = next.leader,
            leader_epoch = next.leader_epoch,
            revision = image.revision,
            "unclean election of the last known leader: records that only lost replicas had are gone"
        );
    }
}

/// A leader's proposal of a new ISR, compared and set on (leader epoch, partition epoch) (I11, I13); the new partition epoch.
pub(crate) fn alter_isr(
    view: View<'_>,
    id: TopicIdPartition,
    leader_epoch: i32,
    partition_epoch: i32,
    isr: Vec<i32>,
) -> Result<Decision<i32>, MetadataError> {
    let topic = view.image.topic_by_id(id.topic_id).ok_or(MetadataError::UnknownTopicId(id.topic_id))?;
    let unknown = || MetadataError::UnknownTopic(format!("{}-{}", topic.name, id.partition));
    let partition = view.image.partition(id).ok_or_else(unknown)?;
    if leader_epoch < partition.leader_epoch {
        return Err(MetadataError::FencedLeaderEpoch);
    }
    if leader_epoch > partition.leader_epoch || partition_epoch != partition.partition_epoch {
        return Err(MetadataError::Conflict(format!(
            "partition {id} is at leader epoch {}, partition epoch {}",
            partition.leader_epoch, partition.partition_epoch
        )));
    }
    let mut sorted = isr.clone();
    sorted.sort_unstable();
    sorted.dedup();
    if sorted.len() != isr.len() || isr.is_empty() || isr.iter().any(|id| !partition.replicas.contains(id)) {
        return Err(MetadataError::InvalidRequest(format!("isr {isr:?} is no set of the replicas {:?}", partition.replicas)));
    }
    if !isr.contains(&partition.leader) {
        return Err(MetadataError::InvalidRequest(format!("isr {isr:?} does not contain the leader {}", partition.leader)));
    }
    if let Some(fenced) = isr.iter().find(|id| !partition.isr.contains(id) && !view.is_active(**id)) {
        return Err(MetadataError::Conflict(format!("broker {fenced} is fenced and can't join the isr")));
    }
    let mut next = partition.clone();
    next.isr = isr;
    populate_elr(&mut next, partition, view.min_insync_replicas(&topic.configs), None);
    match finish(partition, next) {
        None => Ok(Decision::new(Vec::new(), partition.partition_epoch)),
        Some(next) => {
            let epoch = next.partition_epoch;
            let partitions = BTreeMap::from([(id.partition, next)]);
            Ok(Decision::new(vec![ImageChange::Partitions { topic: id.topic_id, partitions }], epoch))
        }
    }
}
