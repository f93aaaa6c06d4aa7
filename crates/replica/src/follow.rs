//! Keeps the partitions in step with the metadata image: opens what this broker leads, applies settings and epochs, removes what is deleted.
//!
//! One task follows the image and never waits for the disk or the bucket of one partition: each opening is a task of its own that goes on until
//! it succeeds or the image says otherwise, so a bucket that is out holds up only the partitions that need it.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use siltstone_common::retry::Backoff;
use siltstone_common::{TopicId, TopicIdPartition};
use siltstone_metadata::{MetadataImage, TopicImage};
use tokio::sync::Semaphore;

use crate::error::ReplicaError;
use crate::manager::{Opening, ReplicaManager};
use crate::partition::{Partition, Standing};

/// Openings at the same time.
const OPENINGS_MAX: usize = 16;

impl ReplicaManager {
    /// Follows the image until shutdown; removes logs left by a crash between a topic's deletion and theirs.
    pub(crate) async fn follow_image(self: Arc<Self>) {
        let mut images = self.metadata.watch();
        let mut known: HashMap<TopicId, Arc<TopicImage>> = HashMap::new();
        let mut broker_configs = BTreeMap::new();
        let slots = Arc::new(Semaphore::new(OPENINGS_MAX));
        loop {
            let image = Arc::clone(&images.borrow_and_update());
            let all_changed = image.broker_configs != broker_configs;
            broker_configs.clone_from(&image.broker_configs);
            if all_changed {
                self.logs.set_producer_expiration(i64::from(self.broker_config().int("producer.id.expiration.ms")));
            }
            known.retain(|topic_id, _| image.topics.contains_key(topic_id));
            let is_new = |topic: &&Arc<TopicImage>| all_changed || !known.get(&topic.id).is_some_and(|seen| Arc::ptr_eq(seen, topic));
            let mut changed: Vec<_> = image.topics.values().filter(is_new).cloned().collect();
            changed.sort_unstable_by_key(|topic| topic.id);
            for topic in changed {
                self.apply_topic(&topic, &image, &slots);
                known.insert(topic.id, topic);
            }
            self.remove_deleted(&image).await;
            tokio::select! {
                changed = images.changed() => if changed.is_err() { return },
                () = self.env.tasks.stopped() => return,
            }
        }
    }

    /// Applies the image to the topic's open partitions, and begins to open the others that this broker leads.
    fn apply_topic(self: &Arc<Self>, topic: &TopicImage, image: &MetadataImage, slots: &Arc<Semaphore>) {
        for (index, state) in topic.partitions.iter().enumerate() {
            let id = TopicIdPartition::new(topic.id, i32::try_from(index).unwrap_or(i32::MAX));
            if let Some(partition) = self.opened(id) {
                self.apply(&partition, image);
            } else if self.leads(image, state) && self.begin_opening(id) {
                let (manager, slots) = (Arc::clone(self), Arc::clone(slots));
                self.env.tasks.spawn("replica-open", async move {
                    tokio::select! {
                        () = manager.env.tasks.stopped() => {}
                        () = manager.open_until_done(id, &slots) => {}
                    }
                });
            }
        }
    }

    /// True if no task is at it yet.
    fn begin_opening(&self, id: TopicIdPartition) -> bool {
        match self.opening.lock().entry(id) {
            Entry::Occupied(_) => false,
            Entry::Vacant(vacant) => {
                vacant.insert(Opening::Begun);
                true
            }
        }
    }

    /// Tells an open partition what the image says of it.
    fn apply(&self, partition: &Partition, image: &MetadataImage) {
        let Some((topic, state)) = image.topic_by_id(partition.id().topic_id).zip(image.partition(partition.id())) else { return };
        partition.set_config(self.topic_config(topic, image));
        if self.leads(image, state) {
            partition.log().begin_leader_epoch(state.leader_epoch);
            partition.set_standing(Standing::Leader);
        } else {
            partition.set_standing(Standing::NotLeader);
        }
    }

    async fn open_until_done(&self, id: TopicIdPartition, slots: &Semaphore) {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        while self.wants_open(id) {
            let opened = match slots.acquire().await {
                Ok(_slot) => self.open(id, &self.metadata.image()).await,
                Err(_closed) => return,
            };
            match opened {
                Ok(_) => {
                    self.opening.lock().remove(&id);
                    return;
                }
                Err(ReplicaError::UnknownPartition) => {}
                Err(error) => tracing::warn!(%id, %error, "could not open a partition, trying again"),
            }
            self.env.clock.sleep(backoff.next_delay(&*self.env.entropy)).await;
        }
    }

    /// False once the image says that this broker does not lead the partition: from then on a change of the image begins anew.
    fn wants_open(&self, id: TopicIdPartition) -> bool {
        let mut opening = self.opening.lock();
        let is_led = self.led_epoch(id).is_some();
        if !is_led {
            opening.remove(&id);
        }
        is_led
    }

    /// The image may have moved on while the partition was opened.
    pub(crate) fn apply_newest(&self, partition: &Partition) {
        loop {
            let image = self.metadata.image();
            self.apply(partition, &image);
            if Arc::ptr_eq(&image, &self.metadata.image()) {
                return;
            }
        }
    }

    async fn remove_deleted(&self, image: &MetadataImage) {
        let mut gone: Vec<TopicIdPartition> = self.logs.ids();
        gone.extend(self.partitions.read().keys());
        gone.retain(|id| !image.topics.contains_key(&id.topic_id));
        gone.sort_unstable();
        gone.dedup();
        // Decide on the newest image: this one may be older than the topic (I29's spirit: never delete from a stale view).
        let newest = self.metadata.image();
        gone.retain(|id| !newest.topics.contains_key(&id.topic_id));
        // Those who wait for any of them are told before the files go, which takes time.
        for partition in gone.iter().filter_map(|id| self.opened(*id)) {
            partition.set_standing(Standing::Deleted);
        }
        for id in gone {
            self.close_partition(id).await;
        }
    }

    pub(crate) async fn close_partition(&self, id: TopicIdPartition) {
        let removed = self.partitions.write().remove(&id);
        if let Some(partition) = removed.as_ref().and_then(|cell| cell.get()) {
            partition.set_standing(Standing::Deleted);
        }
        let logs = Arc::clone(&self.logs);
        if let Some(Err(error)) = self.env.tasks.blocking(move || logs.delete(id)).await {
            tracing::error!(%id, %error, "could not remove the log of a deleted partition: it is tried again");
        }
        if let Err(error) = self.compared(id).await {
            tracing::warn!(%error, "could not note that all logs are compared: the next start does it again");
        }
    }
}
