//! Consumer groups without clock and log: the events of members that behave as clients do, in any order.

mod members;
mod model;

use std::collections::BTreeMap;
use std::time::Duration;

use siltstone_common::TopicId;
use uuid::Uuid;

use super::*;
use crate::cluster::TopicView;
use crate::error::GroupError;
use crate::messages::{ConsumerHeartbeatRequest, ConsumerHeartbeatResponse, Refusal, TopicPartitions};

/// Topics in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct TestCluster {
    pub(crate) topics: BTreeMap<String, (TopicId, i32)>,
    pub(crate) racks: Vec<Vec<&'static str>>,
    pub(crate) settings: BTreeMap<String, i32>,
    pub(crate) revision: u64,
}

impl TestCluster {
    pub(crate) fn put_topic(&mut self, id: TopicId, name: &str, partitions: i32) {
        self.topics.insert(name.to_owned(), (id, partitions));
        self.revision += 1;
    }

    /// A topic whose id follows from its name.
    pub(crate) fn with_topic(mut self, name: &str, partitions: i32) -> Self {
        self.put_topic(topic_id(name), name, partitions);
        self
    }
}

pub(crate) fn topic_id(name: &str) -> TopicId {
    TopicId(Uuid::from_u128(name.bytes().fold(7, |hash, byte| hash * 31 + u128::from(byte))))
}

impl ClusterView for TestCluster {
    fn revision(&self) -> u64 {
        self.revision
    }

    fn topic(&self, name: &str) -> Option<TopicView<'_>> {
        let (name, (id, partitions)) = self.topics.get_key_value(name)?;
        Some(TopicView { id: *id, name, partitions: *partitions })
    }

    fn topic_by_id(&self, id: TopicId) -> Option<TopicView<'_>> {
        let (name, (id, partitions)) = self.topics.iter().find(|(_, (topic, _))| *topic == id)?;
        Some(TopicView { id: *id, name, partitions: *partitions })
    }

    fn for_each_topic_name(&self, visit: &mut dyn FnMut(&str)) {
        self.topics.keys().for_each(|name| visit(name));
    }

    fn partition_racks(&self, _: TopicId, partition: i32) -> Vec<String> {
        self.racks.get(partition as usize).map(|racks| racks.iter().map(|rack| (*rack).to_owned()).collect()).unwrap_or_default()
    }

    fn group_setting(&self, _: &str, name: &str) -> Option<i32> {
        self.settings.get(name).copied()
    }
}

/// A group, its surroundings, and every record it ever made.
struct World {
    group: ConsumerGroup,
    cluster: TestCluster,
    /// A topic that the clients may not describe.
    hidden: Option<&'static str>,
    config: GroupCoordinatorConfig,
    now_ms: i64,
    records: Vec<ConsumerRecord>,
    timers: Vec<TimerChange>,
    downgrade: Option<Downgrade>,
}

impl World {
    fn new(cluster: TestCluster) -> Self {
        let config = GroupCoordinatorConfig { consumer_assignment_interval_ms: 0, ..GroupCoordinatorConfig::default() };
        let group = ConsumerGroup::new("g".into());
        Self { group, cluster, hidden: None, config, now_ms: 1_000_000, records: Vec::new(), timers: Vec::new(), downgrade: None }
    }

    /// What the shard does with an event: nothing if it fails, else its records are applied.
    fn event<T, E>(&mut self, event: impl FnOnce(&ConsumerGroup, &mut Turn<'_>) -> Result<T, E>) -> Result<T, E> {
        let mut turn = Turn::new(Duration::from_millis(self.now_ms as u64), self.now_ms, &self.config, &self.cluster);
        turn.topics_created_at = self.cluster.revision;
        let may_describe = |name: &str| self.hidden != Some(name);
        turn.may_describe = &may_describe;
        let result = event(&self.group, &mut turn)?;
        let Turn { records, timers, downgrade, metadata_checked, .. } = turn;
        for record in &records {
            self.group.apply(record.clone());
        }
        self.group.is_metadata_stale &= !metadata_checked;
        self.records.extend(records);
        self.timers.extend(timers);
        self.downgrade = downgrade;
        Ok(result)
    }

    fn beat(&mut self, request: ConsumerHeartbeatRequest) -> Result<ConsumerHeartbeatResponse, Refusal> {
        self.timers.clear();
        let answer = self.event(|group, turn| {
            validate(&request, turn)?;
            match request.member_epoch {
                ..0 => group.leave(&request, turn),
                _ => group.heartbeat(request, || "made-up".to_owned(), turn),
            }
        })?;
        self.refresh_regexes();
        Ok(answer)
    }

    fn refresh_regexes(&mut self) {
        let done: Result<(), ()> = self.event(|group, turn| {
            if group.needs_regex_refresh(turn) {
                group.refresh_regexes(turn);
            }
            Ok(())
        });
        done.unwrap();
    }

    fn error(&mut self, request: ConsumerHeartbeatRequest) -> GroupError {
        self.beat(request).unwrap_err().error
    }

    fn topics_changed(&mut self) {
        self.group.is_metadata_stale = true;
    }

    /// The group as its records make it.
    fn replayed(&self) -> ConsumerGroup {
        let mut group = ConsumerGroup::new("g".into());
        self.records.iter().for_each(|record| group.apply(record.clone()));
        group
    }

    /// I21, and no partition owned by two members at one time.
    fn check(&self) {
        let mut owners = HashMap::new();
        for member in self.group.members.values() {
            for partition in member.current.owned() {
                assert_eq!(owners.insert(partition, member.id.clone()), None, "two owners of {partition:?}");
            }
            assert!(member.current.epoch <= self.group.target_epoch.max(0), "a member is ahead of the target");
        }
        assert_eq!(owners, self.group.owners);
        assert!(self.group.target_epoch <= self.group.epoch);
        let replayed = self.replayed();
        assert_eq!(replayed.members, self.group.members);
        assert_eq!(replayed.targets, self.group.targets);
        assert_eq!(replayed.subscriptions, self.group.subscriptions);
        assert_eq!(replayed.owners, self.group.owners);
        assert_eq!((replayed.epoch, replayed.metadata_hash), (self.group.epoch, self.group.metadata_hash));
        assert_eq!((replayed.target_epoch, replayed.regexes), (self.group.target_epoch, self.group.regexes.clone()));
    }
}

/// A heartbeat that says no more than it must.
pub(crate) fn heartbeat(member_id: &str, epoch: i32) -> ConsumerHeartbeatRequest {
    ConsumerHeartbeatRequest {
        group_id: "group".to_owned(),
        member_id: member_id.to_owned(),
        member_epoch: epoch,
        group_instance_id: None,
        rack_id: None,
        rebalance_timeout_ms: -1,
        subscribed_topics: None,
        subscribed_regex: None,
        server_assignor: None,
        owned: None,
        client_id: "c".to_owned(),
        client_host: "/1.2.3.4".to_owned(),
        brings_member_id: true,
    }
}

/// The first heartbeat of a member.
fn join(member_id: &str, topics: &[&str]) -> ConsumerHeartbeatRequest {
    ConsumerHeartbeatRequest {
        rebalance_timeout_ms: 60_000,
        subscribed_topics: Some(topics.iter().map(|topic| (*topic).to_owned()).collect()),
        owned: Some(Vec::new()),
        ..heartbeat(member_id, 0)
    }
}

fn count(assignment: &Option<Vec<TopicPartitions>>) -> usize {
    assignment.iter().flatten().map(|topic| topic.partitions.len()).sum()
}
