//! The uniform assignor: as even as subscriptions allow, and sticky.
//!
//! With one subscription for all, counts differ by one at most. With different ones, partitions move from the most to the least loaded
//! subscriber of a topic until no topic has two subscribers whose counts differ by more than one, or the rounds are used up.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use siltstone_common::TopicId;

use super::{Assignment, GroupSpec};

/// Rounds over all topics that balancing different subscriptions may take. Each round moves load one step along chains of members.
const BALANCE_ROUNDS_MAX: usize = 16;

pub(super) fn assign(group: &GroupSpec) -> BTreeMap<Arc<str>, Assignment> {
    if group.is_homogeneous() { assign_homogeneous(group) } else { assign_heterogeneous(group) }
}

/// The part of a member's last target that it may keep: topics it still subscribes to, partitions that exist, none that is taken.
fn keepable(group: &GroupSpec, id: &Arc<str>, taken: &mut HashSet<(TopicId, i32)>) -> Assignment {
    let Some(member) = group.members.get(id) else { return Assignment::new() };
    let mut kept = Assignment::new();
    for (topic, partitions) in member.target.iter().filter(|(topic, _)| member.topics.contains(topic)) {
        let exists = 0..group.partition_count(*topic);
        let ours: BTreeSet<i32> = partitions.iter().copied().filter(|p| exists.contains(p) && taken.insert((*topic, *p))).collect();
        if !ours.is_empty() {
            kept.insert(*topic, ours);
        }
    }
    kept
}

fn size(assignment: &Assignment) -> usize {
    assignment.values().map(BTreeSet::len).sum()
}

fn remove(assignment: &mut Assignment, topic: TopicId, partition: i32) {
    if let Some(partitions) = assignment.get_mut(&topic) {
        partitions.remove(&partition);
        if partitions.is_empty() {
            assignment.remove(&topic);
        }
    }
}

/// Every member gets the same number of partitions, some one more: those who have one more already come first.
fn assign_homogeneous(group: &GroupSpec) -> BTreeMap<Arc<str>, Assignment> {
    let mut taken = HashSet::new();
    let mut target: BTreeMap<Arc<str>, Assignment> = group.members.keys().map(|id| (id.clone(), keepable(group, id, &mut taken))).collect();
    let topics = group.members.values().next().map(|member| member.topics.clone()).unwrap_or_default();
    let total: usize = topics.iter().map(|topic| usize::try_from(group.partition_count(*topic)).unwrap_or(0)).sum();
    let each = total / target.len().max(1);
    let mut extra = total % target.len().max(1);
    let mut quotas: HashMap<Arc<str>, usize> = HashMap::with_capacity(target.len());
    let with_surplus = |assignment: &Assignment| size(assignment) > each;
    for surplus in [true, false] {
        for (id, _) in target.iter().filter(|(_, assignment)| with_surplus(assignment) == surplus) {
            let quota = each + usize::from(extra > 0);
            extra = extra.saturating_sub(1);
            quotas.insert(id.clone(), quota);
        }
    }
    for (id, assignment) in &mut target {
        let quota = quotas.get(id).copied().unwrap_or(each);
        while size(assignment) > quota {
            let Some((topic, partition)) = assignment.iter().next_back().and_then(|(t, ps)| Some((*t, *ps.last()?))) else { break };
            remove(assignment, topic, partition);
            taken.remove(&(topic, partition));
        }
    }
    let mut free = topics
        .iter()
        .flat_map(|topic| (0..group.partition_count(*topic)).map(|partition| (*topic, partition)))
        .filter(|partition| !taken.contains(partition));
    for (id, assignment) in &mut target {
        let missing = quotas.get(id).copied().unwrap_or(each).saturating_sub(size(assignment));
        for (topic, partition) in free.by_ref().take(missing) {
            assignment.entry(topic).or_default().insert(partition);
        }
    }
    target
}

/// Members with different subscriptions.
struct Mixed<'a> {
    group: &'a GroupSpec,
    ids: Vec<Arc<str>>,
    target: Vec<Assignment>,
    sizes: Vec<usize>,
    /// Members by the topics they subscribe to.
    subscribers: BTreeMap<TopicId, Vec<usize>>,
}

fn assign_heterogeneous(group: &GroupSpec) -> BTreeMap<Arc<str>, Assignment> {
    let mut taken = HashSet::new();
    let ids: Vec<Arc<str>> = group.members.keys().cloned().collect();
    let target: Vec<Assignment> = ids.iter().map(|id| keepable(group, id, &mut taken)).collect();
    let mut subscribers: BTreeMap<TopicId, Vec<usize>> = BTreeMap::new();
    for (index, member) in group.members.values().enumerate() {
        for topic in member.topics.iter() {
            subscribers.entry(*topic).or_default().push(index);
        }
    }
    let sizes = target.iter().map(size).collect();
    let mut mixed = Mixed { group, ids, target, sizes, subscribers };
    // Topics with the fewest subscribers per partition have the least choice.
    let mut topics: Vec<TopicId> = mixed.subscribers.keys().copied().collect();
    topics.sort_by_key(|topic| mixed.subscribers.get(topic).map_or(0, Vec::len));
    for topic in &topics {
        mixed.assign_free(*topic, &taken);
    }
    for _ in 0..BALANCE_ROUNDS_MAX {
        let moved: usize = topics.iter().map(|topic| mixed.balance(*topic)).sum();
        if moved == 0 {
            break;
        }
    }
    mixed.ids.into_iter().zip(mixed.target).collect()
}

impl Mixed<'_> {
    /// The topic's subscribers by load: a set ordered by (partitions, member).
    fn by_load(&self, topic: TopicId) -> BTreeSet<(usize, usize)> {
        let subscribers = self.subscribers.get(&topic).into_iter().flatten();
        subscribers.map(|index| (self.sizes.get(*index).copied().unwrap_or(0), *index)).collect()
    }

    fn give(&mut self, topic: TopicId, partition: i32, member: usize) {
        if let (Some(assignment), Some(size)) = (self.target.get_mut(member), self.sizes.get_mut(member)) {
            assignment.entry(topic).or_default().insert(partition);
            *size += 1;
        }
    }

    fn assign_free(&mut self, topic: TopicId, taken: &HashSet<(TopicId, i32)>) {
        let mut by_load = self.by_load(topic);
        for partition in (0..self.group.partition_count(topic)).filter(|partition| !taken.contains(&(topic, *partition))) {
            let Some((load, member)) = by_load.pop_first() else { return };
            self.give(topic, partition, member);
            by_load.insert((load + 1, member));
        }
    }

    /// Moves partitions of one topic from its most to its least loaded subscribers; how many.
    fn balance(&mut self, topic: TopicId) -> usize {
        let mut by_load = self.by_load(topic);
        let mut moved = 0;
        while let (Some(&(least, to)), Some(&(most, from))) = (by_load.first(), by_load.last()) {
            if most <= least + 1 {
                break;
            }
            by_load.remove(&(most, from));
            let partition = self.target.get(from).and_then(|assignment| assignment.get(&topic)?.last().copied());
            // Whoever has none of this topic can't give any.
            let Some(partition) = partition else { continue };
            if let (Some(assignment), Some(size)) = (self.target.get_mut(from), self.sizes.get_mut(from)) {
                remove(assignment, topic, partition);
                *size -= 1;
            }
            by_load.insert((most - 1, from));
            by_load.remove(&(least, to));
            self.give(topic, partition, to);
            by_load.insert((least + 1, to));
            moved += 1;
        }
        moved
    }
}
