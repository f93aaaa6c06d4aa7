//! The controller: every decision about the cluster, as pure functions from an image and an event to the changes they make.
//!
//! Overview: the service holds one controller at a time in one place (its lock, and the fence row in the store), asks it to decide on the newest
//! image, writes the changes and lets the image move on. Nothing here waits, reads a clock or draws random numbers: time and seeds come with
//! the event. Only the sessions of brokers are kept beside the image; a service that takes over starts them anew.
//!
//! Invariants: leader epochs rise with each change of leader (I9); the ISR changes by compare-and-set only (I11); leaders come from the
//! ISR, then the ELR, then the last known leader (I12); a broker that stopped uncleanly leaves ISR and ELR before it may lead (I14).

mod acls;
mod admin;
mod brokers;
mod partitions;
mod placement;
mod resources;
mod sessions;
mod topics;

use std::collections::BTreeMap;

use crate::image::{ImageChange, MetadataImage};

pub(crate) use acls::{create_acls, delete_acls};
pub(crate) use admin::administer;
pub(crate) use brokers::{fence, heartbeat, register, repair};
pub(crate) use partitions::alter_isr;
pub(crate) use resources::alter_configs;
pub(crate) use sessions::Sessions;
pub(crate) use topics::{create_partitions, create_topic, delete_topic};

/// Most partitions of a topic, and so of a request: what one transaction of the store holds.
pub const TOPIC_PARTITIONS_MAX: i32 = 10_000;

/// What the controller decided: changes to make, in this order, and what to answer once they last.
#[derive(Debug)]
pub(crate) struct Decision<T> {
    pub(crate) changes: Vec<ImageChange>,
    pub(crate) answer: T,
}

impl<T> Decision<T> {
    fn new(changes: Vec<ImageChange>, answer: T) -> Self {
        Self { changes, answer }
    }
}

/// What decisions are made on.
#[derive(Copy, Clone)]
pub(crate) struct View<'a> {
    /// The newest image.
    pub(crate) image: &'a MetadataImage,
    /// Broker settings that no one changed while running.
    pub(crate) static_configs: &'a BTreeMap<String, String>,
    /// Most replicas that a new partition may have: what the brokers can keep.
    pub(crate) replicas_max: usize,
}

impl View<'_> {
    /// A cluster-wide broker setting: dynamic, else static, else `default`.
    fn broker_config(&self, name: &str, default: i32) -> i32 {
        let dynamic = self.image.broker_configs.get("").and_then(|configs| configs.get(name));
        dynamic.or_else(|| self.static_configs.get(name)).and_then(|value| value.trim().parse().ok()).unwrap_or(default)
    }

    /// A cluster-wide broker setting as text: dynamic, else static, else its default.
    fn broker_text(&self, name: &str) -> Option<String> {
        let dynamic = self.image.broker_configs.get("").and_then(|configs| configs.get(name));
        let set = dynamic.or_else(|| self.static_configs.get(name)).map(String::as_str);
        set.or_else(|| crate::configs::broker_config(name)?.default).map(str::to_owned)
    }

    /// `min.insync.replicas` of a topic with these settings.
    fn min_insync_replicas(&self, configs: &BTreeMap<String, String>) -> usize {
        const NAME: &str = crate::configs::MIN_INSYNC_REPLICAS;
        let of_topic = configs.get(NAME).and_then(|value| value.trim().parse().ok());
        usize::try_from(of_topic.unwrap_or_else(|| self.broker_config(NAME, 1))).unwrap_or(1).max(1)
    }

    /// `remote.log.storage.system.enable`
    fn is_tiering_enabled(&self) -> bool {
        self.broker_text("remote.log.storage.system.enable").is_none_or(|text| !text.trim().eq_ignore_ascii_case("false"))
    }

    fn is_active(&self, broker: i32) -> bool {
        self.image.brokers.get(&broker).is_some_and(|broker| !broker.fenced)
    }
}

#[cfg(test)]
mod tests;
