//! What all members of a group subscribe to, counted.

use std::collections::{BTreeMap, BTreeSet};

use twox_hash::XxHash3_64;

use super::member::MemberProfile;
use crate::assignor::Assignor;
use crate::cluster::{ClusterView, TopicView};

/// First byte of what a topic's hash is made of: its version.
const TOPIC_HASH_MAGIC: u8 = 0;

/// Counts by topic name, regular expression, assignor and classic protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Subscriptions {
    /// Members that name the topic, and expressions that match it.
    topics: BTreeMap<String, usize>,
    regexes: BTreeMap<String, usize>,
    assignors: BTreeMap<String, usize>,
    classic_protocols: BTreeMap<String, usize>,
    classic_members: usize,
}

fn increment(counts: &mut BTreeMap<String, usize>, key: &str) {
    if let Some(count) = counts.get_mut(key) {
        *count += 1;
    } else {
        counts.insert(key.to_owned(), 1);
    }
}

fn decrement(counts: &mut BTreeMap<String, usize>, key: &str) {
    match counts.get_mut(key) {
        Some(count) if *count > 1 => *count -= 1,
        Some(_) => drop(counts.remove(key)),
        None => {}
    }
}

impl Subscriptions {
    pub(super) fn add_member(&mut self, profile: &MemberProfile) {
        self.change(profile, increment);
        self.classic_members += usize::from(profile.classic.is_some());
    }

    pub(super) fn remove_member(&mut self, profile: &MemberProfile) {
        self.change(profile, decrement);
        self.classic_members -= usize::from(profile.classic.is_some());
    }

    fn change(&mut self, profile: &MemberProfile, change: fn(&mut BTreeMap<String, usize>, &str)) {
        profile.subscribed_topics.iter().for_each(|topic| change(&mut self.topics, topic));
        if !profile.subscribed_regex.is_empty() {
            change(&mut self.regexes, &profile.subscribed_regex);
        }
        if let Some(assignor) = &profile.server_assignor {
            change(&mut self.assignors, assignor);
        }
        for protocol in profile.classic.iter().flat_map(|classic| &classic.protocols) {
            change(&mut self.classic_protocols, &protocol.name);
        }
    }

    pub(super) fn add_matches(&mut self, topics: &BTreeSet<String>) {
        topics.iter().for_each(|topic| increment(&mut self.topics, topic));
    }

    pub(super) fn remove_matches(&mut self, topics: &BTreeSet<String>) {
        topics.iter().for_each(|topic| decrement(&mut self.topics, topic));
    }

    pub(super) fn contains(&self, topic: &str) -> bool {
        self.topics.contains_key(topic)
    }

    /// Members that subscribe by this expression.
    pub(super) fn regex_count(&self, regex: &str) -> usize {
        self.regexes.get(regex).copied().unwrap_or(0)
    }

    pub(super) fn regexes(&self) -> impl Iterator<Item = &String> {
        self.regexes.keys()
    }

    pub(super) fn has_regexes(&self) -> bool {
        !self.regexes.is_empty()
    }

    pub(super) fn classic_members(&self) -> usize {
        self.classic_members
    }

    /// True if all members that speak the classic protocol support this one.
    pub(super) fn is_common_classic_protocol(&self, name: &str) -> bool {
        self.classic_protocols.get(name).copied().unwrap_or(0) == self.classic_members
    }

    /// The assignor that most members ask for.
    pub(super) fn preferred_assignor(&self) -> Option<Assignor> {
        let (name, _) = self.assignors.iter().rev().max_by_key(|(_, count)| **count)?;
        Assignor::by_name(name)
    }

    /// Kafka's hash of the subscribed topics that exist: another one means that partitions were added, or topics made or deleted.
    pub(super) fn metadata_hash(&self, cluster: &dyn ClusterView) -> i64 {
        let mut hashes = Vec::new();
        for topic in self.topics.keys().filter_map(|name| cluster.topic(name)) {
            hashes.extend_from_slice(&topic_hash(topic, cluster).to_le_bytes());
        }
        if hashes.is_empty() { 0 } else { XxHash3_64::oneshot(&hashes) as i64 }
    }
}

/// Kafka's hash of one topic: its id, name, partitions, and the racks of their replicas.
fn topic_hash(topic: TopicView<'_>, cluster: &dyn ClusterView) -> u64 {
    let mut bytes = vec![TOPIC_HASH_MAGIC];
    let (high, low) = topic.id.0.as_u64_pair();
    bytes.extend_from_slice(&high.to_le_bytes());
    bytes.extend_from_slice(&low.to_le_bytes());
    put_java_string(&mut bytes, topic.name);
    bytes.extend_from_slice(&topic.partitions.to_le_bytes());
    for partition in 0..topic.partitions {
        bytes.extend_from_slice(&partition.to_le_bytes());
        let mut racks = cluster.partition_racks(topic.id, partition);
        racks.sort();
        for rack in racks {
            let len = rack.encode_utf16().count() as i32;
            bytes.extend_from_slice(&len.to_le_bytes());
            put_java_string(&mut bytes, &rack);
        }
    }
    XxHash3_64::oneshot(&bytes)
}

/// UTF-16 units, then how many.
fn put_java_string(bytes: &mut Vec<u8>, text: &str) {
    let mut units = 0i32;
    for unit in text.encode_utf16() {
        bytes.extend_from_slice(&unit.to_le_bytes());
        units += 1;
    }
    bytes.extend_from_slice(&units.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use siltstone_common::TopicId;

    use super::*;
    use crate::consumer::tests::TestCluster;

    /// What Kafka's own hash functions gave for the same topics.
    #[test]
    fn hashes_are_kafkas() {
        let id: TopicId = "94a49630ec134d439f4f05f0bca63264".parse().unwrap();
        let mut cluster = TestCluster::default();
        cluster.put_topic(id, "foo", 2);
        assert_eq!(topic_hash(cluster.topic("foo").unwrap(), &cluster) as i64, 8_705_301_233_377_684_730);
        cluster.put_topic(id, "bär", 2);
        cluster.racks = vec![vec!["rack2", "rack1"], vec!["rack3"]];
        let with_racks = topic_hash(cluster.topic("bär").unwrap(), &cluster) as i64;
        assert_eq!(with_racks, -395_043_762_308_274_035);
        let mut both = with_racks.to_le_bytes().to_vec();
        both.extend_from_slice(&8_705_301_233_377_684_730i64.to_le_bytes());
        assert_eq!(XxHash3_64::oneshot(&both) as i64, -8_774_416_722_993_351_781);
        assert_eq!(Subscriptions::default().metadata_hash(&cluster), 0);
    }
}
