//! The immutable, versioned picture of the cluster that brokers act on (I46).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use siltstone_common::{TopicId, TopicIdPartition};
use uuid::Uuid;

use crate::acls::{AclBinding, AclIndex};
use crate::quotas::{QuotaEntity, Quotas};

/// A broker as registered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerImage {
    /// `node.id`
    pub id: i32,
    /// Raised at each registration (KIP-903).
    pub epoch: i64,
    /// Advertised host.
    pub host: String,
    /// Advertised port.
    pub port: u16,
    /// `broker.rack`
    pub rack: Option<String>,
    /// True until its first heartbeat, and once its session is over.
    pub fenced: bool,
    /// Id of the data directory that it registered with; nil if unknown.
    #[serde(default, skip_serializing_if = "Uuid::is_nil")]
    pub directory: Uuid,
}

/// Leadership of a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionImage {
    /// Leader; -1 for none.
    pub leader: i32,
    /// Raised at each leader change (I9).
    pub leader_epoch: i32,
    /// Raised at each change of the ISR (I11).
    pub partition_epoch: i32,
    /// Assigned replicas, the preferred leader first.
    pub replicas: Vec<i32>,
    /// In-sync replicas.
    pub isr: Vec<i32>,
    /// Eligible leader replicas (KIP-966).
    pub elr: Vec<i32>,
    /// Who led last when ISR and ELR are both empty, to be elected again when it is back (KIP-966); -1 for none.
    pub last_known_leader: i32,
}

impl PartitionImage {
    /// A new partition with all of `isr` in sync, led by its first member.
    pub fn new(replicas: Vec<i32>, isr: Vec<i32>) -> Self {
        let leader = isr.first().copied().unwrap_or(-1);
        Self { leader, leader_epoch: 0, partition_epoch: 0, replicas, isr, elr: Vec::new(), last_known_leader: -1 }
    }
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicImage {
    /// Id for life.
    pub id: TopicId,
    /// Name.
    pub name: String,
    /// By partition index, dense.
    pub partitions: Vec<PartitionImage>,
    /// Settings that differ from the broker's default, by Kafka's names.
    pub configs: BTreeMap<String, String>,
}

impl TopicImage {
    /// True for `__consumer_offsets` and `__transaction_state`.
    pub fn is_internal(&self) -> bool {
        is_internal(&self.name)
    }
}

/// The topic under which Kafka's controllers keep the metadata. Nobody may make one of that name.
pub const METADATA_TOPIC: &str = "__cluster_metadata";

/// True for the names of topics that coordinators write to.
pub(crate) fn is_internal(name: &str) -> bool {
    matches!(name, "__consumer_offsets" | "__transaction_state")
}

/// A step from one image to a later one. Values are whole, so applying one twice does no harm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageChange {
    /// The cluster got its id.
    Cluster(String),
    /// A broker was registered, fenced or unfenced.
    Broker(Arc<BrokerImage>),
    /// A topic was made.
    Topic(Arc<TopicImage>),
    /// Settings of a topic, all of them.
    TopicConfigs {
        /// The topic.
        topic: TopicId,
        /// All that differ from the default.
        configs: BTreeMap<String, String>,
    },
    /// Partitions of a topic changed or were added.
    Partitions {
        /// The topic.
        topic: TopicId,
        /// By partition index.
        partitions: BTreeMap<i32, PartitionImage>,
    },
    /// A topic was deleted.
    TopicDeleted(TopicId),
    /// Dynamic settings of a broker ("" for all), all of them; empty for none.
    BrokerConfigs {
        /// Broker id or "".
        broker: String,
        /// All that are set.
        configs: BTreeMap<String, String>,
    },
    /// A broker was forgotten.
    BrokerRemoved(i32),
    /// Levels of features that differ from the release's, all of them.
    Features(BTreeMap<String, i16>),
    /// An ACL was made.
    AclCreated(AclBinding),
    /// An ACL was deleted.
    AclDeleted(AclBinding),
    /// The quotas of one entity, all of them; empty for none.
    Quotas {
        /// Whose.
        entity: QuotaEntity,
        /// By name.
        quotas: Quotas,
    },
    /// Settings of a subscription to clients' metrics, all of them; empty for none.
    ClientMetricsConfigs {
        /// Its name.
        name: String,
        /// All that are set.
        configs: BTreeMap<String, String>,
    },
    /// Dynamic settings of a group, all of them; empty for none.
    GroupConfigs {
        /// Group id.
        group: String,
        /// All that are set.
        configs: BTreeMap<String, String>,
    },
}

