//! Which brokers get the replicas of new partitions: round robin from a random start over racks, unfenced brokers first.

use std::collections::{BTreeMap, BTreeSet};

use super::View;
use crate::api::MetadataError;

/// Replicas of `count` partitions from `first` on. `seed` chooses where to begin.
pub(super) fn place(
    view: View<'_>,
    first: usize,
    count: usize,
    replication_factor: i16,
    seed: u64,
) -> Result<Vec<Vec<i32>>, MetadataError> {
    let refuse = |reason: String| {
        Err(MetadataError::InvalidReplicationFactor(format!("Unable to replicate the partition {replication_factor} time(s): {reason}")))
    };
    let wanted = usize::try_from(replication_factor).unwrap_or(0);
    if wanted == 0 {
        return refuse(format!("Invalid replication factor {replication_factor}: the replication factor must be positive."));
    }
    let (active, fenced) = (by_rack(view, false), by_rack(view, true));
    if active.is_empty() {
        return refuse("All brokers are currently fenced.".into());
    }
    let registered = view.image.brokers.len();
    if wanted > registered {
        return refuse(format!(
            "The target replication factor of {replication_factor} cannot be reached because only {registered} broker(s) are registered \
             or some brokers have all their log directories cordoned."
        ));
    }
    let start = usize::try_from(seed % active.len() as u64).unwrap_or(0);
    let replicas =
        |partition: usize| spread(view, order(&active, start + partition, partition / active.len()).chain(fenced.iter().copied()), wanted);
    Ok((first..first + count).map(replicas).collect())
}

/// Who is asked for a replica, one after the other: the leader, then the others from one further on each time round, so that
/// the load of a lost leader spreads.
fn order(active: &[i32], leader: usize, round: usize) -> impl Iterator<Item = i32> + '_ {
    let others = active.len() - 1;
    let followers = (0..others).map(move |index| leader + 1 + (round + index) % others);
    std::iter::once(leader).chain(followers).map(|index| active[index % active.len()])
}

/// The first `wanted` brokers, where those in a rack without a replica yet come before the others.
fn spread(view: View<'_>, brokers: impl Iterator<Item = i32>, wanted: usize) -> Vec<i32> {
    let rack = |broker: &i32| view.image.brokers.get(broker).and_then(|broker| broker.rack.as_deref());
    let (mut racks, mut later) = (BTreeSet::new(), Vec::new());
    let mut replicas = Vec::with_capacity(wanted);
    for broker in brokers {
        if replicas.len() == wanted {
            return replicas;
        }
        if racks.insert(rack(&broker)) {
            replicas.push(broker);
        } else {
            later.push(broker);
        }
    }
    replicas.extend(later);
    replicas.truncate(wanted);
    replicas
}

/// Brokers, alternating between racks.
fn by_rack(view: View<'_>, fenced: bool) -> Vec<i32> {
    let mut racks: BTreeMap<Option<&str>, Vec<i32>> = BTreeMap::new();
    for broker in view.image.brokers.values().filter(|broker| broker.fenced == fenced) {
        racks.entry(broker.rack.as_deref()).or_default().push(broker.id);
    }
    let most = racks.values().map(Vec::len).max().unwrap_or(0);
    (0..most).flat_map(|index| racks.values().filter_map(move |rack| rack.get(index).copied())).collect()
}
