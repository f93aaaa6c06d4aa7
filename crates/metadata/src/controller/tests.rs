//! The controller against a model: random events, and after each one the invariants, with a ghost of who holds what was acknowledged.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use proptest::prelude::*;
use siltstone_common::clock::{Clock, SystemClock};
use siltstone_common::{TopicId, TopicIdPartition};
use uuid::Uuid;

use super::*;
use crate::api::{ConfigOp, ConfigResource, CreateTopic, MetadataError, RegisterBroker};
use crate::image::PartitionImage;

#[derive(Clone, Debug)]
enum Event {
    Register { broker: i32, clean: bool },
    Heartbeat { broker: i32, stopping: bool },
    Fence { broker: i32 },
    CreateTopic { partitions: i32, replication_factor: i16, min_isr: u8 },
    CreatePartitions { topic: usize },
    DeleteTopic { topic: usize },
    Acknowledge { topic: usize },
    AlterIsr { topic: usize, members: u8, stale: bool },
    MinIsr { topic: usize, min_isr: u8 },
    MinIsrOfAll { min_isr: u8 },
    Takeover,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let broker = 1..5_i32;
    let topic = 0..4_usize;
    let event = prop_oneof![
        3 => (broker.clone(), any::<bool>()).prop_map(|(broker, clean)| Event::Register { broker, clean }),
        5 => (broker.clone(), prop::bool::weighted(0.1)).prop_map(|(broker, stopping)| Event::Heartbeat { broker, stopping }),
        2 => broker.prop_map(|broker| Event::Fence { broker }),
        2 => (1..4_i32, 1..5_i16, 1..4_u8)
            .prop_map(|(partitions, replication_factor, min_isr)| Event::CreateTopic { partitions, replication_factor, min_isr }),
        1 => topic.clone().prop_map(|topic| Event::CreatePartitions { topic }),
        1 => topic.clone().prop_map(|topic| Event::DeleteTopic { topic }),
        5 => topic.clone().prop_map(|topic| Event::Acknowledge { topic }),
        5 => (topic.clone(), any::<u8>(), prop::bool::weighted(0.2))
            .prop_map(|(topic, members, stale)| Event::AlterIsr { topic, members, stale }),
        1 => (topic, 1..4_u8).prop_map(|(topic, min_isr)| Event::MinIsr { topic, min_isr }),
        1 => (1..4_u8).prop_map(|min_isr| Event::MinIsrOfAll { min_isr }),
        1 => Just(Event::Takeover),
    ];
    prop::collection::vec(event, 1..80)
}

#[derive(Default)]
struct Model {
    image: MetadataImage,
    static_configs: BTreeMap<String, String>,
    /// Replicas that hold all that was acknowledged, by partition.
    holders: HashMap<TopicIdPartition, BTreeSet<i32>>,
    topics_made: u128,
}

