//! Members that behave as clients do, against random changes: invariants hold at every step, and the group settles when the changes end.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// A client: what it believes.
#[derive(Clone, Debug, Default)]
struct Client {
    epoch: i32,
    owned: BTreeSet<(TopicId, i32)>,
    topics: Vec<String>,
    regex: Option<String>,
}

#[derive(Clone, Debug)]
enum Event {
    Join {
        client: usize,
        topics: BTreeSet<usize>,
        regex: Option<usize>,
    },
    Beat {
        client: usize,
    },
    /// Its answer is lost.
    LoseAnswer {
        client: usize,
    },
    Leave {
        client: usize,
    },
    Silence {
        client: usize,
    },
    MorePartitions {
        topic: usize,
    },
    DeleteTopic {
        topic: usize,
    },
    Later,
}

const TOPICS: [&str; 4] = ["ta", "tb", "ua", "ub"];
const REGEXES: [&str; 3] = ["t.*", "[tu]a", "nothing"];
const CLIENTS: usize = 5;

fn any_event() -> impl Strategy<Value = Event> {
    let client = 0..CLIENTS;
    let topics = proptest::collection::btree_set(0..TOPICS.len(), 0..3);
    let regex = proptest::option::weighted(0.3, 0..REGEXES.len());
    prop_oneof![
        3 => (client.clone(), topics, regex).prop_map(|(client, topics, regex)| Event::Join { client, topics, regex }),
        8 => client.clone().prop_map(|client| Event::Beat { client }),
        1 => client.clone().prop_map(|client| Event::LoseAnswer { client }),
        1 => client.clone().prop_map(|client| Event::Leave { client }),
        1 => client.prop_map(|client| Event::Silence { client }),
        1 => (0..TOPICS.len()).prop_map(|topic| Event::MorePartitions { topic }),
        1 => (0..TOPICS.len()).prop_map(|topic| Event::DeleteTopic { topic }),
        2 => Just(Event::Later),
    ]
}

struct Model {
    world: World,
    clients: Vec<Option<Client>>,
}

impl Model {
    fn new() -> Self {
        let cluster = TestCluster::default().with_topic("ta", 3).with_topic("tb", 4).with_topic("ua", 5);
        Self { world: World::new(cluster), clients: vec![None; CLIENTS] }
    }

    /// A heartbeat with all that the client knows.
    fn beat(&mut self, index: usize, is_answer_lost: bool) {
        let Some(client) = self.clients[index].clone() else { return };
        let mut owned: BTreeMap<TopicId, Vec<i32>> = BTreeMap::new();
        client.owned.iter().for_each(|(topic, partition)| owned.entry(*topic).or_default().push(*partition));
        let owned = owned.into_iter().map(|(topic_id, partitions)| TopicPartitions { topic_id, partitions }).collect();
        let request = ConsumerHeartbeatRequest {
            rebalance_timeout_ms: 1_000,
            subscribed_topics: Some(client.topics.clone()),
            subscribed_regex: Some(client.regex.clone().unwrap_or_default()),
            owned: Some(owned),
            ..heartbeat(&format!("m{index}"), client.epoch)
        };
        match self.world.beat(request) {
            Ok(_) if is_answer_lost => {}
            Ok(answer) => {
                let client = self.clients[index].as_mut().unwrap();
                client.epoch = answer.member_epoch;
                let told = answer.assignment.into_iter().flatten();
                client.owned = told.flat_map(|topic| topic.partitions.into_iter().map(move |p| (topic.topic_id, p))).collect();
            }
            // It gives everything up and begins anew.
            Err(refusal) => {
                assert!(matches!(refusal.error, GroupError::FencedMemberEpoch | GroupError::UnknownMemberId), "{refusal:?}");
                let client = self.clients[index].as_mut().unwrap();
                client.epoch = 0;
                client.owned.clear();
            }
        }
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Join { client, topics, regex } => {
                let known = self.clients[client].take().unwrap_or_default();
                let topics = topics.into_iter().map(|topic| TOPICS[topic].to_owned()).collect();
                let regex = regex.map(|regex| REGEXES[regex].to_owned());
                self.clients[client] = Some(Client { topics, regex, ..known });
                self.beat(client, false);
            }
            Event::Beat { client } => self.beat(client, false),
            Event::LoseAnswer { client } => self.beat(client, true),
            Event::Leave { client } => {
                if self.clients[client].take().is_some() {
                    // Perhaps it was removed before.
                    let _ = self.world.beat(heartbeat(&format!("m{client}"), -1));
                }
            }
            Event::Silence { client } => {
                let timer = GroupTimer::Heartbeat(format!("m{client}").into());
                self.world
                    .event(|group, turn| {
                        group.on_timer(timer, turn);
                        Ok::<_, ()>(())
                    })
                    .unwrap();
                self.clients[client] = None;
            }
            Event::MorePartitions { topic } => {
                let partitions = self.world.cluster.topics.get(TOPICS[topic]).map_or(2, |(_, partitions)| partitions + 2);
                self.world.cluster.put_topic(topic_id(TOPICS[topic]), TOPICS[topic], partitions.min(12));
                self.world.topics_changed();
            }
            Event::DeleteTopic { topic } => {
                self.world.cluster.topics.remove(TOPICS[topic]);
                self.world.cluster.revision += 1;
                self.world.topics_changed();
            }
            Event::Later => self.world.now_ms += 10_001,
        }
        self.world.check();
    }

    /// Once nothing changes any more, every partition of a subscribed topic has an owner who knows it.
    fn settle(&mut self) {
        for _ in 0..4 {
            self.apply(Event::Later);
            for client in 0..CLIENTS {
                self.apply(Event::Beat { client });
                self.apply(Event::Beat { client });
            }
        }
        assert!(matches!(self.world.group.state(), ConsumerGroupState::Stable | ConsumerGroupState::Empty), "{:?}", self.world.group);
        let believed: Vec<(TopicId, i32)> = self.clients.iter().flatten().flat_map(|client| client.owned.iter().copied()).collect();
        let distinct: BTreeSet<(TopicId, i32)> = believed.iter().copied().collect();
        assert_eq!(believed.len(), distinct.len(), "two clients believe that they own one partition");
        let subscribed = self.world.cluster.topics.iter().filter(|(name, _)| self.world.group.is_subscribed_to(name));
        let wanted: BTreeSet<(TopicId, i32)> =
            subscribed.flat_map(|(_, (id, partitions))| (0..*partitions).map(move |partition| (*id, partition))).collect();
        assert_eq!(distinct, wanted);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_partition_has_two_owners_and_every_group_settles(events in proptest::collection::vec(any_event(), 1..60)) {
        let mut model = Model::new();
        events.into_iter().for_each(|event| model.apply(event));
        model.settle();
    }
}