/// One revision of the cluster's state. Cheap to clone parts of; replaced as a whole.
#[derive(Clone, Debug, Default)]
pub struct MetadataImage {
    /// Moves forward only.
    pub revision: u64,
    /// Cluster id, Kafka's 22-character form.
    pub cluster_id: String,
    /// The broker that answers as controller.
    pub controller_id: i32,
    /// By id.
    pub brokers: BTreeMap<i32, Arc<BrokerImage>>,
    /// By id.
    pub topics: HashMap<TopicId, Arc<TopicImage>>,
    /// Ids by name.
    pub topic_ids: BTreeMap<String, TopicId>,
    /// Dynamic settings of single brokers, by broker id; the cluster-wide default under "" (Kafka's naming).
    pub broker_configs: BTreeMap<String, BTreeMap<String, String>>,
    /// Dynamic settings of groups, by group id.
    pub group_configs: BTreeMap<String, BTreeMap<String, String>>,
    /// Settings of subscriptions to clients' metrics, by name (KIP-714).
    pub client_metrics: BTreeMap<String, BTreeMap<String, String>>,
    /// Quotas, by whom they are for.
    pub quotas: BTreeMap<QuotaEntity, Quotas>,
    /// Access control lists.
    pub acls: Arc<AclIndex>,
    /// Levels of features that an operator has changed.
    pub features: BTreeMap<String, i16>,
}

impl MetadataImage {
    /// The topic of that name.
    pub fn topic(&self, name: &str) -> Option<&Arc<TopicImage>> {
        self.topics.get(self.topic_ids.get(name)?)
    }

    /// The topic of that id.
    pub fn topic_by_id(&self, id: TopicId) -> Option<&Arc<TopicImage>> {
        self.topics.get(&id)
    }

    /// The partition.
    pub fn partition(&self, id: TopicIdPartition) -> Option<&PartitionImage> {
        self.topics.get(&id.topic_id)?.partitions.get(usize::try_from(id.partition).ok()?)
    }

    /// Applies one change; the revision is the caller's to move.
    pub fn apply(&mut self, change: &ImageChange) {
        match change {
            ImageChange::Cluster(id) => self.cluster_id.clone_from(id),
            ImageChange::Broker(broker) => {
                self.brokers.insert(broker.id, broker.clone());
                self.choose_controller();
            }
            ImageChange::BrokerRemoved(id) => {
                self.brokers.remove(id);
                self.choose_controller();
            }
            ImageChange::AclCreated(acl) => Arc::make_mut(&mut self.acls).insert(acl),
            ImageChange::AclDeleted(acl) => Arc::make_mut(&mut self.acls).remove(acl),
            ImageChange::Features(levels) => self.features.clone_from(levels),
            ImageChange::Quotas { entity, quotas } if quotas.is_empty() => drop(self.quotas.remove(entity)),
            ImageChange::Quotas { entity, quotas } => drop(self.quotas.insert(entity.clone(), quotas.clone())),
            ImageChange::ClientMetricsConfigs { name, configs } => set_or_remove(&mut self.client_metrics, name, configs),
            ImageChange::Topic(topic) => {
                self.topic_ids.insert(topic.name.clone(), topic.id);
                self.topics.insert(topic.id, topic.clone());
            }
            ImageChange::TopicConfigs { topic, configs } => {
                if let Some(topic) = self.topics.get_mut(topic) {
                    Arc::make_mut(topic).configs.clone_from(configs);
                }
            }
            ImageChange::Partitions { topic, partitions } => {
                if let Some(topic) = self.topics.get_mut(topic) {
                    apply_partitions(Arc::make_mut(topic), partitions);
                }
            }
            ImageChange::TopicDeleted(id) => {
                if let Some(topic) = self.topics.remove(id)
                    && self.topic_ids.get(&topic.name) == Some(id)
                {
                    self.topic_ids.remove(&topic.name);
                }
            }
            ImageChange::BrokerConfigs { broker, configs } => set_or_remove(&mut self.broker_configs, broker, configs),
            ImageChange::GroupConfigs { group, configs } => set_or_remove(&mut self.group_configs, group, configs),
        }
    }

    fn choose_controller(&mut self) {
        let controller = self.active_brokers().next().or(self.brokers.keys().next().copied());
        self.controller_id = controller.unwrap_or(-1);
    }

    /// Brokers that are not fenced.
    pub fn active_brokers(&self) -> impl Iterator<Item = i32> + '_ {
        self.brokers.values().filter(|broker| !broker.fenced).map(|broker| broker.id)
    }
}

fn apply_partitions(topic: &mut TopicImage, partitions: &BTreeMap<i32, PartitionImage>) {
    for (index, partition) in partitions {
        let Ok(index) = usize::try_from(*index) else { continue };
        match topic.partitions.get_mut(index) {
            Some(slot) => {
                debug_assert!(slot.leader_epoch <= partition.leader_epoch, "leader epochs never go back (I9)");
                slot.clone_from(partition);
            }
            None => {
                debug_assert_eq!(index, topic.partitions.len(), "partitions are dense");
                topic.partitions.push(partition.clone());
            }
        }
    }
}

fn set_or_remove(map: &mut BTreeMap<String, BTreeMap<String, String>>, key: &str, value: &BTreeMap<String, String>) {
    if value.is_empty() {
        map.remove(key);
    } else {
        map.insert(key.to_owned(), value.clone());
    }
}