impl Model {
    fn view(&self) -> View<'_> {
        View { image: &self.image, static_configs: &self.static_configs, replicas_max: 5 }
    }

    fn topic(&self, index: usize) -> Option<TopicId> {
        let ids: Vec<_> = self.image.topic_ids.values().copied().collect();
        (!ids.is_empty()).then(|| ids[index % ids.len()])
    }

    fn take<T>(&mut self, decided: Result<Decision<T>, MetadataError>, unclean: Option<i32>) -> Option<T> {
        let Decision { changes, answer } = decided.ok()?;
        let before = self.image.clone();
        changes.iter().for_each(|change| self.image.apply(change));
        self.image.revision += 1;
        self.check_steps(&before, unclean);
        Some(answer)
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Register { broker, clean } => {
                if !clean {
                    self.holders.values_mut().for_each(|holders| {
                        holders.remove(&broker);
                    });
                }
                let (host, rack) = ("h".to_owned(), Some(format!("r{}", broker % 2)));
                let request = RegisterBroker { id: broker, host, port: 1, rack, clean_shutdown: clean, directory: Uuid::from_u128(1) };
                let old = self.image.brokers.get(&broker).map_or(-1, |known| known.epoch);
                let epoch = self.take(register(self.view(), request), (!clean).then_some(broker)).unwrap();
                assert!(epoch > old, "broker epochs rise (KIP-903)");
                for partition in self.image.topics.values().flat_map(|topic| &topic.partitions) {
                    assert_ne!(partition.leader, broker);
                    assert!(clean || (!partition.isr.contains(&broker) && !partition.elr.contains(&broker)), "I14");
                }
            }
            Event::Heartbeat { broker, stopping } => {
                let Some(epoch) = self.image.brokers.get(&broker).map(|known| known.epoch) else { return };
                let stale = heartbeat(self.view(), broker, epoch - 1, stopping);
                assert!(matches!(stale, Err(MetadataError::StaleBrokerEpoch)));
                self.take(heartbeat(self.view(), broker, epoch, stopping), None);
            }
            Event::Fence { broker } => {
                self.take(Ok(fence(self.view(), broker)), None);
            }
            Event::Takeover => {
                self.take(Ok(repair(self.view())), None);
            }
            Event::CreateTopic { partitions, replication_factor, min_isr } => {
                self.topics_made += 1;
                let id = TopicId(Uuid::from_u128(self.topics_made));
                let mut topic =
                    CreateTopic { name: format!("t{}", self.topics_made), partitions, replication_factor, ..CreateTopic::default() };
                if min_isr > 1 {
                    topic.configs.insert("min.insync.replicas".into(), min_isr.to_string());
                }
                self.take(create_topic(self.view(), topic, id, 7 * id.0.as_u128() as u64), None);
            }
            Event::CreatePartitions { topic } => {
                let Some(id) = self.topic(topic) else { return };
                let count = i32::try_from(self.image.topics[&id].partitions.len()).unwrap() + 1;
                self.take(create_partitions(self.view(), id, count, vec![], false, 3), None);
            }
            Event::DeleteTopic { topic } => {
                let Some(id) = self.topic(topic) else { return };
                self.take(delete_topic(self.view(), id), None);
                self.holders.retain(|partition, _| partition.topic_id != id);
            }
            Event::Acknowledge { topic } => self.acknowledge(topic),
            Event::AlterIsr { topic, members, stale } => self.alter_isr(topic, members, stale),
            Event::MinIsr { topic, min_isr } => {
                let Some(id) = self.topic(topic) else { return };
                let resource = ConfigResource::Topic(self.image.topics[&id].name.clone());
                self.take(alter_configs(self.view(), resource, vec![set_min_isr(min_isr)], false), None);
            }
            Event::MinIsrOfAll { min_isr } => {
                self.take(alter_configs(self.view(), ConfigResource::Broker(String::new()), vec![set_min_isr(min_isr)], false), None);
            }
        }
    }

    /// Leaders with enough in sync acknowledge a record: from now on only the ISR holds everything.
    fn acknowledge(&mut self, topic: usize) {
        let Some(id) = self.topic(topic) else { return };
        let topic = &self.image.topics[&id];
        let min_isr = self.view().min_insync_replicas(&topic.configs);
        for (index, partition) in (0..).zip(&topic.partitions) {
            if partition.leader >= 0 && partition.isr.len() >= min_isr {
                self.holders.insert(TopicIdPartition::new(id, index), partition.isr.iter().copied().collect());
            }
        }
    }

    fn alter_isr(&mut self, topic: usize, members: u8, stale: bool) {
        let Some(topic_id) = self.topic(topic) else { return };
        let id = TopicIdPartition::new(topic_id, 0);
        let partition = self.image.partition(id).unwrap().clone();
        if partition.leader < 0 {
            return;
        }
        let member = |broker: &i32| *broker == partition.leader || members & (1 << broker) != 0;
        let isr: Vec<i32> = partition.replicas.iter().copied().filter(member).collect();
        let (epoch, partition_epoch) = (partition.leader_epoch, partition.partition_epoch - i32::from(stale));
        let added: Vec<i32> = isr.iter().copied().filter(|broker| !partition.isr.contains(broker)).collect();
        let answer = self.take(alter_isr(self.view(), id, epoch, partition_epoch, isr.clone()), None);
        assert!(!stale || answer.is_none(), "I11");
        let older = alter_isr(self.view(), id, epoch - 1, partition_epoch, isr);
        assert!(matches!(older, Err(MetadataError::FencedLeaderEpoch)));
        if answer.is_some() {
            self.holders.entry(id).or_default().extend(added);
        }
    }

    fn check_steps(&mut self, before: &MetadataImage, unclean: Option<i32>) {
        for (topic_id, topic) in self.image.topics.clone() {
            for (index, partition) in (0..).zip(&topic.partitions) {
                let id = TopicIdPartition::new(topic_id, index);
                self.check_state(partition);
                match before.partition(id) {
                    None => {
                        self.holders.insert(id, partition.isr.iter().copied().collect());
                    }
                    Some(old) => self.check_step(id, old, partition, unclean),
                }
            }
        }
    }

    fn check_state(&self, p: &PartitionImage) {
        let active = |broker: &i32| self.image.brokers.get(broker).is_some_and(|broker| !broker.fenced);
        assert!(p.isr.iter().all(|broker| p.replicas.contains(broker) && active(broker)), "only unfenced replicas are in sync: {p:?}");
        assert!(p.elr.iter().all(|broker| p.replicas.contains(broker) && !p.isr.contains(broker)), "{p:?}");
        assert!(p.leader == -1 || p.isr.contains(&p.leader), "leaders are in sync (I12): {p:?}");
        assert!(p.leader == -1 || p.last_known_leader == -1, "{p:?}");
        let electable = p.isr.iter().chain(&p.elr).any(active) || (p.last_known_leader >= 0 && active(&p.last_known_leader));
        assert!(p.leader >= 0 || !electable, "whoever can lead does: {p:?}");
        assert!(!p.isr.is_empty() || !p.elr.is_empty() || p.last_known_leader >= 0, "a partition never loses its last leader: {p:?}");
    }

    fn check_step(&mut self, id: TopicIdPartition, old: &PartitionImage, new: &PartitionImage, unclean: Option<i32>) {
        let raised = new.leader_epoch - old.leader_epoch;
        assert_eq!(raised, i32::from(raised > 0), "I9");
        assert!(new.leader == old.leader || raised == 1, "each change of leader raises its epoch (I9): {old:?} {new:?}");
        let isr_changed = new.isr != old.isr || new.elr != old.elr || raised > 0;
        assert!(new.partition_epoch >= old.partition_epoch + i32::from(isr_changed), "I11");
        let holders = self.holders.entry(id).or_default();
        if new.leader >= 0 && new.leader != old.leader {
            let eligible = old.isr.iter().chain(&old.elr).filter(|broker| Some(**broker) != unclean).count();
            if eligible == 0 {
                assert_eq!(new.leader, old.last_known_leader, "I12");
                *holders = BTreeSet::from([new.leader]);
            }
            assert!(holders.contains(&new.leader), "an elected leader holds all that was acknowledged (I12): {old:?} {new:?} {holders:?}");
        }
    }
}

