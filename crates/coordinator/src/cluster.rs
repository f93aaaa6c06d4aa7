//! What the coordinator must know of the cluster, behind a port: which topics there are, and the settings that change while it runs.

use siltstone_common::TopicId;

/// A topic as the coordinator sees it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct TopicView<'a> {
    /// Its id for life.
    pub id: TopicId,
    /// Its name.
    pub name: &'a str,
    /// How many partitions it has.
    pub partitions: i32,
}

/// One revision of the cluster's topics and settings. Contract: it never changes; a newer one replaces it as a whole
/// ([`GroupCoordinator::on_cluster_changed`](crate::GroupCoordinator::on_cluster_changed)).
pub trait ClusterView: Send + Sync {
    /// Higher in each newer view.
    fn revision(&self) -> u64;
    /// The topic of that name.
    fn topic(&self, name: &str) -> Option<TopicView<'_>>;
    /// The topic of that id.
    fn topic_by_id(&self, id: TopicId) -> Option<TopicView<'_>>;
    /// Calls `visit` with the name of each topic.
    fn for_each_topic_name(&self, visit: &mut dyn FnMut(&str));
    /// `broker.rack` of a partition's replicas, as far as they have one.
    fn partition_racks(&self, id: TopicId, partition: i32) -> Vec<String>;
    /// A setting of a group (`consumer.session.timeout.ms` …), if it was set while the broker runs.
    fn group_setting(&self, group_id: &str, name: &str) -> Option<i32>;
}

/// Which topics differ between two views.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangedTopics {
    /// Names of topics that were created, deleted, or have more partitions.
    pub names: Vec<String>,
    /// True if one of them is new: regular expressions may match it.
    pub any_created: bool,
    /// Names of topics that are gone.
    pub deleted: Vec<String>,
}

/// A cluster without topics: what is known before the first view comes.
pub(crate) struct NoCluster;

impl ClusterView for NoCluster {
    fn revision(&self) -> u64 {
        0
    }

    fn topic(&self, _: &str) -> Option<TopicView<'_>> {
        None
    }

    fn topic_by_id(&self, _: TopicId) -> Option<TopicView<'_>> {
        None
    }

    fn for_each_topic_name(&self, _: &mut dyn FnMut(&str)) {}

    fn partition_racks(&self, _: TopicId, _: i32) -> Vec<String> {
        Vec::new()
    }

    fn group_setting(&self, _: &str, _: &str) -> Option<i32> {
        None
    }
}
