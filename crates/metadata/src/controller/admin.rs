//! What operators ask for beside topics and settings: quotas, elections, reassignments, features, the end of a broker.

use std::collections::{BTreeMap, BTreeSet};

use siltstone_common::TopicIdPartition;

use super::brokers::fence;
use super::partitions::{finish, log_election};
use super::{Decision, View};
use crate::api::{AdminChange, Election, MetadataError};
use crate::image::{ImageChange, PartitionImage, TopicImage};
use crate::{features, quotas};

/// Decides on one change.
pub(crate) fn administer(view: View<'_>, change: AdminChange) -> Result<Decision<()>, MetadataError> {
    match change {
        AdminChange::Quotas { entity, ops } => {
            let current = view.image.quotas.get(&entity).cloned().unwrap_or_default();
            let quotas = quotas::altered(&entity, &current, ops)?;
            let change = (quotas != current).then_some(ImageChange::Quotas { entity, quotas });
            Ok(Decision::new(change.into_iter().collect(), ()))
        }
        AdminChange::ElectLeader { id, election } => elect_leader(view, id, election),
        AdminChange::Reassign { id, replicas: None, .. } => {
            find(view, id)?;
            // A move is over as soon as it is decided (see `reassign`): there is never one to call off.
            Err(MetadataError::NoReassignment)
        }
        AdminChange::Reassign { id, replicas: Some(replicas), allow_replication_factor_change } => {
            reassign(view, id, replicas, allow_replication_factor_change)
        }
        AdminChange::UnregisterBroker(id) => unregister(view, id),
        AdminChange::Features(updates) => {
            let levels = features::updated(&view.image.features, &updates, view.image.controller_id)?;
            let change = (levels != view.image.features).then_some(ImageChange::Features(levels));
            Ok(Decision::new(change.into_iter().collect(), ()))
        }
    }
}

fn find<'a>(view: View<'a>, id: TopicIdPartition) -> Result<(&'a TopicImage, &'a PartitionImage), MetadataError> {
    let topic = view.image.topic_by_id(id.topic_id).ok_or(MetadataError::UnknownTopicId(id.topic_id))?;
    let unknown = || MetadataError::UnknownTopic(format!("{}-{}", topic.name, id.partition));
    Ok((topic, view.image.partition(id).ok_or_else(unknown)?))
}

fn changed(topic: &TopicImage, partition: i32, next: PartitionImage) -> ImageChange {
    ImageChange::Partitions { topic: topic.id, partitions: BTreeMap::from([(partition, next)]) }
}

/// KIP-460: leadership goes back to the preferred replica, or, where nobody can lead without loss, to any replica that is up.
fn elect_leader(view: View<'_>, id: TopicIdPartition, election: Election) -> Result<Decision<()>, MetadataError> {
    let (topic, partition) = find(view, id)?;
    let preferred = partition.replicas.first().copied().unwrap_or(-1);
    let mut next = partition.clone();
    match election {
        Election::Preferred if partition.leader == preferred => return Err(MetadataError::ElectionNotNeeded),
        Election::Unclean if partition.leader >= 0 => return Err(MetadataError::ElectionNotNeeded),
        Election::Preferred if partition.isr.contains(&preferred) && view.is_active(preferred) => next.leader = preferred,
        Election::Preferred => return Err(MetadataError::PreferredLeaderNotAvailable),
        Election::Unclean => {
            let leader = partition.replicas.iter().copied().find(|id| view.is_active(*id));
            next.leader = leader.ok_or(MetadataError::EligibleLeadersNotAvailable)?;
            next.isr = vec![next.leader];
            next.elr.clear();
            next.last_known_leader = -1;
        }
    }
    let change = finish(partition, next).map(|next| {
        log_election(view.image, topic, id.partition, &next);
        changed(topic, id.partition, next)
    });
    Ok(Decision::new(change.into_iter().collect(), ()))
}

/// KIP-455. Another order of the same brokers takes effect at once: the first becomes the preferred leader. Other brokers would have to copy
/// the log first, which needs replication between brokers.
fn reassign(
    view: View<'_>,
    id: TopicIdPartition,
    replicas: Vec<i32>,
    allow_replication_factor_change: bool,
) -> Result<Decision<()>, MetadataError> {
    let (topic, partition) = find(view, id)?;
    let refuse = |reason: String| Err(MetadataError::InvalidReplicaAssignment(reason));
    if replicas.is_empty() {
        return refuse("The manual partition assignment includes an empty replica list.".to_owned());
    }
    let wanted: BTreeSet<i32> = replicas.iter().copied().collect();
    if let Some(broker) = wanted.iter().find(|broker| **broker < 0) {
        return refuse(format!("The manual partition assignment includes an invalid broker ID {broker}."));
    }
    if wanted.len() != replicas.len() {
        return refuse(format!("The manual partition assignment {replicas:?} includes a broker more than once."));
    }
    if let Some(unknown) = wanted.iter().find(|broker| !view.image.brokers.contains_key(broker)) {
        return refuse(format!("The manual partition assignment includes broker {unknown}, but no such broker is registered."));
    }
    if !allow_replication_factor_change && replicas.len() != partition.replicas.len() {
        return Err(MetadataError::InvalidReplicationFactor(format!(
            "The replication factor is changed from {} to {}",
            partition.replicas.len(),
            replicas.len()
        )));
    }
    if wanted != partition.replicas.iter().copied().collect() {
        return refuse(format!(
            "{}-{} stays on {:?}: this release moves no data between brokers, only the order of the replicas can change.",
            topic.name, id.partition, partition.replicas
        ));
    }
    let next = PartitionImage { replicas, ..partition.clone() };
    let change = finish(partition, next).map(|next| changed(topic, id.partition, next));
    Ok(Decision::new(change.into_iter().collect(), ()))
}