fn set_min_isr(min_isr: u8) -> ConfigOp {
    ConfigOp::Set("min.insync.replicas".into(), min_isr.to_string())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn random_events_keep_the_invariants(events in events()) {
        let mut model = Model::default();
        for broker in 1..4 {
            model.step(Event::Register { broker, clean: true });
            model.step(Event::Heartbeat { broker, stopping: false });
        }
        events.into_iter().for_each(|event| model.step(event));
    }
}

fn cluster(brokers: i32) -> Model {
    let mut model = Model::default();
    for broker in 1..=brokers {
        model.step(Event::Register { broker, clean: true });
        model.step(Event::Heartbeat { broker, stopping: false });
    }
    model
}

fn refusal(model: &Model, topic: CreateTopic) -> MetadataError {
    create_topic(model.view(), topic, TopicId(Uuid::from_u128(99)), 0).unwrap_err()
}

fn asked(name: &str, partitions: i32, replication_factor: i16) -> CreateTopic {
    CreateTopic { name: name.into(), partitions, replication_factor, ..CreateTopic::default() }
}

#[test]
fn creation_is_refused_in_kafkas_words() {
    let mut model = cluster(2);
    model.take(create_topic(model.view(), asked("a.b_c", 1, 1), TopicId(Uuid::from_u128(1)), 0), None).unwrap();
    let named = |name: &str| refusal(&model, asked(name, 1, 1)).to_string();
    assert_eq!(named(""), "Topic name is invalid: the empty string is not allowed");
    assert_eq!(named(".."), "Topic name is invalid: '..' is not allowed");
    let long = "x".repeat(250);
    assert_eq!(named(&long), format!("Topic name is invalid: the length of '{long}' is longer than the max allowed length 249"));
    assert_eq!(
        named("../x"),
        "Topic name is invalid: '../x' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
    );
    assert_eq!(named("__cluster_metadata"), "Creation of internal topic __cluster_metadata is prohibited.");
    assert_eq!(named("a_b.c"), "Topic 'a_b.c' collides with existing topic: a.b_c");
    assert_eq!(named("a_b_c"), "Topic 'a_b_c' collides with existing topic: a.b_c");
    let message = |topic: CreateTopic| refusal(&model, topic).to_string();
    assert_eq!(
        message(asked("t", 1, 3)),
        "Unable to replicate the partition 3 time(s): The target replication factor of 3 cannot be reached because only 2 broker(s) are registered \
         or some brokers have all their log directories cordoned."
    );
    assert_eq!(message(asked("t", 1, 0)), "Replication factor must be larger than 0, or -1 to use the default value.");
    assert_eq!(message(asked("t", 0, 1)), "Number of partitions was set to an invalid non-positive value.");
    assert_eq!(
        refusal(&model, asked("t", i32::MAX, 1)),
        MetadataError::PolicyViolation("Excessively large number of partitions per request.".into())
    );
    let manual = |assignments: &[(i32, &[i32])]| {
        let assignments = assignments.iter().map(|(index, replicas)| (*index, replicas.to_vec())).collect();
        message(CreateTopic { assignments, ..asked("t", -1, -1) })
    };
    assert_eq!(manual(&[(0, &[1]), (2, &[1])]), "partitions should be a consecutive 0-based integer sequence");
    assert_eq!(manual(&[(0, &[1, 1])]), "The manual partition assignment includes the broker 1 more than once.");
    assert_eq!(manual(&[(0, &[7])]), "The manual partition assignment includes broker 7, but no such broker is registered.");
    assert_eq!(manual(&[(0, &[])]), "The manual partition assignment includes an empty replica list.");
    assert!(manual(&[(0, &[1]), (1, &[1, 2])]).contains("not consistent with previous partitions, which have 1 replica(s)"));
    let unknown = CreateTopic { configs: BTreeMap::from([("nope".into(), "1".into())]), ..asked("t", 1, 1) };
    assert_eq!(message(unknown), "Unknown topic config name: nope");
    for broker in [1, 2] {
        model.step(Event::Fence { broker });
    }
    assert_eq!(
        refusal(&model, asked("t", 1, 1)).to_string(),
        "Unable to replicate the partition 1 time(s): All brokers are currently fenced."
    );
}

