//! The range assignor: topic by topic, each member gets the next range, static members first. Members keep their ranges
//! as long as members and partitions stay the same.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use siltstone_common::TopicId;

use super::{Assignment, GroupSpec, MemberSpec};

/// What is left of a topic.
struct Ranges {
    next: i32,
    /// Partitions that every subscriber gets.
    each: i32,
    /// Subscribers that get one more.
    extra: i32,
}

pub(super) fn assign(group: &GroupSpec) -> BTreeMap<Arc<str>, Assignment> {
    let mut topics = ranges(group);
    let mut members: Vec<(&Arc<str>, &MemberSpec)> = group.members.iter().collect();
    members.sort_by(order);
    let assigned = members.into_iter().map(|(id, member)| {
        let mut assignment = Assignment::new();
        for topic in member.topics.iter() {
            let Some(ranges) = topics.get_mut(topic) else { continue };
            let len = ranges.each + i32::from(ranges.extra > 0);
            ranges.extra -= i32::from(ranges.extra > 0);
            let range = ranges.next..ranges.next + len;
            ranges.next = range.end;
            if !range.is_empty() {
                assignment.insert(*topic, range.collect());
            }
        }
        (id.clone(), assignment)
    });
    assigned.collect()
}

fn ranges(group: &GroupSpec) -> BTreeMap<TopicId, Ranges> {
    let mut subscribers: BTreeMap<TopicId, i32> = BTreeMap::new();
    for topic in group.members.values().flat_map(|member| member.topics.iter()) {
        *subscribers.entry(*topic).or_default() += 1;
    }
    let ranges = |(topic, subscribers)| {
        let partitions = group.partition_count(topic);
        (topic, Ranges { next: 0, each: partitions / subscribers, extra: partitions % subscribers })
    };
    subscribers.into_iter().map(ranges).collect()
}

/// Static members first, by instance id, so that they keep their ranges when they come back under another member id.
fn order(a: &(&Arc<str>, &MemberSpec), b: &(&Arc<str>, &MemberSpec)) -> Ordering {
    match (&a.1.instance_id, &b.1.instance_id) {
        (Some(a), Some(b)) => a.cmp(b),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.0.cmp(b.0),
    }
}
