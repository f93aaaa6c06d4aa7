//! The partitions that a coordinator leads, and which of them holds a key.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use parking_lot::RwLock;

use crate::driver::{NotServed, Partition, Shard, Shared};

/// Which partitions of a coordinator's topic this broker leads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// How many partitions the topic has; `None` until it exists.
    pub partition_count: Option<i32>,
    /// Those that this broker leads, with their leader epochs.
    pub led: BTreeMap<i32, i32>,
}

/// See the module.
pub(crate) struct Partitions<S: Shard> {
    shared: Arc<Shared<S>>,
    open: RwLock<HashMap<i32, Arc<Partition<S>>>>,
    count: AtomicI32,
}

impl<S: Shard> Partitions<S> {
    /// Leads nothing yet; `count` holds until the topic exists.
    pub(crate) fn new(shared: Shared<S>, count: i32) -> Self {
        Self { shared: Arc::new(shared), open: RwLock::default(), count: AtomicI32::new(count) }
    }

    /// What the partitions share.
    pub(crate) fn shared(&self) -> &Shared<S> {
        &self.shared
    }

    /// Which partition holds a key.
    pub(crate) fn index_of(&self, key: &str) -> i32 {
        partition_of_key(key, self.count.load(Ordering::Relaxed))
    }

    /// Forgets what this broker no longer leads, and loads what it leads now; an epoch that is known changes nothing.
    pub(crate) fn on_leadership(&self, leadership: &Leadership) {
        if let Some(count) = leadership.partition_count {
            self.count.store(count, Ordering::Relaxed);
        }
        let mut open = self.open.write();
        for (_, partition) in open.extract_if(|index, _| !leadership.led.contains_key(index)) {
            partition.close();
        }
        for (&index, &leader_epoch) in &leadership.led {
            match open.get(&index) {
                Some(partition) if partition.leader_epoch() >= leader_epoch => continue,
                // Another broker may have led meanwhile.
                Some(partition) => partition.close(),
                None => {}
            }
            open.insert(index, Partition::open(index, leader_epoch, Arc::clone(&self.shared)));
        }
    }

    /// Those it leads, with the leader epochs it was told.
    pub(crate) fn led(&self) -> BTreeMap<i32, i32> {
        self.open.read().iter().map(|(index, partition)| (*index, partition.leader_epoch())).collect()
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Arc<Partition<S>>> {
        self.open.read().values().cloned().collect()
    }

    /// Partition `index`, if it is led here.
    pub(crate) fn get(&self, index: i32) -> Result<Arc<Partition<S>>, S::Error> {
        self.open.read().get(&index).cloned().ok_or(NotServed::NotLed.into())
    }
}

/// Which of `count` partitions holds a key: Java's `String.hashCode`, as in Kafka.
fn partition_of_key(key: &str, count: i32) -> i32 {
    let hash = key.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    hash.checked_abs().unwrap_or(0) % count.max(1)
}