/// I20, I21: whoever makes the coordinators' topics, nothing in them is deleted for its age.
#[test]
fn topics_of_coordinators_are_compacted_unless_they_were_asked_otherwise() {
    let model = cluster(1);
    let policy = |topic: CreateTopic| {
        let made = create_topic(model.view(), topic, TopicId(Uuid::from_u128(1)), 0).unwrap().answer;
        made.configs.get("cleanup.policy").cloned()
    };
    assert_eq!(policy(asked("t", 1, 1)), None);
    for name in ["__consumer_offsets", "__transaction_state"] {
        assert_eq!(policy(asked(name, 1, 1)).as_deref(), Some("compact"));
        let own = [("cleanup.policy".to_owned(), "compact,delete".to_owned())].into();
        assert_eq!(policy(CreateTopic { configs: own, ..asked(name, 1, 1) }).as_deref(), Some("compact,delete"));
    }
}

#[test]
fn replicas_spread_evenly_and_over_racks() {
    let mut model = cluster(4);
    let id = TopicId(Uuid::from_u128(1));
    model.take(create_topic(model.view(), asked("t", 400, 2), id, 12_345), None).unwrap();
    let partitions = &model.image.topics[&id].partitions;
    for broker in 1..=4 {
        assert_eq!(partitions.iter().filter(|p| p.leader == broker).count(), 100);
        let follows = partitions.iter().filter(|p| p.replicas[1] == broker).count();
        assert!((80..=120).contains(&follows), "{follows}");
    }
    assert!(partitions.iter().all(|p| p.replicas[0] % 2 != p.replicas[1] % 2), "racks are by odd and even");
}