/// The broker hands over what it leads and is forgotten. Partitions keep it among their replicas: only a reassignment changes those.
fn unregister(view: View<'_>, id: i32) -> Result<Decision<()>, MetadataError> {
    if !view.image.brokers.contains_key(&id) {
        return Err(MetadataError::UnknownBroker(id));
    }
    let mut decision = fence(view, id);
    decision.changes.push(ImageChange::BrokerRemoved(id));
    Ok(decision)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use siltstone_common::TopicId;

    use super::*;
    use crate::image::{BrokerImage, MetadataImage};

    /// Two brokers, the second fenced if so asked, and a topic with one partition on both, led by `leader`.
    fn image(leader: i32, second_fenced: bool) -> (MetadataImage, TopicIdPartition) {
        let mut image = MetadataImage { revision: 5, ..MetadataImage::default() };
        for id in [1, 2] {
            let fenced = id == 2 && second_fenced;
            let broker = BrokerImage { id, epoch: 1, host: "h".into(), port: 1, rack: None, fenced, directory: uuid::Uuid::nil() };
            image.apply(&ImageChange::Broker(Arc::new(broker)));
        }
        let id = TopicId(uuid::Uuid::from_u128(7));
        let mut partition = PartitionImage::new(vec![2, 1], vec![2, 1]);
        partition.leader = leader;
        let topic = TopicImage { id, name: "t".into(), partitions: vec![partition], configs: BTreeMap::new() };
        image.apply(&ImageChange::Topic(Arc::new(topic)));
        (image, TopicIdPartition::new(id, 0))
    }

    fn decide(image: &MetadataImage, change: AdminChange) -> Result<MetadataImage, MetadataError> {
        let decision = administer(View { image, static_configs: &BTreeMap::new(), replicas_max: usize::MAX }, change)?;
        let mut after = image.clone();
        decision.changes.iter().for_each(|change| after.apply(change));
        Ok(after)
    }

    fn reassigned(replicas: &[i32]) -> impl Fn(TopicIdPartition) -> AdminChange + '_ {
        |id| AdminChange::Reassign { id, replicas: Some(replicas.to_vec()), allow_replication_factor_change: true }
    }

    #[test]
    fn leadership_goes_back_to_the_preferred_replica() {
        let (before, id) = image(1, false);
        let after = decide(&before, AdminChange::ElectLeader { id, election: Election::Preferred }).expect("elected");
        let partition = after.partition(id).expect("is there");
        assert_eq!((partition.leader, partition.leader_epoch), (2, 1));
        let again = decide(&after, AdminChange::ElectLeader { id, election: Election::Preferred });
        assert_eq!(again.expect_err("refused"), MetadataError::ElectionNotNeeded);
        let (fenced, id) = image(1, true);
        let refused = decide(&fenced, AdminChange::ElectLeader { id, election: Election::Preferred });
        assert_eq!(refused.expect_err("refused"), MetadataError::PreferredLeaderNotAvailable);
    }

    #[test]
    fn an_unclean_election_needs_that_nobody_leads() {
        let (before, id) = image(1, false);
        let refused = decide(&before, AdminChange::ElectLeader { id, election: Election::Unclean });
        assert_eq!(refused.expect_err("refused"), MetadataError::ElectionNotNeeded);
        let (before, id) = image(-1, true);
        let after = decide(&before, AdminChange::ElectLeader { id, election: Election::Unclean }).expect("elected");
        let partition = after.partition(id).expect("is there");
        assert_eq!((partition.leader, &partition.isr[..], partition.leader_epoch), (1, &[1][..], 1));
    }

    #[test]
    fn a_reassignment_changes_the_order_and_nothing_else() {
        let (before, id) = image(2, false);
        let after = decide(&before, reassigned(&[1, 2])(id)).expect("reordered");
        let partition = after.partition(id).expect("is there");
        assert_eq!((&partition.replicas[..], partition.leader, partition.leader_epoch, partition.partition_epoch), (&[1, 2][..], 2, 0, 1));
        for bad in [&[][..], &[1], &[1, 1], &[1, 3], &[-1, 1]] {
            assert!(decide(&before, reassigned(bad)(id)).is_err(), "{bad:?}");
        }
        let cancel = AdminChange::Reassign { id, replicas: None, allow_replication_factor_change: true };
        assert_eq!(decide(&before, cancel).expect_err("refused"), MetadataError::NoReassignment);
    }

    #[test]
    fn a_broker_that_is_unregistered_leads_nothing() {
        let (before, id) = image(2, false);
        let after = decide(&before, AdminChange::UnregisterBroker(2)).expect("known");
        assert!(!after.brokers.contains_key(&2));
        assert_eq!(after.partition(id).map(|partition| (partition.leader, partition.isr.clone())), Some((1, vec![1])));
        assert_eq!(decide(&after, AdminChange::UnregisterBroker(2)).expect_err("gone"), MetadataError::UnknownBroker(2));
    }
}
