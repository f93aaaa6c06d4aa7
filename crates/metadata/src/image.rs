//! The immutable, versioned picture of the cluster that brokers act on (I46).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use siltstone_common::{TopicId, TopicIdPartition};

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
        matches!(self.name.as_str(), "__consumer_offsets" | "__transaction_state")
    }
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
}