#[test]
fn lists_are_appended_and_subtracted_and_a_wrong_one_of_many_changes_nothing() {
    let mut model = cluster(1);
    model.take(create_topic(model.view(), asked("t", 1, 1), TopicId(Uuid::from_u128(1)), 0), None).unwrap();
    let topic = || ConfigResource::Topic("t".into());
    let policy = |model: &Model| model.image.topic("t").unwrap().configs.get("cleanup.policy").cloned();
    let append = ConfigOp::Append("cleanup.policy".into(), "compact".into());
    model.take(alter_configs(model.view(), topic(), vec![append.clone(), append], false), None).unwrap();
    assert_eq!(policy(&model).as_deref(), Some("delete,compact"));
    model.take(alter_configs(model.view(), topic(), vec![ConfigOp::Subtract("cleanup.policy".into(), "delete".into())], false), None);
    assert_eq!(policy(&model).as_deref(), Some("compact"));
    let mixed = vec![ConfigOp::Delete("cleanup.policy".into()), ConfigOp::Set("retention.ms".into(), "soon".into())];
    let refused = alter_configs(model.view(), topic(), mixed, false).unwrap_err();
    assert_eq!(refused.to_string(), "Invalid value soon for configuration retention.ms: Not a number of type LONG");
    assert_eq!(policy(&model).as_deref(), Some("compact"));
    let number = alter_configs(model.view(), topic(), vec![ConfigOp::Append("retention.ms".into(), "1".into())], false).unwrap_err();
    assert_eq!(number.to_string(), "Can't APPEND to key retention.ms because its type is not LIST.");
    let fixed = alter_configs(model.view(), ConfigResource::Broker("1".into()), vec![ConfigOp::Set("node.id".into(), "2".into())], false);
    assert!(fixed.is_err());
}

#[test]
fn ten_thousand_partitions_fail_over_at_once() {
    let mut model = cluster(3);
    let id = TopicId(Uuid::from_u128(1));
    let clock = SystemClock::new();
    model.take(create_topic(model.view(), asked("t", 10_000, 3), id, 1), None).unwrap();
    let Decision { changes, answer: () } = fence(model.view(), 1);
    assert!(clock.monotonic() < Duration::from_secs(5), "{:?}", clock.monotonic());
    assert_eq!(changes.len(), 2, "one change of the broker, one of the topic");
    changes.iter().for_each(|change| model.image.apply(change));
    assert!(model.image.topics[&id].partitions.iter().all(|p| p.leader > 1 && p.isr.len() == 2));
}
